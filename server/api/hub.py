"""Who is told that a workspace changed: waiting claims, streams, other processes."""

import asyncio
import random
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from server.db.listen import listen
from server.db.pool import Database
from server.errors import Problem
from server.store.notices import send_notices

CHANNEL: Final = "worklease"
PROBE: Final = "probe"
# Between two notifications of one process: what happens meanwhile goes with the next.
NOTICE_EVERY_SECONDS: Final = 0.02


class Hub:
    """Hints only: who is woken looks for itself, so a lost hint costs time and nothing else."""

    def __init__(self, db: Database, conninfo: str, offered: Callable[[str, int], None]) -> None:
        self._db = db
        self._conninfo = conninfo
        self._offered = offered
        self._name = secrets.token_hex(8)
        self._streams: dict[str, set[asyncio.Event]] = {}
        self._pending: dict[str, int] = {}
        self._sending: asyncio.Task[None] | None = None
        self._sent_at = 0.0
        self._probe_sent_at: float | None = None
        self._probe_back_at: float | None = None

    def changed(self, workspace_id: str, offers: int) -> None:
        """Something was committed; offers: how many runs it put into the queue."""
        self._wake(workspace_id)
        if offers:
            self._offered(workspace_id, offers)
        self._pending[workspace_id] = self._pending.get(workspace_id, 0) + offers
        if self._sending is None:
            self._sending = asyncio.create_task(self._send())

    def subscribe(self, workspace_id: str) -> asyncio.Event:
        """An event that is set whenever the workspace's log may have grown."""
        event = asyncio.Event()
        self._streams.setdefault(workspace_id, set()).add(event)
        return event

    def unsubscribe(self, workspace_id: str, event: asyncio.Event) -> None:
        """Ends a subscription."""
        streams = self._streams.get(workspace_id, set())
        streams.discard(event)
        if not streams:
            self._streams.pop(workspace_id, None)

    def subscribers(self, workspace_id: str | None = None) -> int:
        """How many streams follow a workspace, or all of them."""
        if workspace_id is not None:
            return len(self._streams.get(workspace_id, ()))
        return sum(map(len, self._streams.values()))

    def poll(self) -> None:
        """Lets every stream look, in case a hint was lost."""
        for workspace_id in list(self._streams):
            self._wake(workspace_id)

    async def follow_others(self) -> None:
        """Passes on what other processes tell, until the connection breaks."""
        async for notice in listen(self._conninfo, CHANNEL):
            if notice is None:
                self.poll()
            else:
                self._hear(notice)

    async def probe(self) -> None:
        """Sends a notification to itself."""
        self._probe_sent_at = time.monotonic()
        await send_notices(self._db, CHANNEL, [f"{self._name} {PROBE} 0"])

    def probe_age_seconds(self) -> float | None:
        """How long ago a notification of our own came back."""
        return None if self._probe_back_at is None else time.monotonic() - self._probe_back_at

    def _hear(self, notice: str) -> None:
        name, workspace_id, offers = notice.split(" ")
        if workspace_id == PROBE:
            if name == self._name:
                self._probe_back_at = time.monotonic()
        elif name != self._name:
            self._wake(workspace_id)
            if offers != "0":
                self._offered(workspace_id, int(offers))

    def _wake(self, workspace_id: str) -> None:
        for event in self._streams.get(workspace_id, ()):
            event.set()

    async def _send(self) -> None:
        try:
            while self._pending:
                early = self._sent_at + NOTICE_EVERY_SECONDS - time.monotonic()
                if early > 0:
                    await pause(early)
                pending, self._pending = self._pending, {}
                self._sent_at = time.monotonic()
                with suppress(Problem):
                    await send_notices(
                        self._db,
                        CHANNEL,
                        [f"{self._name} {name} {offers}" for name, offers in pending.items()],
                    )
        finally:
            self._sending = None


async def pause(seconds: float) -> None:
    """Lets time pass without a wake-up."""
    over = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(seconds, over.set_result, None)
    await over


def jitter(seconds: float) -> float:
    """A time around this one, so that processes do not act in step."""
    return seconds * random.uniform(0.75, 1.25)
