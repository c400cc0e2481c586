"""Rejects what nobody approved in time, or reminds of it, as each task asks."""

from collections.abc import Callable

from server.db.pool import Asked, Busy, Fault
from server.store import approvals
from server.telemetry import LoopFailed, occur


async def run_once(db: Asked, limit: int, changed: Callable[[str, int], None]) -> int:
    """Deals with the late approvals of one pass; how many."""
    done = 0
    for workspace_id, tasks in await approvals.late_approvals(db, limit):
        try:
            done += await _expire(db, workspace_id, tasks, changed)
        except Busy:
            # Held up by a transaction of its own: the next pass comes soon.
            continue
        except Fault:
            # One bad task must not hold up the others.
            for task_id in tasks:
                done += await _expire_alone(db, workspace_id, task_id, changed)
    return done


async def _expire(
    db: Asked, workspace_id: str, tasks: list[str], changed: Callable[[str, int], None]
) -> int:
    late = await approvals.expire_approvals(db, workspace_id, tasks)
    if sum(late):
        changed(workspace_id, 0)
    return sum(late)


async def _expire_alone(
    db: Asked, workspace_id: str, task_id: str, changed: Callable[[str, int], None]
) -> int:
    try:
        return await _expire(db, workspace_id, [task_id], changed)
    except Fault as error:
        occur(LoopFailed, loop="approvals", error=error, task_id=task_id)
        await approvals.set_approval_aside(db, workspace_id, task_id)
        return 0
