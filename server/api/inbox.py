"""The inbox of the caller, and what the caller did to a task in it."""

from typing import Final, get_args

import msgspec

from server.api.context import Context, TaskId
from server.contract.base import Encoded
from server.contract.inbox import (
    InboxLane,
    InboxQuery,
    InboxResponse,
    TriageRequest,
    TriageResponse,
)
from server.errors import Problem
from server.store import inbox
from server.store.inbox import Lane

LANES: Final[tuple[str, ...]] = get_args(InboxLane)
ARCHIVED: Final = "archived"


async def get_inbox(ctx: Context, query: InboxQuery) -> Encoded[InboxResponse]:
    """Shows what needs the caller, unread first."""
    shown = [query.lane] if query.lane else [*LANES]
    found = await inbox.read_inbox(
        ctx.services.db, _call(ctx, query), [*dict.fromkeys([*shown, ARCHIVED])], ctx.workspace_id
    )
    lanes = {lane.name: lane for lane in found}
    archived_total = lanes[ARCHIVED].total
    if query.unread:
        # What is archived is read.
        lanes[ARCHIVED] = lanes[ARCHIVED]._replace(total=0)
    groups = [_group(ctx, query, lanes[name]) for name in shown]
    told = {
        "groups": groups,
        "total": sum(lanes[name].total for name in shown),
        "unread_total": sum(lanes[name].unread_total for name in shown),
        "archived_total": archived_total,
    }
    return Encoded(msgspec.json.encode({"inbox": told}))


def _call(ctx: Context, query: InboxQuery) -> str:
    if query.cursor and not query.lane:
        raise Problem("invalid_query", "A cursor is of one lane.", parameter="cursor")
    after = ctx.after(query) or [None, None, None, None]
    caller = ctx.caller
    call = {
        "workspace_id": ctx.workspace_id, "actor_kind": caller.actor_kind,
        "actor_ref": caller.actor_ref, "scope": query.scope, "owner_kind": query.owner_kind,
        "owner_ref": query.owner_ref, "query": query.query, "unread": query.unread,
        "count": query.reach,
        **dict(zip(("after_read", "after_at", "after_priority", "after_id"), after, strict=True)),
    }  # fmt: skip
    return msgspec.json.encode(call).decode()


def _group(ctx: Context, query: InboxQuery, lane: Lane) -> dict[str, object]:
    more = query.lane and lane.found > query.limit
    return {
        "lane": lane.name,
        "count": lane.total,
        "unread_count": lane.unread_total,
        "items": msgspec.Raw(lane.items.encode()),
        "next_cursor": ctx.cursor(query, *lane.last) if more and lane.last else None,
    }


async def triage_read(
    ctx: Context, task_id: TaskId, body: TriageRequest
) -> Encoded[TriageResponse]:
    """Marks a task as read by the caller, until something happens to it."""
    return await _triage(ctx, task_id, "read")


async def triage_archive(
    ctx: Context, task_id: TaskId, body: TriageRequest
) -> Encoded[TriageResponse]:
    """Puts a task among the archived ones of the caller."""
    return await _triage(ctx, task_id, "archive")


async def triage_unarchive(
    ctx: Context, task_id: TaskId, body: TriageRequest
) -> Encoded[TriageResponse]:
    """Takes a task back from the archived ones of the caller."""
    return await _triage(ctx, task_id, "unarchive")


async def triage_dismiss(
    ctx: Context, task_id: TaskId, body: TriageRequest
) -> Encoded[TriageResponse]:
    """Hides a task from the caller's inbox, until something happens to it."""
    return await _triage(ctx, task_id, "dismiss")


async def _triage(ctx: Context, task_id: str, action: str) -> Encoded[TriageResponse]:
    state = await inbox.triage_task(
        ctx.services.db,
        workspace_id=ctx.workspace_id,
        actor_kind=ctx.caller.actor_kind,
        actor_ref=ctx.caller.actor_ref,
        task_id=task_id,
        action=action,
    )
    return Encoded(f'{{"triage":{state}}}'.encode())
