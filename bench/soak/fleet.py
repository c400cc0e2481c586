"""Who burdens the server: agents that hold leases, that wait, that work, and those who plan."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

import msgspec

from bench.soak.wire import Address, Answer, Connection, connect

CLAIM: Final = "/api/agent/tasks/claim-next"
CONNECTIONS: Final = 64
WAIT_SECONDS: Final = 55
# One heartbeat in so many tells of progress, which is an event.
PROGRESS_EVERY: Final = 20
# One planned task in so many is for those who wait.
NIGHT_EVERY: Final = 20
TICK_SECONDS: Final = 0.01


class Held(NamedTuple):
    """A lease, and whose it is."""

    run_id: str
    token: str
    session: str


class Fleet:
    """All clients of one server, what they were answered, and what went wrong."""

    def __init__(self, address: Address, missions: list[str]) -> None:
        self.address = address
        self.missions = missions
        self.held: list[Held] = []
        # The milliseconds of each kind of call.
        self.took: dict[str, list[float]] = {}
        self.errors: list[str] = []
        self.jobs = self.woken = 0
        self._resting = False
        self._tasks: dict[str, list[asyncio.Task[None]]] = {}
        self._numbers = itertools.count()

    async def claim_holds(self, count: int, lease_seconds: int) -> None:
        """Claims so many leases, each for an agent of its own."""
        wish = b'{"channel":"hold","lease_seconds":%d}' % lease_seconds
        numbers = iter(range(count))

        async def claimer() -> None:
            async with self._connected() as connection:
                for n in numbers:
                    held = await self._claim(connection, "claim_hold", f"agent-{n}", wish)
                    if held is not None:
                        self.held.append(held)

        await asyncio.gather(*(claimer() for _ in range(min(CONNECTIONS, count))))

    def start_heartbeats(self, every_seconds: float) -> None:
        """Renews each lease in every such time, all of them evenly, over a few connections."""
        due: asyncio.Queue[int] = asyncio.Queue()

        async def clock() -> None:
            began, sent = time.monotonic(), 0
            while True:
                wanted = (time.monotonic() - began) / every_seconds * len(self.held)
                for n in range(sent, int(wanted)):
                    due.put_nowait(n)
                sent = max(sent, int(wanted))
                await asyncio.sleep(TICK_SECONDS)

        async def sender() -> None:
            async with self._connected() as connection:
                while True:
                    n = await due.get()
                    # Not the same ones each time; and nobody when the log is to come to its end.
                    told = (n + n // len(self.held)) % PROGRESS_EVERY == 0
                    loud = told and not self._resting
                    await self._heartbeat(connection, self.held[n % len(self.held)], loud)

        self._start("heartbeats", clock, *[sender] * CONNECTIONS)

    def start_waiters(self, count: int) -> None:
        """Agents who wait for work that hardly ever comes."""
        wish = b'{"channel":"night","wait_seconds":%d}' % WAIT_SECONDS

        async def waiter() -> None:
            session = f"waiter-{next(self._numbers)}"
            async with self._connected() as connection:
                while True:
                    request = self.address.request("POST", CLAIM, session, wish)
                    answer = await connection.ask(request)
                    if answer.status == 204:
                        continue
                    if held := self._held(answer, session):
                        came_at = answer.told()["claim"]["payload"]["at"]
                        self._note("pickup", (time.perf_counter() - came_at) * 1e3)
                        self.woken += 1
                        await self._complete(connection, held)

        self._start("waiters", *[waiter] * count)

    def start_workers(self, count: int, jobs_per_second: float) -> None:
        """Agents who work, so much all together, and somebody who plans as much."""

        async def worker() -> None:
            session = f"worker-{next(self._numbers)}"
            async with self._connected() as connection:
                async for _ in self._evenly(jobs_per_second / count):
                    held = await self._claim(connection, "claim", session, b'{"channel":"jobs"}')
                    if held is not None:
                        await self._complete(connection, held)
                        self.jobs += 1

        async def planner() -> None:
            missions = itertools.cycle(self.missions)
            async with self._connected() as connection:
                async for n in self._evenly(jobs_per_second):
                    await self._plan(connection, next(missions), n % NIGHT_EVERY == 0)

        self._resting = False
        self._start("workers", planner, *[worker] * count)

    async def rest(self) -> None:
        """Ends those who work, with what they have begun."""
        self._resting = True
        await asyncio.gather(*self._tasks["workers"])
        await self.stop("workers")

    async def stop(self, kind: str) -> None:
        """Ends those of one kind."""
        tasks = self._tasks.pop(kind)
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                self.errors.append(f"{kind}: {ended!r}")

    def _start(self, kind: str, *makers: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._tasks[kind] = [asyncio.create_task(maker()) for maker in makers]

    async def _claim(
        self, connection: Connection, kind: str, session: str, wish: bytes
    ) -> Held | None:
        answer = await connection.ask(self.address.request("POST", CLAIM, session, wish))
        self._note(kind, answer.ms)
        return None if answer.status == 204 else self._held(answer, session)

    async def _heartbeat(self, connection: Connection, held: Held, loud: bool) -> None:
        body: dict[str, Any] = {"claim_token": held.token}
        if loud:
            body["progress"] = {"message": "still at it"}
        await self._call(connection, "progress" if loud else "heartbeat", held, "heartbeat", body)

    async def _complete(self, connection: Connection, held: Held) -> None:
        body = {"claim_token": held.token, "result": {"ok": True}}
        await self._call(connection, "complete", held, "complete", body)

    async def _call(
        self, connection: Connection, kind: str, held: Held, verb: str, body: dict[str, Any]
    ) -> None:
        path = f"/api/agent/tasks/{held.run_id}/{verb}"
        sent = msgspec.json.encode(body)
        answer = await connection.ask(self.address.request("POST", path, held.session, sent))
        self._note(kind, answer.ms)
        self._expect(answer, 200)

    async def _plan(self, connection: Connection, mission: str, night: bool) -> None:
        body = msgspec.json.encode(
            {
                "title": "Look again",
                "network_channel": "night" if night else "jobs",
                "payload": {"at": time.perf_counter()},
                "auto_enqueue_on_ready": True,
            }
        )
        path = f"/api/tasks/{mission}/children"
        answer = await connection.ask(self.address.request("POST", path, "planner", body))
        self._note("create", answer.ms)
        self._expect(answer, 201)

    def _held(self, answer: Answer, session: str) -> Held | None:
        if not self._expect(answer, 200):
            return None
        lease = answer.told()["claim"]["lease"]
        return Held(lease["run_id"], lease["claim_token"], session)

    def _expect(self, answer: Answer, status: int) -> bool:
        if answer.status != status:
            self.errors.append(f"{answer.status}: {answer.body[:300]!r}")
        return answer.status == status

    def _note(self, kind: str, ms: float) -> None:
        self.took.setdefault(kind, []).append(ms)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Connection]:
        connection = await connect(self.address.port)
        try:
            yield connection
        finally:
            connection.close()

    async def _evenly(self, per_second: float) -> AsyncIterator[int]:
        """Numbers, each when it is due, until it is time to rest; who is late catches up."""
        began = time.monotonic()
        for n in itertools.count():
            if self._resting:
                return
            yield n
            await asyncio.sleep(max(0.0, began + (n + 1) / per_second - time.monotonic()))
