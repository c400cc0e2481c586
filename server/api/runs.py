"""Runs: the attempts at a task."""

from typing import Final

import msgspec

from server.api.context import Context, RunId, TaskId
from server.api.paging import BEHIND_ALL, pages
from server.contract.base import Encoded
from server.contract.runs import (
    CancelRequest,
    RunDetailResponse,
    RunListQuery,
    RunListResponse,
    RunResponse,
    RunSearchQuery,
)
from server.errors import Problem
from server.store import runs, tasks

LEASED: Final = frozenset(("claimed", "starting", "running"))


async def list_runs(ctx: Context, task_id: TaskId, query: RunListQuery) -> Encoded[RunListResponse]:
    """Lists the runs of a task, the last queued first."""
    if not await tasks.has_task(ctx.services.db, ctx.workspace_id, task_id):
        raise Problem("task_not_found", id=task_id)
    after_at, after_id = ctx.after(query) or ("infinity", "")
    rows = await runs.list_runs(
        ctx.services.db,
        workspace_id=ctx.workspace_id,
        task_id=task_id,
        status=query.status,
        session_id=query.session_id,
        after_at=after_at,
        after_id=after_id,
        limit=query.reach,
    )
    return pages(ctx, query, "runs", rows)


async def search_runs(ctx: Context, query: RunSearchQuery) -> Encoded[RunListResponse]:
    """Lists the runs of the workspace, the last made first."""
    [after] = ctx.after(query) or [BEHIND_ALL]
    filters = msgspec.structs.asdict(query)
    del filters["cursor"]
    filters["limit"] = query.reach
    held = query.stuck is True or LEASED.issuperset(query.status or ("queued",))
    rows = await runs.search_runs(
        ctx.services.db, held, workspace_id=ctx.workspace_id, after=after, **filters
    )
    return pages(ctx, query, "runs", rows)


async def get_run(ctx: Context, run_id: RunId) -> Encoded[RunDetailResponse]:
    """Shows a run with its task, its session and its totals."""
    ttl = ctx.services.config.session_ttl_seconds
    found = await runs.get_run(ctx.services.db, ctx.workspace_id, run_id, ttl)
    if found is None:
        raise Problem("run_not_found", id=run_id)
    return Encoded(found.encode())


async def cancel_run(ctx: Context, run_id: RunId, body: CancelRequest) -> Encoded[RunResponse]:
    """Ends one run; its task stays, without a run."""
    told, offers = await runs.cancel_run(
        ctx.services.db,
        workspace_id=ctx.workspace_id,
        cause=ctx.cause,
        run_id=run_id,
        reason=body.reason,
        metadata=body.metadata.text if body.metadata else None,
    )
    ctx.services.hub.changed(ctx.workspace_id, offers)
    return Encoded(told.encode())
