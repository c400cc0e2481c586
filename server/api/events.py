"""The log: what happened, in order, and as it happens."""

import time
from collections.abc import AsyncGenerator
from typing import Final

import msgspec

from server import limits
from server.api import headers as read
from server.api.context import Context, EventStream, TaskId
from server.api.feed import Subscriber, frame
from server.api.paging import pages
from server.contract.base import Encoded
from server.contract.events import (
    EventListQuery,
    EventListResponse,
    StreamQuery,
    TimelineQuery,
    TimelineResponse,
)
from server.errors import Problem
from server.store import events, tasks
from server.telemetry import StreamOpened, StreamResync, occur

COMMENT_EVERY_SECONDS: Final = 15.0
# As often as a key is looked up for requests: a revoked one ends its streams as soon.
KEY_CHECKED_EVERY_SECONDS: Final = limits.KEY_CACHE_SECONDS
PAGE_COUNT: Final = 200
BEYOND: Final = 2**63 - 1


async def list_timeline(
    ctx: Context, task_id: TaskId, query: TimelineQuery
) -> Encoded[TimelineResponse]:
    """Lists a task's own events in order."""
    if not await tasks.has_task(ctx.services.db, ctx.workspace_id, task_id):
        raise Problem("task_not_found", id=task_id)
    after = ctx.after(query)
    rows = await events.list_timeline(
        ctx.services.db,
        workspace_id=ctx.workspace_id,
        task_id=task_id,
        after=max(after[0] if after else 0, query.after_sequence),
        limit=query.limit,
    )
    await _newest(ctx, after[0] if after else None)
    return pages(ctx, query, "timeline", rows)


async def _newest(ctx: Context, reached: int | None) -> int:
    """The newest sequence; refuses a cursor if events behind it may be gone.

    To be asked after the page was read: what is stored now was stored then.
    """
    oldest, newest = await events.log_bounds(ctx.services.db, ctx.workspace_id)
    if reached is not None and reached < oldest - 1:
        raise Problem("invalid_cursor", "Events behind this cursor are no longer kept.")
    return newest


async def list_events(ctx: Context, query: EventListQuery) -> Encoded[EventListResponse]:
    """Lists the workspace's log."""
    after, descending = ctx.after(query), query.order == "desc"
    reached: int = after[0] if after else 0
    rows = await events.list_events(
        ctx.services.db,
        workspace_id=ctx.workspace_id,
        after=max(query.after_sequence or 0, 0 if descending else reached),
        before=reached if descending and after else BEYOND,
        task_id=query.task_id,
        run_id=query.run_id,
        event_type=query.event_type,
        actor_kind=query.actor_kind,
        actor_ref=query.actor_ref,
        since=query.since,
        until=query.until,
        descending=descending,
        limit=query.limit,
        page_bytes=limits.LONG_PAGE_LIMIT_BYTES,
    )
    latest = await _newest(ctx, None if descending or not after else reached)
    more = bool(rows) and rows[-1][-1]
    return pages(
        ctx, query, "events", [row[:-1] for row in rows],
        extra=f'"latest_sequence":{latest},', more=more,
    )  # fmt: skip


async def stream_task(ctx: Context, task_id: TaskId, query: StreamQuery) -> EventStream:
    """Follows the events of a task and of all below it."""
    wanted = read.last_event_id(ctx.headers)
    after = wanted if wanted is not None else query.after_sequence
    if ctx.services.draining:
        raise Problem("shutting_down", retry_after_seconds=1)
    feed = ctx.services.hub.feed(ctx.workspace_id)
    if ctx.services.hub.streams() >= ctx.services.config.sse_max_connections:
        raise Problem("database_unavailable", "Too many streams.", retry_after_seconds=5)
    limit = await ctx.services.settings.of(ctx.workspace_id, "max_streams")
    if len(feed) >= limit:
        raise Problem("rate_limited", limit=limit, retry_after_seconds=5)
    bounds = await events.stream_bounds(ctx.services.db, ctx.workspace_id, task_id)
    if not bounds.known:
        raise Problem("task_not_found", id=task_id)
    return EventStream(_follow(ctx, task_id, after, bounds))


