"""What must always be true of the tables, and what of them a refused call may not change."""

from collections.abc import Mapping
from typing import Any

import psycopg

from tests import recount

Connection = psycopg.Connection[Any]

TABLES = (
    "task", "task_body", "execution_profile", "deleted_task", "dependency", "run", "run_body",
    "lease", "review", "review_lease", "lane", "offer", "contender", "event", "task_activity",
    "idempotency_key", "agent_session", "cascade_task", "scheduler", "triage", "bridge",
    "subscription", "delivery_cursor", "delivery",
)  # fmt: skip
# The last-seen time of a known session may move with any call.
ROWS = """
select to_jsonb(x) - case when tableoid = 'agent_session'::regclass then 'updated_at' else '' end
  from {} x where workspace_id = %s order by 1
"""

OPEN = "('queued', 'claimed', 'starting', 'running', 'needs_attention')"
LEASED = "('claimed', 'starting', 'running')"
ENDED = "('completed', 'failed', 'canceled')"
# What tasks used of their budgets; a task (t) that no gate, pause or budget holds up.
USED = """left join (select workspace_id, task_id,
             coalesce(sum(input_tokens), 0) + coalesce(sum(output_tokens), 0) as tokens,
             coalesce(sum(total_cost), 0) as cost
           from lease where workspace_id = %(ws)s group by workspace_id, task_id) u
      on u.workspace_id = t.workspace_id and u.task_id = t.task_id"""
FREE = """(t.status = 'ready' and t.paused_by_task_id is null
  and (t.max_total_tokens <= coalesce(u.tokens, 0)) is not true
  and (t.max_cost <= coalesce(u.cost, 0)) is not true)"""

