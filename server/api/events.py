"""The log: what happened, in order, and as it happens."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

import msgspec

from server import limits
from server.api import headers as read
from server.api.context import Context, EventStream, TaskId
from server.api.hub import Hub
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
PAGE_COUNT: Final = 200


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
    return pages(ctx, query, "timeline", rows)


async def list_events(ctx: Context, query: EventListQuery) -> Encoded[EventListResponse]:
    """Lists the workspace's log."""
    after = ctx.after(query)
    latest = await events.latest_sequence(ctx.services.db, ctx.workspace_id)
    rows = await events.list_events(
        ctx.services.db,
        workspace_id=ctx.workspace_id,
        after_sequence=query.after_sequence,
        task_id=query.task_id,
        run_id=query.run_id,
        event_type=query.event_type,
        actor_kind=query.actor_kind,
        actor_ref=query.actor_ref,
        since=query.since,
        until=query.until,
        cursor=after[0] if after else None,
        descending=query.order == "desc",
        limit=query.limit,
        page_bytes=limits.LONG_PAGE_LIMIT_BYTES,
    )
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
    hub = ctx.services.hub
    if hub.subscribers() >= ctx.services.config.sse_max_connections:
        raise Problem("database_unavailable", "Too many streams.", retry_after_seconds=5)
    limit = await ctx.services.settings.of(ctx.workspace_id, "max_streams")
    if hub.subscribers(ctx.workspace_id) >= limit:
        raise Problem("rate_limited", limit=limit, retry_after_seconds=5)
    bounds = await events.stream_bounds(ctx.services.db, ctx.workspace_id, task_id)
    if not bounds.known:
        raise Problem("task_not_found", id=task_id)
    return EventStream(_follow(ctx, hub, task_id, after))


async def _follow(
    ctx: Context, hub: Hub, task_id: str, after: int | None
) -> AsyncGenerator[bytes, None]:
    """The frames of a task's stream: what is stored, `ready`, then what comes."""
    db, workspace_id = ctx.services.db, ctx.workspace_id
    changed = hub.subscribe(workspace_id)
    occur(StreamOpened, stream="task")
    position, ready = after or 0, False
    try:
        while not ctx.services.draining:
            changed.clear()
            bounds = await events.stream_bounds(db, workspace_id, task_id)
            if after is not None and not ready and not _kept(after, bounds):
                occur(StreamResync, reason="retention")
                yield _resync("retention", bounds)
                position = bounds.newest
            while position < bounds.newest:
                rows = await events.read_stream(
                    db, workspace_id=workspace_id, task_id=task_id, after=position,
                    upto=bounds.newest, limit=PAGE_COUNT,
                )  # fmt: skip
                for sequence, event_type, about, told in rows:
                    yield _frame(sequence, event_type, told)
                    if event_type == "task.deleted" and about == task_id:
                        return
                position = rows[-1][0] if len(rows) == PAGE_COUNT else bounds.newest
            if not ready:
                ready = True
                yield b'event: ready\ndata: {"sequence":%d}\n\n' % position
            if not await _changed(changed):
                yield b": \n\n"
                if not await ctx.services.identity.still_valid(ctx.scope, ctx.headers):
                    return
    finally:
        hub.unsubscribe(workspace_id, changed)
        occur(StreamOpened, count=-1, stream="task")


async def _changed(event: asyncio.Event) -> bool:
    """Whether the log may have grown before a comment is due."""
    try:
        await asyncio.wait_for(event.wait(), COMMENT_EVERY_SECONDS)
    except TimeoutError:
        return False
    return True


def _kept(after: int, bounds: events.Bounds) -> bool:
    """Whether every event behind this position is still stored."""
    return bounds.oldest - 1 <= after <= bounds.newest


def _frame(sequence: int, event_type: str, timeline: str) -> bytes:
    data = f'{{"sequence":{sequence},"type":"{event_type}","timeline":{timeline}}}'
    return f"id: {sequence}\nevent: {event_type}\ndata: {data}\n\n".encode()


def _resync(reason: str, bounds: events.Bounds) -> bytes:
    told = msgspec.json.encode(
        {"reason": reason, "sequence": bounds.newest, "oldest_sequence": bounds.oldest}
    )
    return b"event: resync\ndata: %s\n\n" % told