async def _follow(
    ctx: Context, task_id: str, after: int | None, bounds: events.Bounds
) -> AsyncGenerator[bytes, None]:
    """The frames of a task's stream: what is stored, `ready`, then what comes."""
    feed = ctx.services.hub.feed(ctx.workspace_id)
    subscriber = Subscriber(task_id, ctx.services.config.sse_buffer)
    occur(StreamOpened, stream="task")
    try:
        await feed.join(subscriber)
        position = max(0, bounds.oldest - 1) if after is None else after
        if after is not None and not bounds.oldest - 1 <= after <= bounds.newest:
            occur(StreamResync, reason="retention")
            yield _resync("retention", bounds)
            position = subscriber.joined_at
        while position < subscriber.joined_at:
            async for sequence, told, last in _stored(ctx, task_id, position, subscriber.joined_at):
                yield told
                position = sequence
                if last:
                    return
            position = subscriber.joined_at
            if subscriber.overflowed:
                # More came meanwhile than may wait: that is in the log as well.
                feed.leave(subscriber)
                subscriber = Subscriber(task_id, ctx.services.config.sse_buffer)
                await feed.join(subscriber)
        yield b'event: ready\ndata: {"sequence":%d}\n\n' % position
        async for told in _live(ctx, subscriber):
            yield told
    finally:
        feed.leave(subscriber)
        occur(StreamOpened, count=-1, stream="task")


async def _stored(
    ctx: Context, task_id: str, after: int, upto: int
) -> AsyncGenerator[tuple[int, bytes, bool], None]:
    """The frames of what is stored up to there: sequence, frame, whether the stream ends."""
    while after < upto:
        rows = await events.read_stream(
            ctx.services.db, workspace_id=ctx.workspace_id, task_id=task_id, after=after,
            upto=upto, limit=PAGE_COUNT,
        )  # fmt: skip
        # Asked after the page was read: what is stored now was stored then.
        bounds = await _bounds(ctx, task_id)
        if after < bounds.oldest - 1:
            occur(StreamResync, reason="retention")
            yield upto, _resync("retention", bounds), False
            return
        for sequence, event_type, about, timeline in rows:
            deleted = event_type == "task.deleted" and about == task_id
            yield sequence, frame(sequence, event_type, timeline), deleted
        after = rows[-1][0] if len(rows) == PAGE_COUNT else upto


async def _live(ctx: Context, subscriber: Subscriber) -> AsyncGenerator[bytes, None]:
    """The frames that come, and a comment where none comes for long."""
    checked = spoke = time.monotonic()
    while True:
        taken = await subscriber.take(KEY_CHECKED_EVERY_SECONDS)
        now = time.monotonic()
        if taken is not None:
            yield taken[1]
            if taken[2]:
                return
        elif subscriber.overflowed:
            occur(StreamResync, reason=subscriber.reason)
            yield _resync(subscriber.reason, await _bounds(ctx, subscriber.task_id))
            return
        elif subscriber.closed:
            return
        elif now - spoke >= COMMENT_EVERY_SECONDS:
            spoke = now
            yield b": \n\n"
        if now - checked >= KEY_CHECKED_EVERY_SECONDS:
            checked = now
            if not await ctx.services.identity.still_valid(ctx.scope, ctx.headers):
                return


async def _bounds(ctx: Context, task_id: str) -> events.Bounds:
    return await events.stream_bounds(ctx.services.db, ctx.workspace_id, task_id)


def _resync(reason: str, bounds: events.Bounds) -> bytes:
    told = msgspec.json.encode(
        {"reason": reason, "sequence": bounds.newest, "oldest_sequence": bounds.oldest}
    )
    return b"event: resync\ndata: %s\n\n" % told
