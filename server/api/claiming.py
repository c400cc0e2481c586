"""Claiming: which lanes a caller may take from, the batch of claims, and claims that wait."""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec

from server.api.batch import Batcher, refusal
from server.api.context import EVERY_WORKSPACE, Caller
from server.api.heads import Heads, Reach
from server.api.lanes import COORDINATION, Lanes
from server.api.rates import limited
from server.api.waiters import Waiter
from server.db.pool import Asked, ConnectionLost, Database
from server.errors import Problem
from server.rules.lanes import Claimer
from server.store.lanes import list_lanes
from server.store.leases import CallAnswer, claim_runs, release_runs
from server.telemetry import ClaimServed, ClaimWaited, RunTaken, occur

LANES_CHANGED: Final = "lanes_changed"
RETRY_AFTER_LONGEST_SECONDS: Final = 30
Key = tuple[bytes, bytes, bytes, bytes]


class Wish(NamedTuple):
    """One claim: for whom, what it may take, how much and for how long."""

    claimer: Claimer
    priority_min: int
    max_runs: int
    lease_seconds: int | None
    key: str | None
    request_hash: str | None
    cause: str

    @property
    def one(self) -> str:
        """Two claims with one key never share a batch; others always may."""
        return f"{self.claimer.session_id} {self.key}" if self.key else f"{id(self)}"

    @property
    def run_ref(self) -> str | None:
        """The run that is asked for by its coordination channel."""
        channel = self.claimer.channel
        named = channel is not None and channel.startswith(COORDINATION)
        return channel[len(COORDINATION) :] if named and channel else None


class Claimed(NamedTuple):
    """What a claim got: Claim objects as JSON, none if nothing was claimable."""

    claims: list[str]
    replayed: bool
    server_time: str
    refused: Problem | None = None


class Taken(msgspec.Struct, frozen=True):
    """How long a run had waited when it was claimed."""

    priority: str
    seconds: float


