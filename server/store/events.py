"""The log of a workspace."""

from typing import Any

from server.db.pool import Database

LIST_TIMELINE = """
select t.body::text, t.sequence from timeline_wire t
 where t.workspace_id = %(workspace_id)s and t.task_id = %(task_id)s and t.sequence > %(after)s
 order by t.sequence limit %(limit)s
"""


async def list_timeline(db: Database, **filters: Any) -> list[tuple[Any, ...]]:
    """A task's own events in order, each with its sequence."""
    return await db.many(LIST_TIMELINE, **filters)


# One branch is run: the log or one task's part of it, forwards or backwards, each along its index.
# A page ends early at 4 MiB; its first row is always there. One row more than wanted is looked at,
# so that each page knows whether another follows.
LIST_EVENTS = """
with about as (
  select coalesce(%(task_id)s::text, (select r.task_id from run r
    where r.workspace_id = %(workspace_id)s and r.run_id = %(run_id)s)) as task_id
)
select p.body, p.sequence, p.place < p.found
  from (select w.body, w.sequence, sum(octet_length(w.body)) over w as bytes,
               row_number() over w as place, count(*) over () as found
          from ((select e.sequence, e.sequence as rank from event e
                  where (select a.task_id from about a) is null and not %(descending)s
                    and e.workspace_id = %(workspace_id)s
                    and e.sequence > %(after)s::bigint and e.sequence < %(before)s::bigint
                    and _event_fits(e, %(run_id)s, %(event_type)s, %(actor_kind)s, %(actor_ref)s,
                                    %(since)s, %(until)s)
                  order by e.sequence limit %(limit)s + 1)
                union all
                (select e.sequence, -e.sequence from event e
                  where (select a.task_id from about a) is null and %(descending)s
                    and e.workspace_id = %(workspace_id)s
                    and e.sequence > %(after)s::bigint and e.sequence < %(before)s::bigint
                    and _event_fits(e, %(run_id)s, %(event_type)s, %(actor_kind)s, %(actor_ref)s,
                                    %(since)s, %(until)s)
                  order by e.sequence desc limit %(limit)s + 1)
                union all
                (select e.sequence, e.sequence from event e
                  where (select a.task_id from about a) is not null and not %(descending)s
                    and e.workspace_id = %(workspace_id)s
                    and e.task_id = (select a.task_id from about a)
                    and e.sequence > %(after)s::bigint and e.sequence < %(before)s::bigint
                    and _event_fits(e, %(run_id)s, %(event_type)s, %(actor_kind)s, %(actor_ref)s,
                                    %(since)s, %(until)s)
                  order by e.sequence limit %(limit)s + 1)
                union all
                (select e.sequence, -e.sequence from event e
                  where (select a.task_id from about a) is not null and %(descending)s
                    and e.workspace_id = %(workspace_id)s
                    and e.task_id = (select a.task_id from about a)
                    and e.sequence > %(after)s::bigint and e.sequence < %(before)s::bigint
                    and _event_fits(e, %(run_id)s, %(event_type)s, %(actor_kind)s, %(actor_ref)s,
                                    %(since)s, %(until)s)
                  order by e.sequence desc limit %(limit)s + 1)) k
          cross join lateral (select x.log_body::text as body, x.sequence, k.rank from event_wire x
            where x.workspace_id = %(workspace_id)s and x.sequence = k.sequence offset 0) w
        window w as (order by w.rank)) p
 where p.place <= %(limit)s and (p.place = 1 or p.bytes <= %(page_bytes)s)
 order by p.place
"""


async def list_events(db: Database, **filters: Any) -> list[tuple[Any, ...]]:
    """Events of the log, each with its sequence."""
    return await db.many(LIST_EVENTS, **filters)


LATEST_SEQUENCE = "select _newest_event(%(workspace_id)s)"


async def latest_sequence(db: Database, workspace_id: str) -> int:
    """The newest sequence of a workspace's log; 0 before the first."""
    [row] = await db.many(LATEST_SEQUENCE, workspace_id=workspace_id)
    latest: int = row[0]
    return latest
