"""The log: what happened, in order, and as it happens."""

from typing import Final

from server import limits
from server.api.context import Context, TaskId
from server.api.paging import pages
from server.contract.base import Encoded
from server.contract.events import (
    EventListQuery,
    EventListResponse,
    TimelineQuery,
    TimelineResponse,
)
from server.errors import Problem
from server.store import events, streams, tasks

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
        limit=query.reach,
    )
    await _newest(ctx, after[0] if after else None)
    return pages(ctx, query, "timeline", rows)


async def _newest(ctx: Context, reached: int | None) -> int:
    """The newest sequence; refuses a cursor if events behind it may be gone.

    To be asked after the page was read: what is stored now was stored then.
    """
    bounds = await streams.stream_bounds(ctx.services.db, ctx.workspace_id)
    if reached is not None and reached < bounds.oldest - 1:
        raise Problem("invalid_cursor", "Events behind this cursor are no longer kept.")
    return bounds.newest


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
