"""The live end of a workspace's log: read once, however many streams follow it."""

import asyncio
from collections import deque
from typing import Final

from server.db.pool import Database, Fault
from server.errors import Problem
from server.store.events import latest_sequence, read_feed
from server.telemetry import LoopFailed, occur

PAGE_COUNT: Final = 500


class Subscriber:
    """One stream of one task: the frames that came since it joined."""

    def __init__(self, task_id: str, limit: int) -> None:
        self.task_id = task_id
        # Everything behind this sequence comes as a frame, nothing up to it does.
        self.joined_at = 0
        # More frames waited than may: the stream has to read the log, or to give up.
        self.overflowed = False
        self.reason = "slow_client"
        self.closed = False
        self._limit = limit
        self._frames: deque[tuple[int, bytes, bool]] = deque()
        self._come = asyncio.Event()

    def push(self, sequence: int, frame: bytes, last: bool) -> None:
        """Takes a frame; last: nothing comes behind it."""
        if len(self._frames) >= self._limit:
            self.overflowed = True
        if not self.overflowed:
            self._frames.append((sequence, frame, last))
        self._come.set()

    def lose(self) -> None:
        """Takes note that events which it wanted are no longer kept."""
        self.overflowed, self.reason = True, "retention"
        self._come.set()

    def close(self) -> None:
        """Ends the stream once its frames are taken."""
        self.closed = True
        self._come.set()

    async def take(self, seconds: float) -> tuple[int, bytes, bool] | None:
        """The next frame; None if none came in time, or none will come."""
        if not self._frames and not self.closed and not self.overflowed:
            self._come.clear()
            try:
                await asyncio.wait_for(self._come.wait(), seconds)
            except TimeoutError:
                return None
        return self._frames.popleft() if self._frames else None


class Feed:
    """Publishes the log of one workspace strictly by sequence; a hint is never a position."""

    def __init__(self, db: Database, workspace_id: str) -> None:
        self._db = db
        self._workspace_id = workspace_id
        self._position: int | None = None
        self._subscribers: set[Subscriber] = set()
        self._hinted = asyncio.Event()
        self._joining = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._subscribers)

    def hint(self) -> None:
        """The log may have grown."""
        self._hinted.set()

    async def join(self, subscriber: Subscriber) -> None:
        """Sends it every event behind its joined_at from now on."""
        # First of all: a feed without subscribers is forgotten by the hub, and hears no hints.
        self._subscribers.add(subscriber)
        async with self._joining:
            if self._position is None:
                self._position = await latest_sequence(self._db, self._workspace_id)
            subscriber.joined_at = self._position
            if self._task is None:
                self._task = asyncio.create_task(self._run())

    def leave(self, subscriber: Subscriber) -> None:
        """Sends it nothing more."""
        self._subscribers.discard(subscriber)
        if not self._subscribers and self._task is not None:
            self._task.cancel()
            self._task = None
            self._position = None

    def close(self) -> None:
        """Ends all streams."""
        for subscriber in self._subscribers:
            subscriber.close()

    async def _run(self) -> None:
        while True:
            await self._hinted.wait()
            self._hinted.clear()
            try:
                while await self._publish():
                    pass
            except Problem:
                # The database is away: the next poll hints again.
                continue
            except Fault as error:
                # As above, but somebody should know.
                occur(LoopFailed, loop="feed", error=error)

    async def _publish(self) -> bool:
        """Passes on the next page of the log; whether there may be more."""
        position = self._position or 0
        watched = {subscriber.task_id for subscriber in self._subscribers}
        rows = await read_feed(
            self._db, workspace_id=self._workspace_id, after=position, watched=list(watched),
            limit=PAGE_COUNT,
        )  # fmt: skip
        if rows and rows[0][0] > position + 1:
            # The log has no gaps: this process slept while retention went past it.
            for subscriber in self._subscribers:
                subscriber.lose()
        for sequence, event_type, task_id, above, timeline in rows:
            if timeline is not None:
                told = frame(sequence, event_type, timeline)
                for subscriber in self._subscribers:
                    if subscriber.task_id in above:
                        gone = event_type == "task.deleted" and task_id == subscriber.task_id
                        subscriber.push(sequence, told, gone)
            self._position = sequence
        return len(rows) == PAGE_COUNT


def frame(sequence: int, event_type: str, timeline: str) -> bytes:
    """An event as a frame of a task's stream."""
    data = f'{{"sequence":{sequence},"type":"{event_type}","timeline":{timeline}}}'
    return f"id: {sequence}\nevent: {event_type}\ndata: {data}\n\n".encode()
