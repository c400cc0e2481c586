"""Pauses."""

from typing import Any

from server.db.pool import Database
from server.store.base import Changed

PAUSE_TASK = """
select body, version, offers from pause_task(
  %(workspace_id)s, %(cause)s::jsonb, %(task_id)s, %(reason)s, %(metadata)s::jsonb)
"""


async def pause_task(db: Database, **call: Any) -> Changed:
    """Pauses a task and all below it."""
    [row] = await db.many(PAUSE_TASK, **call)
    return Changed(*row)


RESUME_TASK = """
select body, version, offers from resume_task(
  %(workspace_id)s, %(cause)s::jsonb, %(task_id)s, %(reason)s, %(metadata)s::jsonb)
"""


async def resume_task(db: Database, **call: Any) -> Changed:
    """Ends the pause of a task."""
    [row] = await db.many(RESUME_TASK, **call)
    return Changed(*row)
