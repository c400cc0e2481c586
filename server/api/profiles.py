"""Execution profiles: what tasks demand of their workers."""

from server.api.context import Context, TaskId
from server.contract.base import Encoded, to_json
from server.contract.profiles import ExecutionProfileInput, ProfilePutRequest, ProfileResponse
from server.errors import Problem, unfit
from server.store import profiles


async def get_profile(ctx: Context, task_id: TaskId) -> Encoded[ProfileResponse]:
    """Shows what a task demands; without a profile of its own, the defaults."""
    found = await profiles.get_profile(ctx.services.db, ctx.workspace_id, task_id)
    if found is None:
        raise Problem("task_not_found", id=task_id)
    told = found[0] or to_json(ExecutionProfileInput(task_id=task_id))
    return Encoded(f'{{"profile":{told}}}'.encode())


async def put_profile(
    ctx: Context, task_id: TaskId, body: ProfilePutRequest
) -> Encoded[ProfileResponse]:
    """Replaces what a task demands, as a whole."""
    if body.task_id not in (None, task_id):
        raise unfit("task_id", "match", "is not the task of the path")
    told, offers = await profiles.put_profile(
        ctx.services.db, workspace_id=ctx.workspace_id, cause=ctx.cause, task_id=task_id,
        profile=to_json(body),
    )  # fmt: skip
    ctx.services.hub.changed(ctx.workspace_id, offers)
    return Encoded(told.encode())


async def delete_profile(ctx: Context, task_id: TaskId) -> None:
    """Takes a task's own profile away; its defaults hold again."""
    offers = await profiles.delete_profile(ctx.services.db, ctx.workspace_id, ctx.cause, task_id)
    ctx.services.hub.changed(ctx.workspace_id, offers)
