"""Tasks."""

from typing import Any

from server.db.pool import Database
from server.store.base import Changed, Created, Started

CREATE_TASKS = """
select body, version, replayed, offers from create_tasks(
  %(workspace_id)s, %(cause)s::jsonb, %(tasks)s::json, %(guard)s::json, %(bulk)s, %(key)s,
  %(request_hash)s)
"""


async def create_tasks(db: Database, **call: Any) -> Created:
    """Makes one task, or many; all or nothing."""
    [row] = await db.many(CREATE_TASKS, **call)
    return Created(*row)


GET_TASK = """
select body::text, version from task_detail_wire
 where workspace_id = %(workspace_id)s and task_id = %(task_id)s
"""


async def get_task(db: Database, workspace_id: str, task_id: str) -> tuple[str, int] | None:
    """A task with what surrounds it, and its version."""
    row = await db.one(GET_TASK, workspace_id=workspace_id, task_id=task_id)
    return (row[0], row[1]) if row else None


HAS_TASK = """
select 1 from task where workspace_id = %(workspace_id)s and task_id = %(task_id)s
"""


async def has_task(db: Database, workspace_id: str, task_id: str) -> bool:
    """Whether the task exists."""
    return await db.one(HAS_TASK, workspace_id=workspace_id, task_id=task_id) is not None


# In all three the page is found on thin rows first, in the order of an index; only what is on it is
# rendered. The keys of the row before come as `infinity` on the first page.
LIST_TASKS_BY_ACTIVITY = """
select w.body::text, p.at, p.task_id
  from (select a.task_id, a.at
          from task_activity a
          cross join lateral (select k as task from task k
            where k.workspace_id = %(workspace_id)s and k.task_id = a.task_id offset 0) t
         where a.workspace_id = %(workspace_id)s
           and (a.at, a.task_id) < (%(after_at)s::timestamptz, %(after_id)s::text)
           and (not %(roots)s or (t.task).parent_task_id is null)
           and _task_fits(t.task, %(scope)s, %(status)s, %(priority)s::smallint[],
                 %(approval_state)s, %(owner_kind)s, %(owner_ref)s, %(network_channel)s, %(tag)s,
                 %(identifier)s, %(query)s, %(include_drafts)s)
         order by a.at desc, a.task_id desc limit %(limit)s) p
  cross join lateral (select w.body from task_summary_wire w
    where w.workspace_id = %(workspace_id)s and w.task_id = p.task_id offset 0) w
 order by p.at desc, p.task_id desc
"""


async def list_tasks_by_activity(db: Database, **filters: Any) -> list[tuple[Any, ...]]:
    """Summaries, the most recently active first, each with its sort values."""
    return await db.many(LIST_TASKS_BY_ACTIVITY, **filters)


LIST_TASKS_BY_CREATION = """
select w.body::text, p.at, p.task_id
  from (select t.task_id, t.created_at as at
          from task t
         where t.workspace_id = %(workspace_id)s and t.depth > 0
           and (t.created_at, t.task_id) < (%(after_at)s::timestamptz, %(after_id)s::text)
           and (not %(roots)s or t.parent_task_id is null)
           and _task_fits(t, %(scope)s, %(status)s, %(priority)s::smallint[],
                 %(approval_state)s, %(owner_kind)s, %(owner_ref)s, %(network_channel)s, %(tag)s,
                 %(identifier)s, %(query)s, %(include_drafts)s)
         order by t.created_at desc, t.task_id desc limit %(limit)s) p
  cross join lateral (select w.body from task_summary_wire w
    where w.workspace_id = %(workspace_id)s and w.task_id = p.task_id offset 0) w
 order by p.at desc, p.task_id desc
"""


async def list_tasks_by_creation(db: Database, **filters: Any) -> list[tuple[Any, ...]]:
    """Summaries, the newest first, each with its sort values."""
    return await db.many(LIST_TASKS_BY_CREATION, **filters)


LIST_CHILDREN = """
select w.body::text, p.at, p.task_id
  from (select t.task_id, o.at
          from task t
          cross join lateral (select case when %(sort)s = 'created' then t.created_at else (
            select a.at from task_activity a
             where a.workspace_id = %(workspace_id)s and a.task_id = t.task_id) end as at) o
         where t.workspace_id = %(workspace_id)s and t.parent_task_id = %(parent_task_id)s
           and (o.at, t.task_id) < (%(after_at)s::timestamptz, %(after_id)s::text)
           and _task_fits(t, %(scope)s, %(status)s, %(priority)s::smallint[],
                 %(approval_state)s, %(owner_kind)s, %(owner_ref)s, %(network_channel)s, %(tag)s,
                 %(identifier)s, %(query)s, %(include_drafts)s)
         order by o.at desc, t.task_id desc limit %(limit)s) p
  cross join lateral (select w.body from task_summary_wire w
    where w.workspace_id = %(workspace_id)s and w.task_id = p.task_id offset 0) w
 order by p.at desc, p.task_id desc
"""


async def list_children(db: Database, **filters: Any) -> list[tuple[Any, ...]]:
    """Summaries of the children of a task (10,000 at most), in either order."""
    return await db.many(LIST_CHILDREN, **filters)


PATCH_TASK = """
select body, version, offers from patch_task(
  %(workspace_id)s, %(cause)s::jsonb, %(task_id)s, %(changes)s::jsonb, %(version)s)
"""


async def patch_task(db: Database, **call: Any) -> Changed:
    """Changes the named fields of a task."""
    [row] = await db.many(PATCH_TASK, **call)
    return Changed(*row)


DELETE_TASK = "select delete_task(%(workspace_id)s, %(cause)s::jsonb, %(task_id)s)"


async def delete_task(db: Database, workspace_id: str, cause: str, task_id: str) -> int:
    """Removes a task with its runs and edges; how many runs it put into the queue."""
    [row] = await db.many(DELETE_TASK, workspace_id=workspace_id, cause=cause, task_id=task_id)
    offers: int = row[0]
    return offers


CANCEL_TASK = """
select body, version, offers from cancel_task(
  %(workspace_id)s, %(cause)s::jsonb, %(role)s, %(task_id)s, %(reason)s, %(metadata)s::jsonb)
"""


async def cancel_task(db: Database, **call: Any) -> Changed:
    """Cancels a task and its subtree."""
    [row] = await db.many(CANCEL_TASK, **call)
    return Changed(*row)


START_TASK = """
select task_body, run_body, version, replayed, offers from start_task(
  %(workspace_id)s, %(cause)s::jsonb, %(role)s, %(task_id)s, %(reason)s, %(channel)s,
  %(metadata)s::json, %(key)s, %(request_hash)s)
"""


async def start_task(db: Database, **call: Any) -> Started:
    """Queues a run of a task."""
    [row] = await db.many(START_TASK, **call)
    return Started(*row)
