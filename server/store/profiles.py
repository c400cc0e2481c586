"""Execution profiles: what tasks demand of their workers."""

from typing import Any

from server.db.pool import Database

GET_PROFILE = """
select (select p.body::text from profile_wire p
         where p.workspace_id = t.workspace_id and p.task_id = t.task_id)
  from task t where t.workspace_id = %(workspace_id)s and t.task_id = %(task_id)s
"""


async def get_profile(db: Database, workspace_id: str, task_id: str) -> tuple[str | None] | None:
    """The stored profile, which may be none; None for an unknown task."""
    row = await db.one(GET_PROFILE, workspace_id=workspace_id, task_id=task_id)
    return (row[0],) if row else None


PUT_PROFILE = """
select body, offers from put_profile(
  %(workspace_id)s, %(cause)s::jsonb, %(task_id)s, %(profile)s::jsonb)
"""


async def put_profile(db: Database, **call: Any) -> tuple[str, int]:
    """Replaces a profile; answers it, and how many runs were put into the queue."""
    [row] = await db.many(PUT_PROFILE, **call)
    return row[0], row[1]


DELETE_PROFILE = "select delete_profile(%(workspace_id)s, %(cause)s::jsonb, %(task_id)s)"


async def delete_profile(db: Database, workspace_id: str, cause: str, task_id: str) -> int:
    """Takes a stored profile away; how many runs it put into the queue."""
    [row] = await db.many(DELETE_PROFILE, workspace_id=workspace_id, cause=cause, task_id=task_id)
    offers: int = row[0]
    return offers
