"""Drafts: tasks that nobody works on before they are published."""

from server.api.context import Context, TaskId
from server.api.tasks import task_and_run
from server.contract.base import Encoded
from server.contract.drafts import PublishRequest
from server.contract.tasks import TaskRunResponse
from server.store import drafts


async def publish_task(
    ctx: Context, task_id: TaskId, body: PublishRequest
) -> Encoded[TaskRunResponse]:
    """Makes a task of a draft, with a queued run; on demand of all drafts below it too."""
    made = await drafts.publish_task(
        ctx.services.db,
        workspace_id=ctx.workspace_id,
        cause=ctx.cause,
        role=ctx.caller.role,
        task_id=task_id,
        subtree=body.subtree,
        channel=body.network_channel,
        metadata=body.metadata.text if body.metadata else None,
        key=ctx.idempotency_key,
        request_hash=ctx.key_hash,
    )
    return task_and_run(ctx, made)
