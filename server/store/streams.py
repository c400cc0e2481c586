"""The log as it is followed: what is stored of it, and what comes."""

from typing import Any, NamedTuple

from server.db.pool import Database


class Bounds(NamedTuple):
    """What of the log is stored."""

    oldest: int
    newest: int


STREAM_BOUNDS = """
select coalesce((select e.sequence from event e where e.workspace_id = %(workspace_id)s
                  order by e.sequence limit 1), 0),
       coalesce((select e.sequence from event e where e.workspace_id = %(workspace_id)s
                  order by e.sequence desc limit 1), 0)
"""


async def stream_bounds(db: Database, workspace_id: str) -> Bounds:
    """From where to where a stream can read."""
    [row] = await db.many(STREAM_BOUNDS, workspace_id=workspace_id)
    return Bounds(*row)


# The events of a task and of all below it: those of its tree whose task is it or has it above.
# The log's bounds are of the same snapshot, so nothing is skipped unseen.
READ_TASK = """
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


async def read_task(db: Database, **position: Any) -> list[tuple[Any, ...]]:
    """The next events of a task and its descendants: sequence, type, task id, TimelineItem."""
    return await db.many(READ_TASK, **position)


# Thin rows first, along the log; only what fits is rendered.
READ_WORKSPACE = """
select w.sequence, w.event_type, _merge(w.body, json_build_object('sequence', w.sequence))::text
  from (select e.sequence from event e
         where e.workspace_id = %(workspace_id)s and e.sequence > %(after)s
           and e.sequence <= %(upto)s
           and (%(event_type)s::text[] is null or e.event_type = any (%(event_type)s))
           and (%(task_id)s::text is null or e.task_id = %(task_id)s)
         order by e.sequence limit %(limit)s) p
  cross join lateral (select x.sequence, x.event_type, x.body from event_wire x
    where x.workspace_id = %(workspace_id)s and x.sequence = p.sequence offset 0) w
 order by w.sequence
"""


async def read_workspace(db: Database, **position: Any) -> list[tuple[Any, ...]]:
    """The next events of the log that fit: sequence, type, LogEvent."""
    return await db.many(READ_WORKSPACE, **position)


READ_SIGNALS = """
select sequence, session_id, name, data::text
  from _signals(%(workspace_id)s, %(sessions)s, %(after)s, %(upto)s)
"""


async def read_signals(db: Database, **position: Any) -> list[tuple[Any, ...]]:
    """What the next events tell these sessions: sequence, session id, name, data."""
    return await db.many(READ_SIGNALS, **position)


# What a session that has just come must know: what it holds.
READ_STANDING = """
select json_build_object('sequence', %(sequence)s::bigint, 'session_id', %(session_id)s::text,
         'leases', (select coalesce(json_agg(json_build_object('run_id', l.run_id,
             'task_id', l.task_id, 'fence', l.fence, 'lease_until', _utc(l.lease_until))
             order by l.claimed_at, l.run_id), '[]')
           from lease l
          where l.workspace_id = %(workspace_id)s and l.session_id = %(session_id)s
            and l.ended_at is null),
         'scheduler_paused', _scheduler_paused(%(workspace_id)s))::text
"""


async def read_standing(db: Database, workspace_id: str, session_id: str, sequence: int) -> str:
    """The data of a session's `ready`."""
    [row] = await db.many(
        READ_STANDING, workspace_id=workspace_id, session_id=session_id, sequence=sequence
    )
    standing: str = row[0]
    return standing


# The next events of a workspace. Those that somebody watches, on the task itself, on one above it
# or because all are watched, are rendered; the last one is always there, and tells how far the log
# was read.
READ_FEED = """
with recursive page as materialized (
  select e.sequence, e.event_type, e.task_id,
         %(signals)s and _is_signal(e.event_type, e.actor_kind, e.origin_ref, e.payload)
           as signal
    from event e
   where e.workspace_id = %(workspace_id)s and e.sequence > %(after)s
   order by e.sequence limit %(limit)s
), above (start_id, task_id) as (
  select distinct p.task_id, p.task_id from page p
   where p.task_id is not null and cardinality(%(watched)s::text[]) > 0
  union all
  select a.start_id, coalesce(t.parent_task_id, d.parent_task_id)
    from above a
    left join task t on t.workspace_id = %(workspace_id)s and t.task_id = a.task_id
    left join deleted_task d on d.workspace_id = %(workspace_id)s and d.task_id = a.task_id
   where coalesce(t.parent_task_id, d.parent_task_id) is not null
), watched as (
  select a.start_id, array_agg(a.task_id) as task_ids
    from above a where a.task_id = any (%(watched)s::text[]) group by a.start_id
)
select p.sequence, p.event_type, p.task_id, (select min(k.sequence) from page k), p.signal,
       coalesce(w.task_ids::text[], '{}'),
       case when w.start_id is not null then (select t.body::text from timeline_wire t
         where t.workspace_id = %(workspace_id)s and t.sequence = p.sequence) end,
       case when %(whole)s then (
         select _merge(x.body, json_build_object('sequence', x.sequence))::text from event_wire x
          where x.workspace_id = %(workspace_id)s and x.sequence = p.sequence) end
  from page p left join watched w on w.start_id = p.task_id
 where %(whole)s or p.signal or w.start_id is not null
    or p.sequence = (select max(k.sequence) from page k)
 order by p.sequence
"""


class FeedRow(NamedTuple):
    """An event of the feed; what nobody watches is not rendered. first: where the page began."""

    sequence: int
    event_type: str
    task_id: str | None
    first: int
    signal: bool
    watched: list[str]
    timeline: str | None
    logged: str | None


async def read_feed(db: Database, **position: Any) -> list[FeedRow]:
    """The next events that somebody watches, and the last of the page in any case."""
    return [FeedRow(*row) for row in await db.many(READ_FEED, **position)]
