"""The log of a workspace."""

from typing import Any, NamedTuple

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


LATEST_SEQUENCE = """
select coalesce(max(sequence), 0) from event where workspace_id = %(workspace_id)s
"""


async def latest_sequence(db: Database, workspace_id: str) -> int:
    """The newest sequence of a workspace's log; 0 before the first."""
    [row] = await db.many(LATEST_SEQUENCE, workspace_id=workspace_id)
    latest: int = row[0]
    return latest


LOG_BOUNDS = """
select coalesce((select e.sequence from event e where e.workspace_id = %(workspace_id)s
                  order by e.sequence limit 1), 0),
       coalesce((select e.sequence from event e where e.workspace_id = %(workspace_id)s
                  order by e.sequence desc limit 1), 0)
"""


async def log_bounds(db: Database, workspace_id: str) -> tuple[int, int]:
    """The oldest and the newest stored sequence of a workspace's log."""
    [row] = await db.many(LOG_BOUNDS, workspace_id=workspace_id)
    return row[0], row[1]


class Bounds(NamedTuple):
    """What of the log is stored, and whether the task of a stream exists (or did)."""

    oldest: int
    newest: int
    known: bool


STREAM_BOUNDS = """
select coalesce(min(e.sequence), 0), coalesce(max(e.sequence), 0),
       exists (select from task t
                where t.workspace_id = %(workspace_id)s and t.task_id = %(task_id)s)
  from event e where e.workspace_id = %(workspace_id)s
"""


async def stream_bounds(db: Database, workspace_id: str, task_id: str) -> Bounds:
    """From where to where a stream of this task can read."""
    [row] = await db.many(STREAM_BOUNDS, workspace_id=workspace_id, task_id=task_id)
    return Bounds(*row)


# The events of a task and of all below it: those of its tree whose task is it or has it above.
# The log's bounds are of the same snapshot, so nothing is skipped unseen.
READ_STREAM = """
with recursive root as (
  select x.root_task_id from (
    select t.root_task_id from task t
     where t.workspace_id = %(workspace_id)s and t.task_id = %(task_id)s
    union all
    select d.root_task_id from deleted_task d
     where d.workspace_id = %(workspace_id)s and d.task_id = %(task_id)s) x
), below as (
  select %(task_id)s::text collate "C" as task_id
  union
  select k.task_id from below b
    cross join lateral (
      select t.task_id from task t
       where t.workspace_id = %(workspace_id)s and t.parent_task_id = b.task_id
      union all
      select d.task_id from deleted_task d
       where d.workspace_id = %(workspace_id)s and d.parent_task_id = b.task_id) k
)
select t.sequence, t.event_type, t.task_id, t.body::text
  from timeline_wire t
 where t.workspace_id = %(workspace_id)s and t.sequence in (
         (select e.sequence from event e
           where e.workspace_id = %(workspace_id)s and e.task_id = %(task_id)s
             and e.sequence > %(after)s and e.sequence <= %(upto)s
           order by e.sequence limit %(limit)s)
         union
         (select e.sequence from event e
           where e.workspace_id = %(workspace_id)s and e.root_task_id <> e.task_id
             and e.root_task_id = (select root_task_id from root)
             and e.sequence > %(after)s and e.sequence <= %(upto)s
             and (%(task_id)s = (select root_task_id from root)
                  or e.task_id in (select task_id from below))
           order by e.sequence limit %(limit)s))
 order by t.sequence limit %(limit)s
"""


async def read_stream(db: Database, **position: Any) -> list[tuple[Any, ...]]:
    """The next events of a task and its descendants: sequence, type, task id, TimelineItem."""
    return await db.many(READ_STREAM, **position)


# The next events of a workspace. Only those that somebody watches, on the task itself or on one
# above it, are rendered; the others tell how far the log was read.
READ_FEED = """
with recursive page as materialized (
  select e.sequence, e.event_type, e.task_id from event e
   where e.workspace_id = %(workspace_id)s and e.sequence > %(after)s
   order by e.sequence limit %(limit)s
), above (start_id, task_id) as (
  select distinct p.task_id, p.task_id from page p where p.task_id is not null
  union all
  select a.start_id, coalesce(t.parent_task_id, d.parent_task_id)
    from above a
    left join task t on t.workspace_id = %(workspace_id)s and t.task_id = a.task_id
    left join deleted_task d on d.workspace_id = %(workspace_id)s and d.task_id = a.task_id
   where coalesce(t.parent_task_id, d.parent_task_id) is not null
), watched as (
  select a.start_id, array_agg(a.task_id) as task_ids
    from above a where a.task_id = any (%(watched)s) group by a.start_id
)
select p.sequence, p.event_type, p.task_id, w.task_ids,
       case when w.start_id is not null then (select t.body::text from timeline_wire t
         where t.workspace_id = %(workspace_id)s and t.sequence = p.sequence) end
  from page p left join watched w on w.start_id = p.task_id
 order by p.sequence
"""


async def read_feed(db: Database, **position: Any) -> list[tuple[Any, ...]]:
    """The next events: sequence, type, task id, and if watched by whom and the TimelineItem."""
    return await db.many(READ_FEED, **position)
