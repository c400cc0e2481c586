"""What dashboards and inboxes count, counted again from the tasks and runs themselves."""

TRIAGED = "('task.run_progress', 'task.run_lease_expired', 'task.run_starved')"

# By label, as the dashboard must have it whatever lag the digests have.
COUNTS = """
with newest as (
  select t.*, r.status as run_status, r.network_channel as run_channel, t.task_id in (
           select d.task_id from dependency d join task w
               on w.workspace_id = d.workspace_id and w.task_id = d.depends_on_task_id
            where d.workspace_id = %(ws)s and w.status in ('failed', 'canceled')) as hopeless,
         t.status = 'pending' and r.run_id in (
           select v.run_id from review v join workspace w on w.workspace_id = v.workspace_id
            where v.workspace_id = %(ws)s and v.gating and v.status = 'requested'
              and v.requested_at <= lease_now() - make_interval(
                secs => coalesce((w.settings ->> 'stranded_seconds')::int, 300))) as waits_long
    from task t left join run r on r.workspace_id = t.workspace_id and r.run_id = t.newest_run_id
   where t.workspace_id = %(ws)s
), held as (
  select r.*, l.claimed_at from run r left join lease l
      on l.workspace_id = r.workspace_id and l.run_id = r.run_id and l.fence = r.fence
     and coalesce(l.ended_how, '') not in ('release', 'expiry', 'client_gone', 'revoke')
   where r.workspace_id = %(ws)s
), lanes as (
  select case
      when status = 'blocked' and approval_state = 'pending' or waits_long then 'approvals'
      when status = 'failed' or run_status = 'failed' then 'failed_runs'
      when status = 'blocked' and (run_status in ('needs_attention', 'completed')
        or approval_state = 'rejected' or hopeless and on_dependency_failure = 'block')
        then 'blocked' end as lane
    from newest
), recounted as (
  select 'task.' || status as label, count(*) as amount from newest group by 1
  union all select 'run.' || status, count(*) from held group by 1
  union all select 'awaiting_approval', count(*) from newest
             where status = 'blocked' and approval_state = 'pending'
  union all select 'dependency_blocked', count(*) from newest
             where status = 'blocked' and dependencies_waiting > 0
  union all select 'queue.' || coalesce(run_channel, ''), count(*) from newest
             where status = 'ready' and run_status = 'queued' group by 1
  union all select 'lane.' || lane, count(*) from lanes where lane is not null group by 1
  union all select 'claimed', count(*) from held where claimed_at > lease_now() - interval '1 day'
  union all select 'started', count(*) from held
             where claimed_at is not null and started_at > lease_now() - interval '1 day'
  union all select 'forced', count(*) from held where failure_kind = 'operator_forced'
               and ended_at > lease_now() - interval '1 day')
select coalesce(a.label, b.label)
  from (select * from recounted where amount > 0) a
  full join (
    select label, amount::bigint from jsonb_each_text(read_dashboard(%(ws)s, {scope}, null, null,
      null, null, 300)::jsonb -> 'counts') c (label, amount) where label not like '%%\\_us') b
    on a.label = b.label
 where a.amount is distinct from b.amount
"""

# Dear to ask: for tests that set out to make them wrong.
COUNTED = {
    "the dashboard counts what there is": COUNTS.format(scope="null"),
    "the digests of a scope add up to what there is": COUNTS
        .replace("where t.workspace_id = %(ws)s", """where t.workspace_id = %(ws)s
            and t.scope = 'global'""")
        .replace("where r.workspace_id = %(ws)s", """where r.workspace_id = %(ws)s and exists (
            select from task t where t.workspace_id = r.workspace_id and t.task_id = r.task_id
               and t.scope = 'global')""")
        .format(scope="'global'"),
}  # fmt: skip

KEPT = {
    "a digest that no event has touched since is as its rows are": """
        with position as (select coalesce((select sequence from digest_position
                            where workspace_id = %(ws)s), 0) as at)
        select coalesce(k.task_id, d.task_id)
          from (select * from digest where workspace_id = %(ws)s) k
          full join _digests(%(ws)s, array(select task_id::text from task
            where workspace_id = %(ws)s), '{}', _late(%(ws)s)) d on d.task_id = k.task_id
         where to_jsonb(k) is distinct from to_jsonb(d)
           and coalesce(k.task_id, d.task_id) not in (select t.task_id from position p
             cross join lateral
               _behind(%(ws)s, p.at, 9223372036854775807, _late(%(ws)s), null) t)""",
    "the activity of a task is its newest event but of progress, expiry and starving": f"""
        select d.task_id from digest d
         where d.workspace_id = %(ws)s and d.activity <> (
          select max(e.sequence) from event e, digest_position p
           where p.workspace_id = %(ws)s and e.workspace_id = %(ws)s and e.task_id = d.task_id
             and e.sequence <= p.sequence and e.event_type not in {TRIAGED})""",
}  # fmt: skip

RULES = {**COUNTED, **KEPT}
