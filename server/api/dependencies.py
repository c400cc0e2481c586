"""Dependencies: which task waits for which."""

from server import limits
from server.api.context import Context, TaskId
from server.api.holding import guard
from server.api.paging import pages
from server.api.tasks import changed_task
from server.contract.base import Encoded
from server.contract.dependencies import (
    DependencyAddRequest,
    DependencyListQuery,
    DependencyListResponse,
)
from server.contract.tasks import TaskDetailResponse
from server.errors import Problem
from server.store import dependencies, tasks


async def list_dependencies(
    ctx: Context, task_id: TaskId, query: DependencyListQuery
) -> Encoded[DependencyListResponse]:
    """Lists what a task waits for, with the results if asked."""
    if not await tasks.has_task(ctx.services.db, ctx.workspace_id, task_id):
        raise Problem("task_not_found", id=task_id)
    after = ctx.after(query) or [None, None]
    # One more than wanted tells whether there is a further page, also when bytes end this one.
    rows = await dependencies.list_dependencies(
        ctx.services.db,
        workspace_id=ctx.workspace_id,
        task_id=task_id,
        include_result=query.include_result,
        status=query.status,
        after_at=after[0],
        after_id=after[1],
        limit=query.limit,
        page_bytes=limits.LONG_PAGE_LIMIT_BYTES,
    )
    more = bool(rows) and rows[-1][-1]
    return pages(ctx, query, "dependencies", [row[:-1] for row in rows], more=more)


async def add_dependency(
    ctx: Context, task_id: TaskId, body: DependencyAddRequest
) -> Encoded[TaskDetailResponse]:
    """Makes a task wait for another."""
    changed = await dependencies.add_dependency(
        ctx.services.db,
        workspace_id=ctx.workspace_id,
        cause=ctx.cause,
        role=ctx.caller.role,
        task_id=task_id,
        depends_on=body.depends_on_task_id,
        guard=guard(ctx),
    )
    return changed_task(ctx, changed)


async def remove_dependency(
    ctx: Context, task_id: TaskId, depends_on_id: TaskId
) -> Encoded[TaskDetailResponse]:
    """Lets a task wait no longer for another."""
    changed = await dependencies.remove_dependency(
        ctx.services.db,
        workspace_id=ctx.workspace_id,
        cause=ctx.cause,
        role=ctx.caller.role,
        task_id=task_id,
        depends_on=depends_on_id,
    )
    return changed_task(ctx, changed)
