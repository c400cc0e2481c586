"""Runs."""

from typing import Any

from server.db.pool import Database

# The page is found first; only what is on it is rendered.
LIST_RUNS = """
select _cut_result(w.body)::text, p.queued_at, p.run_id
  from (select r.queued_at, r.run_id
          from run r
         where r.workspace_id = %(workspace_id)s and r.task_id = %(task_id)s
           and (r.queued_at, r.run_id) < (%(after_at)s::timestamptz, %(after_id)s::text)
           and (%(status)s::text[] is null or r.status = any (%(status)s))
           and (%(session_id)s::text is null or %(session_id)s = (
             select x.body ->> 'session_id' from run_wire x
              where x.workspace_id = %(workspace_id)s and x.run_id = r.run_id))
         order by r.queued_at desc, r.run_id desc limit %(limit)s) p
  cross join lateral (select w.body from run_wire w
    where w.workspace_id = %(workspace_id)s and w.run_id = p.run_id offset 0) w
 order by p.queued_at desc, p.run_id desc
"""


async def list_runs(db: Database, **filters: Any) -> list[tuple[Any, ...]]:
    """Runs of a task, last queued first, each with its sort values."""
    return await db.many(LIST_RUNS, **filters)


# Along the key, or along the runs of one task: the other branch is not run.
SEARCH_RUNS = """
select _cut_result(w.body)::text, p.run_id
  from (select f.run_id from (
         (select r.run_id from run r
           left join lateral (select k as lease from lease k where k.workspace_id = r.workspace_id
             and k.run_id = r.run_id and k.fence = r.fence offset 0) l on true
           where %(task_id)s::text is null and r.workspace_id = %(workspace_id)s
             and r.run_id < %(after)s
             and _run_fits(r, l.lease, %(status)s, %(agent_name)s, %(session_id)s, %(stuck)s,
                           (select lease_now()))
           order by r.run_id desc limit %(limit)s)
         union all
         (select r.run_id from run r
           left join lateral (select k as lease from lease k where k.workspace_id = r.workspace_id
             and k.run_id = r.run_id and k.fence = r.fence offset 0) l on true
           where %(task_id)s::text is not null and r.workspace_id = %(workspace_id)s
             and r.task_id = %(task_id)s and r.run_id < %(after)s
             and _run_fits(r, l.lease, %(status)s, %(agent_name)s, %(session_id)s, %(stuck)s,
                           (select lease_now()))
           order by r.run_id desc limit %(limit)s)) f) p
  cross join lateral (select w.body from run_wire w
    where w.workspace_id = %(workspace_id)s and w.run_id = p.run_id offset 0) w
 order by p.run_id desc
"""

# Of runs that are held: there are never more than agents hold at once.
SEARCH_HELD_RUNS = """
select _cut_result(w.body)::text, p.run_id
  from (select l.run_id from lease l
          cross join lateral (select k as run from run k
            where k.workspace_id = l.workspace_id and k.run_id = l.run_id offset 0) r
         where l.workspace_id = %(workspace_id)s and l.ended_at is null and l.run_id < %(after)s
           and (%(task_id)s::text is null or l.task_id = %(task_id)s)
           and _run_fits(r.run, l, %(status)s, %(agent_name)s, %(session_id)s, %(stuck)s,
                         (select lease_now()))
         order by l.run_id desc limit %(limit)s) p
  cross join lateral (select w.body from run_wire w
    where w.workspace_id = %(workspace_id)s and w.run_id = p.run_id offset 0) w
 order by p.run_id desc
"""


async def search_runs(db: Database, held: bool, **filters: Any) -> list[tuple[Any, ...]]:
    """Runs of the workspace by id, the last first, each with its id; held: all have a lease."""
    return await db.many(SEARCH_HELD_RUNS if held else SEARCH_RUNS, **filters)


HAS_RUN = """
select 1 from run where workspace_id = %(workspace_id)s and run_id = %(run_id)s
"""


async def has_run(db: Database, workspace_id: str, run_id: str) -> bool:
    """Whether there is such a run."""
    return await db.one(HAS_RUN, workspace_id=workspace_id, run_id=run_id) is not None


GET_RUN = """
select json_build_object('run', json_build_object(
         'run', r.body, 'task', t.body,
         'session', (select json_build_object('session_id', s.session_id,
             'workspace_id', s.workspace_id, 'agent_name', s.agent_name, 'name', s.agent_name,
             'channel', s.channel, 'state', case when s.updated_at > lease_now()
               - make_interval(secs => %(session_ttl)s) then 'active' else 'stopped' end,
             'created_at', _utc(s.created_at), 'updated_at', _utc(s.updated_at))
           from agent_session s
          where s.workspace_id = r.workspace_id and s.session_id = r.body ->> 'session_id'),
         'summary', json_build_object(
           'last_activity_at', coalesce(_utc(e.at), r.body ->> 'queued_at'),
           'last_event_type', e.event_type, 'tool_call_count', u -> 'tool_calls',
           'turn_count', u -> 'turns', 'input_tokens', u -> 'input_tokens',
           'output_tokens', u -> 'output_tokens', 'total_tokens', u -> 'total_tokens',
           'total_cost', u -> 'total_cost', 'cost_currency', u -> 'cost_currency')))::text
  from run_wire r
  join task_reference_wire t on t.workspace_id = r.workspace_id and t.task_id = r.task_id
  cross join lateral (select r.body -> 'usage') x (u)
  left join lateral (select e.at, e.event_type from event e
    where e.workspace_id = r.workspace_id and e.task_id = r.task_id and e.run_id = r.run_id
    order by e.sequence desc limit 1) e on true
 where r.workspace_id = %(workspace_id)s and r.run_id = %(run_id)s
"""


async def get_run(db: Database, workspace_id: str, run_id: str, session_ttl: float) -> str | None:
    """A run with its task, session and totals."""
    row = await db.one(GET_RUN, workspace_id=workspace_id, run_id=run_id, session_ttl=session_ttl)
    return row[0] if row else None


CANCEL_RUN = """
select body, offers from cancel_run(
  %(workspace_id)s, %(cause)s::jsonb, %(run_id)s, %(reason)s, %(metadata)s::jsonb)
"""


async def cancel_run(db: Database, **call: Any) -> tuple[str, int]:
    """Cancels one run; answers it, and how many runs were put into the queue."""
    [row] = await db.many(CANCEL_RUN, **call)
    return row[0], row[1]
