"""Who is told that a workspace changed: waiting claims, streams, other processes."""

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from server.api.context import EVERY_WORKSPACE
from server.api.feed import Feed, pause
from server.api.turns import Turns
from server.db.listen import listen
from server.db.pool import Database
from server.errors import Problem
from server.store.notices import send_notices

CHANNEL: Final = "worklease"
PROBE: Final = "probe"
# A probe that asks all others for theirs.
HELLO: Final = "hello"
# Between two notifications of one process: what happens meanwhile goes with the next.
NOTICE_EVERY_SECONDS: Final = 0.02
PROBE_EVERY_SECONDS: Final = 10.0
# Whose probe was not heard for so long does not listen any more.
GONE_SECONDS: Final = 3 * PROBE_EVERY_SECONDS


class Hub:
    """Hints only: who is woken looks for itself, so a lost hint costs time and nothing else."""

    def __init__(self, db: Database, conninfo: str, offered: Callable[[str, int], None]) -> None:
        self._db = db
        self._conninfo = conninfo
        self._offered = offered
        # Told of every change of a workspace, here or elsewhere.
        self.woken: Callable[[str], None] = lambda _: None
        self._name = secrets.token_hex(8)
        self.turns = Turns()
        self._feeds: dict[str, Feed] = {}
        self._watchers: dict[str, set[asyncio.Event]] = {}
        self._pending: dict[str, int] = {}
        self._sending: asyncio.Task[None] | None = None
        self._sent_at = 0.0
        self._probe_back_at: float | None = None
        # When the other listening processes were last heard.
        self._others: dict[str, float] = {}

    def changed(self, workspace_id: str, offers: int) -> None:
        """Something was committed; offers: how many runs it put into the queue."""
        self._wake(workspace_id)
        if offers:
            self._offered(workspace_id, offers)
        if self._alone():
            return
        self._pending[workspace_id] = self._pending.get(workspace_id, 0) + offers
        if self._sending is None:
            self._sending = asyncio.create_task(self._send())

    def feed(self, workspace_id: str) -> Feed:
        """The live end of a workspace's log."""
        return self._feeds.setdefault(workspace_id, Feed(self._db, workspace_id))

    @contextmanager
    def watch(self, workspace_id: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever something was committed."""
        news = asyncio.Event()
        watchers = self._watchers.setdefault(workspace_id, set())
        watchers.add(news)
        try:
            yield news
        finally:
            watchers.discard(news)
            if not watchers:
                self._watchers.pop(workspace_id, None)

    def streams(self) -> int:
        """How many streams this process serves."""
        return sum(map(len, self._feeds.values()))

    def close(self) -> None:
        """Ends all streams."""
        for feed in self._feeds.values():
            feed.close()
        self._wake(EVERY_WORKSPACE)

    def poll(self) -> None:
        """Lets every stream look, in case a hint was lost."""
        for workspace_id, feed in list(self._feeds.items()):
            if feed:
                feed.hint()
            else:
                del self._feeds[workspace_id]

    async def follow_others(self) -> None:
        """Passes on what other processes tell, until the connection breaks."""
        async for notice in listen(self._conninfo, CHANNEL):
            if notice is None:
                self.poll()
                # Only now: an answer to anything sent before was not heard.
                await self._say(HELLO)
            else:
                await self._hear(notice)

    async def probe(self) -> None:
        """Sends a notification to itself; it also tells the others that this process listens."""
        await self._say(PROBE)

    def probe_age_seconds(self) -> float | None:
        """How long ago a notification of our own came back."""
        return None if self._probe_back_at is None else time.monotonic() - self._probe_back_at

    async def _say(self, word: str) -> None:
        await send_notices(self._db, CHANNEL, [f"{self._name} {word} 0"])

    async def _hear_probe(self, name: str, asks: bool) -> None:
        if name == self._name:
            self._probe_back_at = time.monotonic()
            return
        self._others[name] = time.monotonic()
        if asks:
            await self.probe()

    def _alone(self) -> bool:
        """Whether this process hears what is sent, and has heard nobody else send."""
        gone = time.monotonic() - GONE_SECONDS
        for name in [name for name, at in self._others.items() if at < gone]:
            del self._others[name]
        return not self._others and self._probe_back_at is not None and self._probe_back_at > gone

    async def _hear(self, notice: str) -> None:
        name, workspace_id, offers = notice.split(" ")
        if workspace_id in (PROBE, HELLO):
            await self._hear_probe(name, asks=workspace_id == HELLO)
        elif name != self._name:
            self._wake(workspace_id)
            if offers != "0":
                self._offered(workspace_id, int(offers))

    def _wake(self, workspace_id: str) -> None:
        self.woken(workspace_id)
        every = workspace_id == EVERY_WORKSPACE
        for name in list(self._feeds) if every else [workspace_id]:
            if name in self._feeds:
                self._feeds[name].hint()
        for name in list(self._watchers) if every else [workspace_id, EVERY_WORKSPACE]:
            for news in self._watchers.get(name, ()):
                news.set()

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
