"""Streams: the log as it happens, and what a session must know at once."""

import time
from collections.abc import AsyncGenerator
from typing import Final, Protocol

import msgspec

from server.api import headers as read
from server.api.context import Context, EventStream, TaskId
from server.api.feed import Subscriber, Told, Topic, signal_frame, task_frame, workspace_frame
from server.api.rates import limited
from server.contract.streams import StreamQuery, WorkspaceStreamQuery
from server.errors import Problem
from server.store import streams, tasks
from server.telemetry import StreamOpened, StreamResync, occur

COMMENT_EVERY_SECONDS: Final = 15.0
# A revoked key ends its streams within five seconds.
KEY_CHECKED_EVERY_SECONDS: Final = 4.0
PAGE_COUNT: Final = 200
WINDOW_COUNT: Final = 10_000
WHOLE_LOG_COUNT: Final = 2**62


class Source(Protocol):
    """What a stream follows."""

    topic: Topic
    # Where it begins if the client does not say: with the first event, or with the next.
    from_now: bool
    # So much of the log is looked through in one statement, however little of it fits.
    window_count: int

    async def read(self, ctx: Context, after: int, upto: int) -> list[Told]:
        """The next frames of what is stored; fewer than PAGE_COUNT: there are no more."""

    async def ready(self, ctx: Context, position: int) -> bytes:
        """The data of `ready`."""

    def fits(self, event_type: str, task_id: str | None) -> bool:
        """Whether an event is wanted."""


class TaskSource:
    """A task and all below it."""

    from_now = False
    window_count = WHOLE_LOG_COUNT

    def __init__(self, task_id: str) -> None:
        self.topic = Topic("task", task_id)

    async def read(self, ctx: Context, after: int, upto: int) -> list[Told]:
        """The next events of the task and of all below it."""
        task_id = self.topic.name
        rows = await streams.read_task(
            ctx.services.db, workspace_id=ctx.workspace_id, task_id=task_id, after=after,
            upto=upto, limit=PAGE_COUNT,
        )  # fmt: skip
        return [
            Told(sequence, task_frame(sequence, event_type, timeline),
                 event_type == "task.deleted" and about == task_id)
            for sequence, event_type, about, timeline in rows
        ]  # fmt: skip

    async def ready(self, ctx: Context, position: int) -> bytes:
        """Where the stream is."""
        return b'{"sequence":%d}' % position

    def fits(self, event_type: str, task_id: str | None) -> bool:
        """Everything about the task is wanted."""
        return True


class WorkspaceSource:
    """The whole log, or what of it fits the query."""

    topic = Topic("workspace", "")
    from_now = True
    window_count = WINDOW_COUNT

    def __init__(self, query: WorkspaceStreamQuery) -> None:
        self._types = query.event_type
        self._task_id = query.task_id

    async def read(self, ctx: Context, after: int, upto: int) -> list[Told]:
        """The next events that fit."""
        rows = await streams.read_workspace(
            ctx.services.db, workspace_id=ctx.workspace_id, event_type=self._types,
            task_id=self._task_id, after=after, upto=upto, limit=PAGE_COUNT,
        )  # fmt: skip
        return [
            Told(sequence, workspace_frame(sequence, event_type, event))
            for sequence, event_type, event in rows
        ]

    async def ready(self, ctx: Context, position: int) -> bytes:
        """Where the stream is."""
        return b'{"sequence":%d}' % position

    def fits(self, event_type: str, task_id: str | None) -> bool:
        """Whether an event is of these types and of this task."""
        wanted = self._types is None or event_type in self._types
        return wanted and self._task_id in (None, task_id)


class SessionSource:
    """What happens to the leases of a session without its doing."""

    from_now = True
    window_count = WINDOW_COUNT

    def __init__(self, session_id: str) -> None:
        self.topic = Topic("session", session_id)

    async def read(self, ctx: Context, after: int, upto: int) -> list[Told]:
        """What the session was to be told; all of it, for that is little."""
        rows = await streams.read_signals(
            ctx.services.db, workspace_id=ctx.workspace_id, sessions=[self.topic.name],
            after=after, upto=upto,
        )  # fmt: skip
        return [
            Told(sequence, signal_frame(sequence, name, data)) for sequence, _, name, data in rows
        ]

    async def ready(self, ctx: Context, position: int) -> bytes:
        """What the session holds."""
        session_id = self.topic.name
        told = await streams.read_standing(ctx.services.db, ctx.workspace_id, session_id, position)
        return told.encode()

    def fits(self, event_type: str, task_id: str | None) -> bool:
        """Everything that the session is told is wanted."""
        return True


async def stream_task(ctx: Context, task_id: TaskId, query: StreamQuery) -> EventStream:
    """Follows the events of a task and of all below it."""
    if not await tasks.has_task(ctx.services.db, ctx.workspace_id, task_id):
        raise Problem("task_not_found", id=task_id)
    return await _open(ctx, TaskSource(task_id), query)


