"""The live end of a workspace's log: read once, however many streams follow it."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from server.api.turns import Turns
from server.db.pool import Database, Fault
from server.errors import Problem
from server.store.events import latest_sequence
from server.store.streams import FeedRow, read_feed, read_signals
from server.telemetry import LoopFailed, occur

PAGE_COUNT: Final = 500
NEVER: Final = 2**63
# Between two looks at the log: what is committed meanwhile is read together.
LOOK_EVERY_SECONDS: Final = 0.02


class Topic(NamedTuple):
    """What a stream is about: a task and all below it, the workspace, or a session."""

    kind: str
    name: str


class Told(NamedTuple):
    """A frame of a stream; last: nothing comes behind it."""

    sequence: int
    frame: bytes
    last: bool = False


class Subscriber:
    """One stream: the frames that came since it joined."""

    def __init__(
        self, turns: Turns, topic: Topic, limit: int,
        fits: Callable[[str, str | None], bool] | None = None,
    ) -> None:  # fmt: skip
        self._turns = turns
        self.topic = topic
        # Whether an event of this type and task is wanted.
        self.fits = fits
        # Everything behind this sequence comes as a frame, nothing up to it does; none before it
        # is set: who is only counted as yet reads the log up to there.
        self.joined_at: int = NEVER
        # More frames waited than may: the stream has to read the log, or to give up.
        self.overflowed = False
        self.reason = "slow_client"
        self.closed = False
        self._limit = limit
        self._frames: deque[Told] = deque()
        self._come = asyncio.Event()

    def push(self, told: Told) -> None:
        """Takes a frame."""
        if len(self._frames) >= self._limit:
            self.overflowed = True
        if not self.overflowed:
            self._frames.append(told)
        self._turns.wake(self._come)

    def lose(self) -> None:
        """Takes note that events which it wanted are no longer kept."""
        self.overflowed, self.reason = True, "retention"
        self._turns.wake(self._come)

    def close(self) -> None:
        """Ends the stream once its frames are taken."""
        self.closed = True
        self._turns.wake(self._come)

    async def take(self, seconds: float) -> Told | None:
        """The next frame; None if none came in time (or early, rarely), or none will come."""
        if not self._frames and not self.closed and not self.overflowed:
            self._come.clear()
            over = asyncio.get_running_loop().call_later(seconds, self._turns.wake, self._come)
            try:
                await self._come.wait()
            finally:
                over.cancel()
        return self._frames.popleft() if self._frames else None


class Feed:
    """Publishes the log of one workspace strictly by sequence; a hint is never a position."""

    def __init__(self, db: Database, workspace_id: str) -> None:
        self._db = db
        self._workspace_id = workspace_id
        self._position: int | None = None
        self._subscribers: dict[Topic, set[Subscriber]] = {}
        self._hinted = asyncio.Event()
        # Held while a page is read for those who have joined: who comes meanwhile joins behind it.
        self._reading = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return sum(map(len, self._subscribers.values()))

    def hint(self) -> None:
        """The log may have grown."""
        self._hinted.set()

    def admit(self, subscriber: Subscriber) -> None:
        """Counts it among the streams. A feed without any is forgotten, and hears no hints."""
        self._subscribers.setdefault(subscriber.topic, set()).add(subscriber)

    async def join(self, subscriber: Subscriber) -> None:
        """Sends it every event behind its joined_at from now on."""
        self.admit(subscriber)
        async with self._reading:
            if self._position is None:
                self._position = await latest_sequence(self._db, self._workspace_id)
            subscriber.joined_at = self._position
            if self._task is None:
                self._task = asyncio.create_task(self._run())

    def leave(self, subscriber: Subscriber) -> None:
        """Sends it nothing more."""
        others = self._subscribers.get(subscriber.topic, set())
        others.discard(subscriber)
        if not others:
            self._subscribers.pop(subscriber.topic, None)
        if not self._subscribers and self._task is not None:
            self._task.cancel()
            self._task = None
            self._position = None

    def close(self) -> None:
        """Ends all streams."""
        for subscribers in self._subscribers.values():
            for subscriber in subscribers:
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
                pass
            except Fault as error:
                # As above, but somebody should know.
                occur(LoopFailed, loop="feed", error=error)
            await pause(LOOK_EVERY_SECONDS)

    async def _publish(self) -> bool:
        """Passes on the next page of the log; whether there may be more."""
        async with self._reading:
            position = self._position or 0
            sessions = self._names("session")
            rows = await read_feed(
                self._db, workspace_id=self._workspace_id, after=position, limit=PAGE_COUNT,
                watched=self._names("task"), whole=bool(self._names("workspace")),
                signals=bool(sessions),
            )  # fmt: skip
            if not rows:
                return False
            if rows[0].first > position + 1:
                # The log has no gaps: this process slept while retention went past it.
                for subscriber in set().union(*self._subscribers.values()):
                    if subscriber.joined_at < NEVER:
                        subscriber.lose()
            newest = rows[-1].sequence
            signals: dict[int, list[tuple[str, bytes]]] = {}
            if any(row.signal for row in rows):
                for sequence, session_id, name, data in await read_signals(
                    self._db, workspace_id=self._workspace_id, sessions=sessions, after=position,
                    upto=newest,
                ):  # fmt: skip
                    told = signal_frame(sequence, name, data)
                    signals.setdefault(sequence, []).append((session_id, told))
            for row in rows:
                self._tell(row, signals.get(row.sequence, ()))
            self._position = newest
        return newest >= position + PAGE_COUNT

    def _names(self, kind: str) -> list[str]:
        return [topic.name for topic in self._subscribers if topic.kind == kind]

    def _tell(self, row: FeedRow, signals: "list[tuple[str, bytes]] | tuple[()]") -> None:
        sequence, event_type, task_id = row.sequence, row.event_type, row.task_id
        if row.timeline is not None:
            frame = task_frame(sequence, event_type, row.timeline)
            for name in row.watched:
                last = event_type == "task.deleted" and task_id == name
                self._push(Topic("task", name), Told(sequence, frame, last), row)
        if row.logged is not None:
            frame = workspace_frame(sequence, event_type, row.logged)
            self._push(Topic("workspace", ""), Told(sequence, frame), row)
        for session_id, frame in signals:
            self._push(Topic("session", session_id), Told(sequence, frame), row)

    def _push(self, topic: Topic, told: Told, row: FeedRow) -> None:
        for subscriber in self._subscribers.get(topic, ()):
            wanted = subscriber.fits is None or subscriber.fits(row.event_type, row.task_id)
            if wanted and told.sequence > subscriber.joined_at:
                subscriber.push(told)


def task_frame(sequence: int, event_type: str, timeline: str) -> bytes:
    """An event as a frame of a task's stream."""
    data = f'{{"sequence":{sequence},"type":"{event_type}","timeline":{timeline}}}'
    return f"id: {sequence}\nevent: {event_type}\ndata: {data}\n\n".encode()


def workspace_frame(sequence: int, event_type: str, event: str) -> bytes:
    """An event as a frame of a workspace's stream."""
    data = f'{{"sequence":{sequence},"type":"{event_type}","event":{event}}}'
    return f"id: {sequence}\nevent: {event_type}\ndata: {data}\n\n".encode()


def signal_frame(sequence: int, name: str, data: str) -> bytes:
    """What an event tells a session, as a frame of its stream."""
    return f"id: {sequence}\nevent: {name}\ndata: {data}\n\n".encode()


async def pause(seconds: float) -> None:
    """Lets time pass without a wake-up."""
    over = asyncio.get_running_loop().create_future()
    timer = asyncio.get_running_loop().call_later(seconds, _end, over)
    try:
        await over
    finally:
        timer.cancel()


def _end(over: asyncio.Future[None]) -> None:
    # The timer may be due in the turn of the loop in which the waiter was cancelled.
    if not over.done():
        over.set_result(None)
