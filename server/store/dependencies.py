"""Edges between tasks."""

from typing import Any

from server.db.pool import Database
from server.store.base import Changed

ADD_DEPENDENCY = """
select body, version, offers from add_dependency(
  %(workspace_id)s, %(cause)s::jsonb, %(role)s, %(task_id)s, %(depends_on)s, %(guard)s::json)
"""


async def add_dependency(db: Database, **call: Any) -> Changed:
    """Makes a task wait for another."""
    [row] = await db.many(ADD_DEPENDENCY, **call)
    return Changed(*row)


REMOVE_DEPENDENCY = """
select body, version, offers from remove_dependency(
  %(workspace_id)s, %(cause)s::jsonb, %(role)s, %(task_id)s, %(depends_on)s)
"""


async def remove_dependency(db: Database, **call: Any) -> Changed:
    """Lets a task wait no longer for another."""
    [row] = await db.many(REMOVE_DEPENDENCY, **call)
    return Changed(*row)


# A page ends early when the results on it pass 4 MiB; its first row is always there. One row more
# than wanted is looked at, so that each page knows whether another follows.
LIST_DEPENDENCIES = """
select p.body, p.at, p.depends_on_task_id, p.place < p.found
  from (select _merge(d.body, json_build_object(
                 'result', case when %(include_result)s then r.result end,
                 'result_bytes', octet_length(r.result::text)))::text as body,
               d.created_at as at, d.depends_on_task_id,
               sum(case when %(include_result)s
                        then octet_length(r.result::text) end) over w as bytes,
               row_number() over w as place, count(*) over () as found
          from (select x.* from dependency_reference_wire x
                  join task t on t.workspace_id = x.workspace_id
                             and t.task_id = x.depends_on_task_id
                 where x.workspace_id = %(workspace_id)s and x.task_id = %(task_id)s
                   and (%(status)s::text[] is null or t.status = any (%(status)s))
                   and (%(after_at)s::timestamptz is null
                        or (x.created_at, x.depends_on_task_id) > (%(after_at)s, %(after_id)s))
                 order by x.created_at, x.depends_on_task_id limit %(limit)s + 1) d
          join task a on a.workspace_id = %(workspace_id)s and a.task_id = d.depends_on_task_id
          left join run_body b on b.workspace_id = %(workspace_id)s and b.run_id = a.newest_run_id
          cross join lateral (select case when a.status = 'completed' then b.result end as result) r
        window w as (order by d.created_at, d.depends_on_task_id)) p
 where p.place <= %(limit)s and (p.place = 1 or coalesce(p.bytes, 0) <= %(page_bytes)s)
 order by p.place
"""


async def list_dependencies(db: Database, **filters: Any) -> list[tuple[Any, ...]]:
    """What a task waits for, oldest edge first: JSON, sort values, whether more follow."""
    return await db.many(LIST_DEPENDENCIES, **filters)