async def stream_workspace(ctx: Context, query: WorkspaceStreamQuery) -> EventStream:
    """Follows the log of the workspace."""
    return await _open(ctx, WorkspaceSource(query), query)


async def stream_session(ctx: Context, query: StreamQuery) -> EventStream:
    """Tells a session at once when a lease of it is ended, or its work is paused."""
    await ctx.services.identity.attend(ctx.caller)
    return await _open(ctx, SessionSource(ctx.caller.session_id or ""), query)


async def _open(ctx: Context, source: Source, query: StreamQuery) -> EventStream:
    wanted = read.last_event_id(ctx.headers)
    after = wanted if wanted is not None else query.after_sequence
    if ctx.services.draining:
        raise Problem("shutting_down", retry_after_seconds=1)
    limit = await ctx.services.settings.of(ctx.workspace_id, "max_streams")
    bounds = await streams.stream_bounds(ctx.services.db, ctx.workspace_id)
    if ctx.services.hub.streams() >= ctx.services.config.sse_max_connections:
        raise Problem("database_unavailable", "Too many streams.", retry_after_seconds=5)
    if len(ctx.services.hub.feed(ctx.workspace_id)) >= limit:
        raise limited("streams", limit, 5)
    frames = _follow(ctx, source, after, bounds)
    # Takes its place before anybody else is counted.
    await anext(frames)
    return EventStream(frames)


async def _follow(
    ctx: Context, source: Source, after: int | None, bounds: streams.Bounds
) -> AsyncGenerator[bytes, None]:
    """The frames of a stream: nothing, what is stored, `ready`, then what comes."""
    feed = ctx.services.hub.feed(ctx.workspace_id)
    subscriber = _subscriber(ctx, source)
    occur(StreamOpened, stream=source.topic.kind)
    feed.admit(subscriber)
    try:
        yield b""
        await feed.join(subscriber)
        begin = subscriber.joined_at if source.from_now else max(0, bounds.oldest - 1)
        position = begin if after is None else after
        if after is not None and not bounds.oldest - 1 <= after <= bounds.newest:
            occur(StreamResync, reason="retention")
            yield _resync("retention", bounds)
            position = subscriber.joined_at
        while position < subscriber.joined_at:
            async for told in _stored(ctx, source, position, subscriber.joined_at):
                yield told.frame
                if told.last:
                    return
            position = subscriber.joined_at
            if subscriber.overflowed:
                # More came meanwhile than may wait: that is in the log as well.
                feed.leave(subscriber)
                subscriber = _subscriber(ctx, source)
                await feed.join(subscriber)
        yield b"event: ready\ndata: %s\n\n" % await source.ready(ctx, position)
        async for frame in _live(ctx, subscriber):
            yield frame
    finally:
        feed.leave(subscriber)
        occur(StreamOpened, count=-1, stream=source.topic.kind)


def _subscriber(ctx: Context, source: Source) -> Subscriber:
    services = ctx.services
    return Subscriber(services.hub.turns, source.topic, services.config.sse_buffer, source.fits)


async def _stored(
    ctx: Context, source: Source, after: int, upto: int
) -> AsyncGenerator[Told, None]:
    """The frames of what is stored up to there."""
    while after < upto:
        window = min(upto, after + source.window_count)
        page = await source.read(ctx, after, window)
        # Asked after the page was read: what is stored now was stored then.
        bounds = await streams.stream_bounds(ctx.services.db, ctx.workspace_id)
        if after < bounds.oldest - 1:
            occur(StreamResync, reason="retention")
            yield Told(upto, _resync("retention", bounds))
            return
        for told in page:
            yield told
        after = page[-1].sequence if len(page) == PAGE_COUNT else window


async def _live(ctx: Context, subscriber: Subscriber) -> AsyncGenerator[bytes, None]:
    """The frames that come, and a comment where none comes for long."""
    checked = spoke = time.monotonic()
    while True:
        told = await subscriber.take(KEY_CHECKED_EVERY_SECONDS)
        now = time.monotonic()
        if told is not None:
            yield told.frame
            if told.last:
                return
        elif subscriber.overflowed:
            occur(StreamResync, reason=subscriber.reason)
            bounds = await streams.stream_bounds(ctx.services.db, ctx.workspace_id)
            yield _resync(subscriber.reason, bounds)
            return
        elif subscriber.closed:
            return
        elif now - spoke >= COMMENT_EVERY_SECONDS:
            spoke = now
            yield b": \n\n"
        if now - checked >= KEY_CHECKED_EVERY_SECONDS:
            checked = now
            if not await ctx.services.identity.still_valid(ctx.caller):
                return


def _resync(reason: str, bounds: streams.Bounds) -> bytes:
    told = msgspec.json.encode(
        {"reason": reason, "sequence": bounds.newest, "oldest_sequence": bounds.oldest}
    )
    return b"event: resync\ndata: %s\n\n" % told