# Each names the rows that break a rule; none may be found.
RULES = {
    "P1: one open run a task at most": f"""
        select task_id from run where workspace_id = %(ws)s and status in {OPEN}
         group by task_id having count(*) > 1""",
    "P1: one live lease a run at most": """
        select run_id from lease where workspace_id = %(ws)s and ended_at is null
         group by run_id having count(*) > 1""",
    "a live lease is the newest of a run that is claimed, starting or running": f"""
        select l.run_id from lease l left join run r using (workspace_id, run_id)
         where l.workspace_id = %(ws)s and l.ended_at is null
           and (l.fence = r.fence and r.status in {LEASED}) is not true""",
    "a claimed, starting or running run has a live lease": f"""
        select r.run_id from run r left join lease l
            on l.workspace_id = r.workspace_id and l.run_id = r.run_id and l.ended_at is null
         where r.workspace_id = %(ws)s and r.status in {LEASED} and l.run_id is null""",
    "P3: fences of a task are used once, up to its own": """
        select t.task_id from task t join lease l using (workspace_id, task_id)
         where t.workspace_id = %(ws)s group by t.task_id, t.fence
        having count(*) <> count(distinct l.fence) or max(l.fence) > t.fence""",
    "activity is kept of tasks that exist": """
        select a.task_id from task_activity a left join task t using (workspace_id, task_id)
         where a.workspace_id = %(ws)s and t.task_id is null""",
    "the newest run has the highest attempt": """
        select t.task_id from task t
         where t.workspace_id = %(ws)s and t.newest_run_id is distinct from (
          select r.run_id from run r where r.workspace_id = t.workspace_id and r.task_id = t.task_id
           order by r.attempt desc limit 1)""",
    "attempts_used counts the runs": """
        select t.task_id from task t where t.workspace_id = %(ws)s and t.attempts_used <> (
          select count(*) from run r
           where r.workspace_id = t.workspace_id and r.task_id = t.task_id
             and (r.parent_run_id is null or r.previous_run_id is not null))""",
    "a run says what its newest gating review means for its task": """
        select r.run_id from run r
          left join (select distinct on (v.run_id) v.run_id, v.status, v.outcome from review v
             where v.workspace_id = %(ws)s and v.gating order by v.run_id, v.attempt desc) v
            on v.run_id = r.run_id
         where r.workspace_id = %(ws)s and r.review is distinct from (
           case when v.status in ('requested', 'routed', 'in_review') then 'open'
                when v.status = 'circuit_opened' or v.status = 'recorded' and v.outcome = 'blocked'
                then 'blocked' end)""",
    "only what is open is looked at, and only the newest run waits for a review": """
        select v.review_id from review v
          join task t on t.workspace_id = v.workspace_id and t.task_id = v.task_id
         where v.workspace_id = %(ws)s and (
           (v.check_at is not null) <> (v.status in ('requested', 'routed', 'in_review'))
           or v.gating and v.check_at is not null and t.newest_run_id <> v.run_id)""",
    "a review that is held has one live lease, its newest, and others have none": """
        select v.review_id from review v
          left join (select l.review_id, array_agg(l.fence) as fences from review_lease l
             where l.workspace_id = %(ws)s and l.ended_at is null group by 1) l using (review_id)
         where v.workspace_id = %(ws)s and l.fences is distinct from
               case when v.status in ('routed', 'in_review') then array[v.fence] end""",
    "P3: fences of reviews are used once, those of gating ones up to the task's": """
        select f.task_id from (
          select l.task_id, l.fence from lease l where l.workspace_id = %(ws)s union all
          select v.task_id, l.fence from review v
            join review_lease l using (workspace_id, review_id)
           where v.workspace_id = %(ws)s and v.gating) f
          join task t on t.workspace_id = %(ws)s and t.task_id = f.task_id
         group by f.task_id, t.fence
        having count(*) <> count(distinct f.fence) or max(f.fence) > t.fence""",
    "the status of a task follows from its inputs": f"""
        select t.task_id from task t left join run r
            on r.workspace_id = t.workspace_id and r.run_id = t.newest_run_id
         where t.workspace_id = %(ws)s
           and (t.status, t.current_run_id is not null) is distinct from (
           case when t.canceled then 'canceled' when t.draft then 'draft'
                when r.status in {LEASED} then 'in_progress'
                when r.status = 'needs_attention' or r.review = 'blocked' then 'blocked'
                when r.review = 'open' then 'pending'
                when r.status in ('completed', 'failed') then r.status
                when t.dependencies_waiting > 0 or t.approval_state in ('pending', 'rejected')
                then 'blocked' else 'ready' end,
           coalesce(r.status in {LEASED}, false) and not t.canceled)""",
    "ended tasks and runs, and no others, say when": f"""
        select task_id from task where workspace_id = %(ws)s
           and (closed_at is not null) <> (status in {ENDED})
        union all
        select run_id from run where workspace_id = %(ws)s
           and (ended_at is not null) <> (status in {ENDED})""",
    "an edge is satisfied if what it waits for is": """
        select d.task_id from dependency d
          join task t on t.workspace_id = d.workspace_id and t.task_id = d.task_id
          join task a on a.workspace_id = d.workspace_id and a.task_id = d.depends_on_task_id
         where d.workspace_id = %(ws)s and d.satisfied <> (a.status = 'completed'
           or (t.on_dependency_failure = 'run' and a.status in ('failed', 'canceled')))""",
    "dependencies_waiting counts the edges that are not satisfied": """
        select t.task_id from task t where t.workspace_id = %(ws)s and t.dependencies_waiting <> (
          select count(*) from dependency d where d.workspace_id = t.workspace_id
             and d.task_id = t.task_id and not d.satisfied)""",
    "P6: an offer stands for a queued run of a free task, with its lane, priority and key": f"""
        select o.run_id from offer o
          left join run r on r.workspace_id = o.workspace_id and r.run_id = o.run_id
          left join task t on t.workspace_id = o.workspace_id and t.task_id = r.task_id {USED}
         where o.workspace_id = %(ws)s and ((r.status, t.newest_run_id, {FREE})
                 = ('queued', r.run_id, true)
               and o.concurrency_key is not distinct from t.concurrency_key
               and (o.lane_id, o.priority, o.available_at) = (r.lane_id, t.priority, r.available_at)
               and r.available_at <= lease_now()) is not true""",
    "P7: a queued run of a free task without a key has an offer, or waits for its time": f"""
        select r.run_id from run r
          join task t on t.workspace_id = r.workspace_id and t.task_id = r.task_id {USED}
          left join offer o on o.workspace_id = r.workspace_id and o.run_id = r.run_id
         where r.workspace_id = %(ws)s and (r.status, {FREE}) = ('queued', true)
           and t.concurrency_key is null and (o.run_id is null) = (r.due_at is null)""",
    "P7: a queued run of a free task with a key contends, or waits for its time": f"""
        select r.run_id from run r
          join task t on t.workspace_id = r.workspace_id and t.task_id = r.task_id {USED}
          left join contender c on c.workspace_id = r.workspace_id and c.run_id = r.run_id
         where r.workspace_id = %(ws)s
           and (c.run_id is not null) <> (t.concurrency_key is not null and r.status = 'queued'
             and {FREE} and r.due_at = 'infinity') is true""",
    "a contender is as its task and run are, and its slot is there": """
        select c.run_id from contender c
          left join task t on t.workspace_id = c.workspace_id and t.task_id = c.task_id
          left join run r on r.workspace_id = c.workspace_id and r.run_id = c.run_id
          left join slot s on s.workspace_id = c.workspace_id
                          and s.concurrency_key = c.concurrency_key
         where c.workspace_id = %(ws)s
           and (c.concurrency_key, c.concurrency_limit, c.priority, c.lane_id, c.available_at)
             is distinct from (t.concurrency_key, t.concurrency_limit, t.priority, r.lane_id,
               r.available_at) or s.concurrency_key is null and c.workspace_id = %(ws)s""",
    "P7: as many contenders of a kind have offers as slots are free, the first": """
        select c.run_id from (select c.*, row_number() over (partition by c.concurrency_key,
            c.lane_id, c.priority, c.concurrency_limit order by c.rank_at, c.run_id) as place
            from contender c where c.workspace_id = %(ws)s) c
          left join offer o on o.workspace_id = c.workspace_id and o.run_id = c.run_id
          left join (select concurrency_key, count(*) as active from lease
            where workspace_id = %(ws)s and ended_at is null group by concurrency_key) a
            on a.concurrency_key = c.concurrency_key
         where (o.run_id is not null) <> (c.place <= c.concurrency_limit - coalesce(active, 0))""",
    "a live lease counts for the key of its task": """
        select l.run_id from lease l join task t using (workspace_id, task_id)
         where l.workspace_id = %(ws)s and l.ended_at is null
           and l.concurrency_key is distinct from t.concurrency_key""",
    "only queued runs of free tasks wait for their time, others for their gates": f"""
        select r.run_id from run r
          join task t on t.workspace_id = r.workspace_id and t.task_id = r.task_id {USED}
         where r.workspace_id = %(ws)s and (r.status = 'queued' or r.due_at is not null)
           and (r.status, r.due_at) is distinct from ('queued', case
             when not {FREE} then 'infinity'
             when t.concurrency_key is not null and r.due_at = 'infinity' then r.due_at
             when t.concurrency_key is not null or r.due_at is not null then r.available_at end)""",
    "the newest event counts the open tasks": f"""
        select e.open_tasks from event e where e.workspace_id = %(ws)s
           and e.sequence = (select max(sequence) from event where workspace_id = %(ws)s)
           and e.open_tasks <> (
             select count(*) from task where workspace_id = %(ws)s and status not in {ENDED})""",
    "each run's lane is there while the run may come back into the queue": """
        select r.run_id from run r
          left join lane l on l.workspace_id = r.workspace_id and l.lane_id = r.lane_id
         where r.workspace_id = %(ws)s and l.lane_id is null
           and r.status in ('queued', 'claimed', 'starting', 'running')""",
    "P7: what is ready is queued where that is asked for": """
        select t.task_id from task t where t.workspace_id = %(ws)s and t.status = 'ready'
           and t.auto_enqueue_on_ready and t.newest_run_id is null
           and t.paused_by_task_id is null""",
    "P8: the log has no gaps": """
        select 'log' from event where workspace_id = %(ws)s
        having count(*) <> coalesce(max(sequence) - min(sequence) + 1, 0)""",
    "the newest event of each task is known": """
        select e.task_id from event e join task t using (workspace_id, task_id)
          left join task_activity a using (workspace_id, task_id)
         where e.workspace_id = %(ws)s group by e.task_id, a.sequence
        having a.sequence is distinct from max(e.sequence)""",
    "a child is one deeper than its parent, in the same tree": """
        select c.task_id from task c join task p
            on p.workspace_id = c.workspace_id and p.task_id = c.parent_task_id
         where c.workspace_id = %(ws)s
           and (c.depth, c.root_task_id) <> (p.depth + 1, p.root_task_id)""",
    "a task is paused by itself, or as its parent is": """
        select t.task_id from task t left join task p
            on p.workspace_id = t.workspace_id and p.task_id = t.parent_task_id
          join task_body b on b.workspace_id = t.workspace_id and b.task_id = t.task_id
         where t.workspace_id = %(ws)s and ((b.paused_at is not null)
               <> coalesce(t.paused_by_task_id = t.task_id, false)
            or t.paused_by_task_id is distinct from
               case when b.paused_at is null then p.paused_by_task_id else t.task_id end)""",
    "under a canceled task nothing is open but what had ended, and was started again": f"""
        select c.task_id from task c join task p
            on p.workspace_id = c.workspace_id and p.task_id = c.parent_task_id
         where c.workspace_id = %(ws)s and p.canceled and c.status not in {ENDED}
           and c.status <> 'in_progress'
           and not exists (select from run r where r.workspace_id = c.workspace_id
             and r.task_id = c.task_id and r.status in ('completed', 'failed'))
           and not exists (select from cascade_task w
             where w.workspace_id = c.workspace_id)""",
    **recount.KEPT,
}  # fmt: skip

TASKS = "select count(*) from task where workspace_id = %(ws)s"
MANY = 1000


def snapshot(db: Connection, workspace_id: str) -> dict[str, list[Any]]:
    """Every row of a workspace, by table."""
    return {
        name: [row[0] for row in db.execute(ROWS.format(name).encode(), [workspace_id])]
        for name in TABLES
    }


def faults(
    db: Connection, workspace_id: str, rules: Mapping[str, str] = RULES
) -> dict[str, list[Any]]:
    """The rules that a workspace breaks, with the rows that break them."""
    with db.transaction():
        # Tables that grew a moment ago have no statistics, and loops over them would take minutes.
        db.execute("set local enable_nestloop = off")
        [[tasks]] = db.execute(TASKS, {"ws": workspace_id})
        if tasks > MANY:
            db.execute(f"analyze {', '.join(TABLES)}".encode())
        found = {
            rule: [row[0] for row in db.execute(query.encode(), {"ws": workspace_id})]
            for rule, query in rules.items()
        }
    return {rule: rows for rule, rows in found.items() if rows}
