"""A task or run under inspection."""

from server.db.pool import Database

READ_INSPECTION = """
select read_inspection(%(workspace_id)s, %(task_id)s, %(run_id)s, %(session_ttl)s)
"""


async def read_inspection(
    db: Database, workspace_id: str, task_id: str | None, run_id: str | None, session_ttl: float
) -> str | None:
    """All that is known of a task, or of a run; None if there is no such."""
    [row] = await db.many(
        READ_INSPECTION, workspace_id=workspace_id, task_id=task_id, run_id=run_id,
        session_ttl=session_ttl,
    )  # fmt: skip
    told: str | None = row[0]
    return told
