insert into workspace (workspace_id, name) values ('bench', 'bench');
insert into workspace_lock values ('bench', 'log'), ('bench', 'edge'), ('bench', 'lane');
insert into lane (workspace_id, demands)
select 'bench', jsonb_strip_nulls(jsonb_build_object('channel', case when c > 0 then 'channel-' || c end))
  from generate_series(0, 19) c;
insert into agent_session (workspace_id, session_id, agent_name)
select 'bench', 'session-' || n, 'agent-' || n % 16 from generate_series(0, 255) n;
-- Of a hundred: 45 completed, 10 failed, 2 canceled, 1 draft, 3 await an approval, 4 wait for one that failed,
-- 2 are in progress, 33 are queued.
create table shape as
select n, 'task_' || lpad(n::text, 12, '0') as task_id, 'run_' || lpad(n::text, 12, '0') as run_id,
       case when n % 100 < 45 then 'completed' when n % 100 < 55 then 'failed' when n % 100 < 57 then 'canceled'
            when n % 100 < 58 then 'draft' when n % 100 < 65 then 'blocked' when n % 100 < 67 then 'in_progress'
            else 'ready' end as status,
       n % 100 between 58 and 60 as asks, n % 100 between 61 and 64 as waits,
       case when n % 20 > 0 then 'channel-' || n % 20 end as channel,
       case when n % 7 < 5 then 'owner-' || n % 50 end as owner,
       clock_timestamp() - make_interval(secs => 36000.0 * (1 - n::float8 / :tasks)) as at
  from generate_series(1, :tasks) n;
insert into task (workspace_id, task_id, root_task_id, depth, identifier, scope, title, network_channel, priority,
  max_attempts, auto_enqueue_on_ready, status, canceled, draft, approval_state, owner_kind, owner_ref,
  newest_run_id, current_run_id, created_by_kind, created_by_ref, origin_kind, origin_ref, created_at, updated_at,
  closed_at, fence, attempts_used, dependencies_waiting, retry_strategy, retry_base_seconds, retry_max_seconds,
  on_dependency_failure, max_lease_expiries)
select 'bench', task_id, task_id, 1, 'OPS-' || n, case when n % 10 = 0 then 'global' else 'workspace' end,
       'task ' || n || ' of the measure', channel, 10 * (1 + n % 4), 3, true, status, status = 'canceled',
       status = 'draft', case when asks then 'pending' end, case when owner is not null then 'human' end, owner,
       case when status not in ('draft', 'canceled', 'blocked') then run_id end,
       case when status = 'in_progress' then run_id end, 'human', 'bench',
       (array['http', 'cli', 'automation'])[1 + n % 3], 'tasks.create', at, at,
       case when status in ('completed', 'failed', 'canceled') then at end, 1, 1, waits::int,
       'exponential_jitter', 10, 3600, 'block', 3
  from shape;
insert into task_body (workspace_id, task_id) select 'bench', task_id from shape;
insert into dependency (workspace_id, task_id, depends_on_task_id, satisfied, created_at)
select 'bench', task_id, 'task_' || lpad((n - 10)::text, 12, '0'), false, at from shape where waits;
insert into run (workspace_id, run_id, task_id, status, attempt, failure_kind, retryable, origin_kind, origin_ref,
  network_channel, lane_id, fence, claim_count, first_queued_at, queued_at, available_at, started_at, ended_at)
select 'bench', run_id, task_id, case status when 'ready' then 'queued' when 'in_progress' then 'running'
         else status end, 1, case when status = 'failed' then 'error' end, case when status = 'failed' then false end,
       'http', 'tasks.create', channel, 1 + n % 20, case when status <> 'ready' then 1 end, 1, at, at, at,
       case when status <> 'ready' then at + interval '2 s' end,
       case when status in ('completed', 'failed') then at + interval '5 s' end
  from shape where status not in ('draft', 'canceled', 'blocked');
insert into run_body (workspace_id, run_id, error)
select 'bench', run_id, 'it broke' from shape where status = 'failed';
insert into lease (workspace_id, run_id, fence, task_id, session_id, agent_name, claimed_by_kind, claimed_by_ref,
  claim_kind, token_hash, claimed_at, lease_seconds, lease_until, heartbeat_at, check_at, ended_at, ended_how)
select 'bench', run_id, 1, task_id, 'session-' || n % 256, 'agent-' || n % 16, 'agent_session',
       'session-' || n % 256, 'agent', sha256(run_id::bytea), at + make_interval(secs => 1 + n % 13 * 0.01), 300,
       clock_timestamp() + interval '1 day', clock_timestamp(), clock_timestamp() + interval '1 day',
       case when status <> 'in_progress' then at + interval '5 s' end,
       case status when 'completed' then 'complete' when 'failed' then 'fail' end
  from shape where status in ('completed', 'failed', 'in_progress') order by status = 'in_progress', n;
insert into offer (workspace_id, lane_id, priority, rank_at, run_id, task_id, available_at, waiting_since)
select 'bench', 1 + n % 20, 10 * (1 + n % 4), at, run_id, task_id, at, at from shape where status = 'ready';
-- In blocks of a thousand tasks: all are created, then all are queued, and so on.
insert into event (workspace_id, sequence, task_id, root_task_id, run_id, event_type, actor_kind, actor_ref,
  origin_kind, origin_ref, payload, at, open_tasks)
select 'bench', (n - 1) / 1000 * 5000 + k * 1000 + (n - 1) % 1000 + 1, task_id, task_id,
       case when k > 0 then run_id end,
       (array['task.created', 'task.run_enqueued', 'task.run_claimed', 'task.run_started', 'task.run_completed'])[k + 1],
       'agent_session', 'session-1', 'agent_session', 'agent.task.next',
       jsonb_build_object('task_status', status, 'status', 'running', 'attempt', 1, 'fence', 1,
         'padding', repeat('x', 150)), at + make_interval(secs => k), 1
  from shape cross join generate_series(0, 4) k;
insert into task_activity (workspace_id, task_id, sequence, at)
select 'bench', task_id, (n - 1) / 1000 * 5000 + 4000 + (n - 1) % 1000 + 1, at + interval '4 s' from shape;
insert into triage (workspace_id, actor_kind, actor_ref, task_id, archived, dismissed, seen, seen_at, updated_at)
select 'bench', 'human', 'owner-1', task_id, n % 5 = 0, n % 7 = 0, 1000000000, at, at
  from shape where n % 100 between 45 and 60 and n <= 20000;
drop table shape;
