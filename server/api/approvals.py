"""Approvals: a human gate before work."""

from server.api.context import Context, TaskId
from server.api.tasks import changed_task, task_and_run
from server.contract.approvals import RejectRequest
from server.contract.base import Encoded
from server.contract.runs import StartRequest
from server.contract.tasks import TaskResponse, TaskRunResponse
from server.store import approvals


async def approve_task(
    ctx: Context, task_id: TaskId, body: StartRequest
) -> Encoded[TaskRunResponse]:
    """Approves a task, and queues a run if none is open."""
    made = await approvals.approve_task(
        ctx.services.db,
        workspace_id=ctx.workspace_id,
        cause=ctx.cause,
        task_id=task_id,
        channel=body.network_channel,
        metadata=body.metadata.text if body.metadata else None,
        key=ctx.idempotency_key,
        request_hash=ctx.key_hash,
    )
    return task_and_run(ctx, made)


async def reject_task(ctx: Context, task_id: TaskId, body: RejectRequest) -> Encoded[TaskResponse]:
    """Does not approve a task: it stays blocked."""
    changed = await approvals.reject_task(
        ctx.services.db,
        workspace_id=ctx.workspace_id,
        cause=ctx.cause,
        task_id=task_id,
        reason=body.reason,
    )
    return changed_task(ctx, changed)
