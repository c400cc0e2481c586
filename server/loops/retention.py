"""Deletes what workspaces keep no longer: events, attempts to deliver, and trees that ended."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import msgspec

from server import limits
from server.db.pool import Asked, Database, Fault
from server.errors import Problem
from server.loops.every import in_pieces, in_turn
from server.store import retention
from server.telemetry import LoopFailed, occur

CAUSE: Final = msgspec.json.encode(
    {
        "actor_kind": "daemon",
        "actor_ref": "retention",
        "origin_kind": "daemon",
        "origin_ref": "daemon.retention",
    }
).decode()
Forget = Callable[[Asked, str, int], Awaitable[int]]


async def run_once(db: Database, begin: Asked, changed: Callable[[str, int], None]) -> int:
    """One bounded pass through all workspaces; how many rows went."""
    deleted = 0
    for workspace_id in await retention.with_task_retention(begin):
        deleted += await _tasks(db, begin, workspace_id, changed)
    events = partial(_batches, begin, retention.forget_events)
    deleted += await in_turn("retention", await retention.with_old_events(begin), events)
    tries = partial(_batches, begin, retention.forget_deliveries)
    deleted += await in_turn("retention", await retention.with_old_deliveries(begin), tries)
    return deleted


async def _batches(db: Asked, forget: Forget, workspace_id: str) -> int:
    size = limits.RETENTION_BATCH_COUNT
    forget_some = partial(forget, db, workspace_id, size)
    return await in_pieces(forget_some, size, limits.RETENTION_BATCHES_COUNT)


async def _tasks(
    db: Database, begin: Asked, workspace_id: str, changed: Callable[[str, int], None]
) -> int:
    deleted = 0
    for _ in range(limits.RETENTION_LOOKS_COUNT):
        deleted += await _some_tasks(db, begin, workspace_id)
    if deleted:
        changed(workspace_id, 0)
    return deleted


async def _some_tasks(db: Database, begin: Asked, workspace_id: str) -> int:
    deleted = 0
    found = await retention.find_old_tasks(begin, workspace_id, limits.RETENTION_TASKS_COUNT)
    for task_id in found:
        try:
            deleted += await retention.forget_task(db, workspace_id, CAUSE, task_id)
        except Problem:
            # In use again, or somebody holds it: found again later.
            continue
        except Fault as error:
            occur(LoopFailed, loop="retention", error=error, task_id=task_id)
    return deleted
