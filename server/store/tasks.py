"""Tasks."""

from typing import Any, NamedTuple

from server.db.pool import Busy, Database, Dedicated


class Changed(NamedTuple):
    """What a transition of a task answers; offers: how many runs it put into the queue."""

    body: str
    version: int
    offers: int


class Created(NamedTuple):
    """What a creation answers; the version is that of a single task."""

    body: str
    version: int | None
    replayed: bool
    offers: int


CREATE_TASKS = """
select body, version, replayed, offers from create_tasks(
  %(workspace_id)s, %(cause)s::jsonb, %(tasks)s::json, %(guard)s::json, %(bulk)s, %(key)s,
  %(request_hash)s)
"""


async def create_tasks(db: Database, **call: Any) -> Created:
    """Makes one task, or many; all or nothing."""
    [row] = await db.many(CREATE_TASKS, **call)
    return Created(*row)


async def create_task(db: Database, creating: Dedicated, **call: Any) -> Created:
    """Makes a small task on the connection that has just made the last; by the pool if it waits."""
    try:
        [row] = await creating.many(CREATE_TASKS, **call)
    except Busy:
        return await create_tasks(db, **call)
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


# The page is found on thin rows first; only what is on it is rendered.
LIST_TASKS = """
select w.body::text, p.at, p.task_id
  from (select t.task_id, o.at
          from task t
          join task_activity a on a.workspace_id = t.workspace_id and a.task_id = t.task_id
          cross join lateral (
            select case when %(sort)s = 'created' then t.created_at else a.at end as at) o
         where t.workspace_id = %(workspace_id)s
           and (%(scope)s::text is null or t.scope = %(scope)s)
           and (%(status)s::text[] is null or t.status = any (%(status)s))
           and (%(priority)s::smallint[] is null or t.priority = any (%(priority)s))
           and (%(approval_state)s::text is null or %(approval_state)s = 'not_required')
           and (%(owner_kind)s::text is null or t.owner_kind = %(owner_kind)s)
           and (%(owner_ref)s::text is null or t.owner_ref = %(owner_ref)s)
           and (%(parent_task_id)s::text is null
                or t.parent_task_id is not distinct from nullif(%(parent_task_id)s, 'none'))
           and (%(network_channel)s::text is null or t.network_channel = %(network_channel)s)
           and (%(tag)s::text[] is null or t.tags && %(tag)s)
           and (%(identifier)s::text is null or t.identifier = %(identifier)s)
           and (%(query)s::text is null or strpos(lower(t.title), lower(%(query)s)) > 0
                or strpos(lower(t.identifier), lower(%(query)s)) > 0)
           and (%(after_at)s::timestamptz is null
                or (o.at, t.task_id) < (%(after_at)s, %(after_id)s))
         order by o.at desc, t.task_id desc limit %(limit)s) p
  join task_summary_wire w on w.workspace_id = %(workspace_id)s and w.task_id = p.task_id
 order by p.at desc, p.task_id desc
"""


async def list_tasks(db: Database, **filters: Any) -> list[tuple[Any, ...]]:
    """Summaries, newest first, each with its sort values."""
    return await db.many(LIST_TASKS, **filters)


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


class Started(NamedTuple):
    """What queueing a run by hand answers."""

    task: str
    run: str
    version: int
    replayed: bool
    offers: int


START_TASK = """
select task_body, run_body, version, replayed, offers from start_task(
  %(workspace_id)s, %(cause)s::jsonb, %(role)s, %(task_id)s, %(reason)s, %(channel)s,
  %(metadata)s::json, %(key)s, %(request_hash)s)
"""


async def start_task(db: Database, **call: Any) -> Started:
    """Queues a run of a task."""
    [row] = await db.many(START_TASK, **call)
    return Started(*row)
