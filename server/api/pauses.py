"""Pauses: nobody begins work on a task, nor on any below it."""

from server.api.context import Context, TaskId
from server.api.tasks import changed_task
from server.contract.base import Encoded
from server.contract.pauses import PauseRequest, ResumeRequest
from server.contract.tasks import TaskResponse
from server.store import pauses


async def pause_task(ctx: Context, task_id: TaskId, body: PauseRequest) -> Encoded[TaskResponse]:
    """Pauses a task and all below it: their runs are not claimed."""
    changed = await pauses.pause_task(
        ctx.services.db,
        workspace_id=ctx.workspace_id,
        cause=ctx.cause,
        task_id=task_id,
        reason=body.reason,
        metadata=body.metadata.text if body.metadata else None,
    )
    return changed_task(ctx, changed)


async def resume_task(ctx: Context, task_id: TaskId, body: ResumeRequest) -> Encoded[TaskResponse]:
    """Ends the pause of a task; that of a task above it stays."""
    changed = await pauses.resume_task(
        ctx.services.db,
        workspace_id=ctx.workspace_id,
        cause=ctx.cause,
        task_id=task_id,
        reason=body.reason,
        metadata=body.metadata.text if body.metadata else None,
    )
    return changed_task(ctx, changed)
