"""What the workspaces keep no longer: events, attempts to deliver, and trees that ended."""

from server.db.pool import Asked, Database

WITH_OLD_EVENTS = """
select w.workspace_id from workspace w
 cross join lateral (select e.at from event e where e.workspace_id = w.workspace_id
                      order by e.sequence limit 1) o
 where o.at < _kept_since(w.settings, 'event_retention_days', 90)
"""


async def with_old_events(db: Asked) -> list[str]:
    """The workspaces whose log goes back further than they want."""
    return [row[0] for row in await db.many(WITH_OLD_EVENTS)]


FORGET_EVENTS = "select forget_events(%(workspace_id)s, %(limit)s)"


async def forget_events(db: Asked, workspace_id: str, limit: int) -> int:
    """Deletes the oldest events that have served their time; how many."""
    [row] = await db.many(FORGET_EVENTS, workspace_id=workspace_id, limit=limit)
    deleted: int = row[0]
    return deleted


WITH_OLD_DELIVERIES = """
select w.workspace_id from workspace w
 where exists (select from delivery d where d.workspace_id = w.workspace_id
                  and d.created_at < _kept_since(w.settings, 'delivery_retention_days', 30))
"""


async def with_old_deliveries(db: Asked) -> list[str]:
    """The workspaces with attempts older than they want."""
    return [row[0] for row in await db.many(WITH_OLD_DELIVERIES)]


FORGET_DELIVERIES = "select forget_deliveries(%(workspace_id)s, %(limit)s)"


async def forget_deliveries(db: Asked, workspace_id: str, limit: int) -> int:
    """Deletes the oldest attempts that have served their time; how many."""
    [row] = await db.many(FORGET_DELIVERIES, workspace_id=workspace_id, limit=limit)
    deleted: int = row[0]
    return deleted


WITH_TASK_RETENTION = """
select workspace_id from workspace where _setting(settings, 'task_retention_days', 0) > 0
"""


async def with_task_retention(db: Asked) -> list[str]:
    """The workspaces that keep ended trees for a time only."""
    return [row[0] for row in await db.many(WITH_TASK_RETENTION)]


FIND_OLD_TASKS = "select find_old_tasks(%(workspace_id)s, %(limit)s)"


async def find_old_tasks(db: Asked, workspace_id: str, limit: int) -> list[str]:
    """Tasks of trees that ended long ago, children first."""
    return [row[0] for row in await db.many(FIND_OLD_TASKS, workspace_id=workspace_id, limit=limit)]


FORGET_TASK = "select forget_task(%(workspace_id)s, %(cause)s::jsonb, %(task_id)s)"


async def forget_task(db: Database, workspace_id: str, cause: str, task_id: str) -> int:
    """Deletes such a task unless it came into use meanwhile; how many. Raises its Problem."""
    [row] = await db.many(FORGET_TASK, workspace_id=workspace_id, cause=cause, task_id=task_id)
    deleted: int = row[0]
    return deleted