class Claiming:
    """The claims of one process."""

    def __init__(
        self, db: Database, connect: Callable[[], Asked], limit: int, busy_seconds: float, key: Key
    ) -> None:
        self._db = db
        # Claims by hand derive their tokens with it too.
        self.key = key
        self._lanes: dict[str, Lanes] = {}
        self._heads = Heads(db)
        self._waiters: dict[str, dict[Waiter, None]] = {}
        self._empty_since: dict[str, float] = {}

        def batcher(aside: Batcher[Wish, Claimed] | None) -> Batcher[Wish, Claimed]:
            serve, keyed = partial(self._serve, connect()), lambda wish: wish.key is not None
            return Batcher("claim", serve, limit, busy_seconds, keyed, aside)

        self._batcher = batcher(batcher(None))
        self.claimed: Callable[[str, int], None] = lambda _, __: None
        self.draining = False

    async def claim(self, workspace_id: str, wish: Wish, has_left: Callable[[], bool]) -> Claimed:
        """Claims for one caller."""
        return self._told(workspace_id, await self._look(workspace_id, wish, has_left))

    async def wait(
        self, workspace_id: str, wish: Wish, seconds: int, gone: "asyncio.Future[None]", limit: int
    ) -> Claimed:
        """As claim, but waits for a run; gone is done when the caller has left."""
        began = time.monotonic()
        waiters = self._waiters.setdefault(workspace_id, {})
        if len(waiters) >= limit:
            raise limited("claims", limit, 1)
        # Registered before it looks: what comes meanwhile wakes it.
        waiter = Waiter(self._kind(workspace_id, wish))
        waiters[waiter] = None
        try:
            while True:
                got = await self._look(workspace_id, wish, gone.done)
                waiter.kind = self._kind(workspace_id, wish)
                left = began + seconds - time.monotonic()
                if got.claims or got.refused or left <= 0 or self.draining:
                    break
                await self._sleep(waiter, left, gone)
                if gone.done():
                    break
        finally:
            del waiters[waiter]
        if got.claims or gone.done():
            # Perhaps there is more where this came from, or it was woken in vain.
            self._wake(workspace_id, 1, waiter.kind)
        occur(ClaimWaited, value=time.monotonic() - began)
        return self._told(workspace_id, got)

    def offered(self, workspace_id: str, offers: int) -> None:
        """Runs came into the queue: as many waiters of each kind look, longest waiting first."""
        every = workspace_id == EVERY_WORKSPACE
        for waiting in list(self._waiters) if every else [workspace_id]:
            self._wake(waiting, offers, None)

    def poll(self) -> None:
        """Lets one waiter of each kind look, in case a hint was lost."""
        for workspace_id in list(self._waiters):
            self._wake(workspace_id, 1, None)

    def drain(self) -> None:
        """Ends all waits now."""
        self.draining = True
        for waiters in self._waiters.values():
            for waiter in waiters:
                waiter.wake()

    async def idle(self) -> None:
        """Returns when no batch is under way."""
        await self._batcher.idle()
        await self._heads.idle()

    def retry_after(self, workspace_id: str) -> int:
        """When to ask again: the later, the longer the queue has been empty."""
        empty = time.monotonic() - self._empty_since.get(workspace_id, time.monotonic())
        return random.randint(1, max(1, min(RETRY_AFTER_LONGEST_SECONDS, round(empty))))

    async def _look(self, workspace_id: str, wish: Wish, has_left: Callable[[], bool]) -> Claimed:
        """Takes what is there; what nobody hears of, nor can ask for again, is given back."""
        got = await self._batcher.submit(workspace_id, wish)
        if got.claims and wish.key is None and has_left():
            await self._undo(workspace_id, wish, got)
        return got

    async def _sleep(self, waiter: Waiter, seconds: float, gone: "asyncio.Future[None]") -> None:
        ends = {waiter.woken, gone}
        await asyncio.wait(ends, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if waiter.woken.done():
            waiter.woken = asyncio.get_running_loop().create_future()

    def _kind(self, workspace_id: str, wish: Wish) -> tuple[Any, ...]:
        """What it may take; while nobody knows the lanes each claimer is a kind of its own."""
        lanes = self._lanes.get(workspace_id)
        reach = (lanes, lanes.number(wish.claimer)) if lanes else (wish.claimer,)
        return (wish.priority_min, wish.run_ref, *reach)

    def _wake(self, workspace_id: str, count: int, kind: tuple[Any, ...] | None) -> None:
        woken: dict[tuple[Any, ...], int] = {}
        for waiter in self._waiters.get(workspace_id, ()):
            if kind is not None and waiter.kind != kind:
                continue
            if not waiter.woken.done() and woken.get(waiter.kind, 0) < count:
                woken[waiter.kind] = woken.get(waiter.kind, 0) + 1
                waiter.wake()

    def _told(self, workspace_id: str, got: Claimed) -> Claimed:
        if got.refused is not None:
            raise got.refused
        if got.claims:
            self._empty_since.pop(workspace_id, None)
        else:
            self._empty_since.setdefault(workspace_id, time.monotonic())
        result = ("replayed" if got.replayed else "claimed") if got.claims else "empty"
        occur(ClaimServed, count=max(1, len(got.claims)), kind="run", result=result)
        return got

    async def _serve(
        self, asked: Asked, workspace_id: str, wishes: Sequence[Wish]
    ) -> list[Claimed]:
        rows: list[CallAnswer] = []
        while not rows or rows[0].code == LANES_CHANGED:
            lanes = self._lanes.get(workspace_id)
            if lanes is None or rows:
                lanes = Lanes(await list_lanes(self._db, workspace_id))
                self._lanes[workspace_id] = lanes
                # Those who wait may be of other kinds now.
                self._wake(workspace_id, len(self._waiters.get(workspace_id, ())), None)
            reaches = [(lanes.of(wish.claimer), wish.priority_min, wish.run_ref) for wish in wishes]
            rows = await self._ask(asked, workspace_id, wishes, reaches, lanes.newest)
            if not rows:
                break
        for reach in set(reaches):
            self._heads.claimed(workspace_id, reach)
        offers = sum(row.offers for row in rows)
        if offers or any(row.code is None and not row.replayed for row in rows):
            self.claimed(workspace_id, offers)
        for row in rows:
            if row.code is None and not row.replayed and row.evidence is not None:
                taken = msgspec.json.decode(row.evidence, type=Taken)
                occur(RunTaken, value=taken.seconds, priority=taken.priority)
        shares: dict[int, list[CallAnswer]] = {}
        for row in rows:
            shares.setdefault(row.n, []).append(row)
        return [_share(shares.get(n, [])) for n in range(len(wishes))]

    async def _ask(
        self, asked: Asked, workspace_id: str, wishes: Sequence[Wish], reaches: list[Reach],
        newest_lane: int,
    ) -> list[CallAnswer]:  # fmt: skip
        numbers = {reach: number for number, reach in enumerate(dict.fromkeys(reaches))}
        teams = [
            {"team": number, "lanes": reach[0], "priority_min": reach[1], "run_ref": reach[2]}
            | self._heads.of(workspace_id, reach)
            for reach, number in numbers.items()
        ]
        outer, inner, outer_previous, inner_previous = self.key
        try:
            return await claim_runs(
                asked, workspace_id, teams=msgspec.json.encode(teams).decode(),
                calls=_calls(wishes, [numbers[reach] for reach in reaches]),
                newest_lane=newest_lane, outer=outer, inner=inner, outer_previous=outer_previous,
                inner_previous=inner_previous,
            )  # fmt: skip
        except ConnectionLost:
            self._heads.forget()
            raise

    async def _undo(self, workspace_id: str, wish: Wish, got: Claimed) -> None:
        calls = [
            {
                "n": n,
                "run_id": lease["run_id"],
                "session_id": wish.claimer.session_id,
                "agent_name": wish.claimer.agent_name,
                "token_hash": lease["claim_token_hash"].removeprefix("sha256:"),
                "token_fence": lease["fence"],
                "genuine": True,
                "reason": "client_gone",
                "cause": msgspec.Raw(wish.cause.encode()),
            }
            for n, lease in enumerate(msgspec.json.decode(claim)["lease"] for claim in got.claims)
        ]
        await release_runs(self._db, workspace_id, msgspec.json.encode(calls).decode(), undo=True)
        self.offered(workspace_id, len(calls))


def _calls(wishes: Sequence[Wish], teams: list[int]) -> str:
    """The wishes as the database takes them: those with equal reach are one team."""
    calls = [
        {
            "n": n,
            "team": team,
            "session_id": wish.claimer.session_id,
            "agent_name": wish.claimer.agent_name,
            "max_runs": wish.max_runs,
            "lease_seconds": wish.lease_seconds,
            "key": wish.key,
            "hash": wish.request_hash,
            "cause": msgspec.Raw(wish.cause.encode()),
        }
        for n, (wish, team) in enumerate(zip(wishes, teams, strict=True))
    ]
    return msgspec.json.encode(calls).decode()


def _share(rows: list[CallAnswer]) -> Claimed:
    """What one caller got of a batch."""
    for row in rows:
        if row.code is not None:
            return Claimed([], False, row.server_time, refusal(row))
    replayed = any(row.replayed for row in rows)
    return Claimed([row.body or "" for row in rows], replayed, rows[0].server_time if rows else "")


def make_claimer(
    caller: Caller, channel: str | None, peer_id: str | None, capabilities: list[str]
) -> Claimer:
    """Who claims, and with what."""
    return Claimer(
        caller.agent_name or "", caller.session_id or "", channel, peer_id, frozenset(capabilities)
    )
