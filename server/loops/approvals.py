"""Rejects what nobody approved in time, or reminds of it, as each task asks."""

from collections.abc import Callable
from functools import partial

from server.db.pool import Asked, Fault
from server.loops.every import in_batches
from server.store import approvals
from server.telemetry import LoopFailed, occur


async def run_once(db: Asked, limit: int, changed: Callable[[str, int], None]) -> int:
    """Deals with the late approvals of one pass; how many."""

    async def expire(workspace_id: str, tasks: list[str]) -> int:
        late = await approvals.expire_approvals(db, workspace_id, tasks)
        if sum(late):
            changed(workspace_id, 0)
        return sum(late)

    async def set_aside(workspace_id: str, task_id: str, error: Fault) -> None:
        occur(LoopFailed, loop="approvals", error=error, task_id=task_id)
        await approvals.set_approval_aside(db, workspace_id, task_id)

    return await in_batches(partial(approvals.late_approvals, db, limit), expire, set_aside)
