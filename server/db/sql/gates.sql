-- The gates of a claim, made after slots.sql and scheduler.sql: what holds for every claim of a run, by hand too.
-- Explain and inspect, and the refusals of claims, starts and publications tell of no others.

-- What a task still waits for, the first 20 of them.
create function _awaited(p_ws text, p_task_id text) returns jsonb language sql stable as $$
  select coalesce(jsonb_agg(jsonb_build_object('task_id', w.task_id, 'status', w.status) order by w.task_id), '[]')
    from (select k.task_id, k.status from dependency d
            join task k on k.workspace_id = p_ws and k.task_id = d.depends_on_task_id
           where d.workspace_id = p_ws and d.task_id = p_task_id and not d.satisfied
           order by k.task_id limit 20) w
$$;

-- How many of all that it waits for have failed, or were canceled.
create function _failed_dependencies(p_ws text, p_task_id text) returns bigint language sql stable as $$
  select count(*) from dependency d
    join task k on k.workspace_id = p_ws and k.task_id = d.depends_on_task_id
   where d.workspace_id = p_ws and d.task_id = p_task_id and not d.satisfied and k.status in ('failed', 'canceled')
$$;

-- Every gate that is closed, in the order of the rules: one row below is one code. p_run: the newest run of the
-- task, all null if it has none. A claim itself asks for none of these but whether there is an offer: where a rule
-- comes, _offer() (or, for the scheduler, the claim) learns it too.
create function _gates(p_task task, p_run run, p_now timestamptz)
returns table (rule int, code text, message text, evidence jsonb) language sql stable as $$
  select 1, 'task_canceled', 'The task is canceled.', jsonb_build_object('closed_at', _utc(p_task.closed_at))
   where p_task.canceled
  union all
  select 1, 'task_draft', 'The task is a draft.', jsonb_build_object('status', p_task.status)
   where p_task.draft and not p_task.canceled
  union all
  select 2, 'run_needs_attention', 'The run needs a person''s attention.', jsonb_build_object('run_id', p_run.run_id)
   where p_run.status = 'needs_attention'
  union all
  select 2, 'run_active', 'The run is being worked on.', jsonb_build_object('run_status', p_run.status,
           'session_id', l.session_id, 'lease_until', _utc(l.lease_until))
    from lease l
   where _is_leased(p_run.status) and l.workspace_id = p_task.workspace_id and l.run_id = p_run.run_id
     and l.fence = p_run.fence
  union all
  select 2, 'review_open', 'The task waits for the review of its newest run.', jsonb_build_object(
           'review_id', _open_review(p_task.workspace_id, p_run.run_id))
   where p_run.review = 'open' and not p_task.canceled
  union all
  select 2, 'review_blocked', 'A review has stopped the task until a person decides.', jsonb_build_object(
           'review_id', (select v.review_id from review v where v.run_id = p_run.run_id
              and v.workspace_id || '' = p_task.workspace_id and v.gating
            order by v.review_round desc, v.attempt desc limit 1))
   where p_run.review = 'blocked' and not p_task.canceled
  union all
  select 2, 'task_terminal', 'The task has ended.', jsonb_build_object('status', p_task.status)
   where not _is_open(p_run.status) and _has_ended(p_task.status)
  union all
  select 2, 'no_run', 'The task has no run in the queue.', jsonb_build_object('status', p_task.status)
   where not _is_open(p_run.status) and not _has_ended(p_task.status) and p_run.review is null
  union all
  select 3, 'scheduler_paused', 'The scheduler is paused.',
         jsonb_build_object('paused_scope', _scope(s.workspace_id), 'paused_reason', s.paused_reason)
    from _pausing(p_task.workspace_id) s
  union all
  select 4, 'awaiting_approval', 'The task waits for a person''s approval.',
         jsonb_build_object('approval_state', p_task.approval_state)
   where p_task.approval_state = 'pending'
  union all
  select 4, 'approval_rejected', 'The task was not approved.',
         jsonb_build_object('approval_state', p_task.approval_state)
   where p_task.approval_state = 'rejected'
  union all
  select 5, 'awaiting_dependencies', 'The task waits for other tasks.', jsonb_build_object(
           'waiting', _awaited(p_task.workspace_id, p_task.task_id), 'count', p_task.dependencies_waiting,
           'failed_count', _failed_dependencies(p_task.workspace_id, p_task.task_id))
   where p_task.dependencies_waiting > 0
  union all
  select 6, 'task_paused', 'The task is paused.', jsonb_build_object('paused_by_task_id', p_task.paused_by_task_id)
   where p_task.paused_by_task_id = p_task.task_id
  union all
  select 6, 'ancestor_paused', 'A task above it is paused.',
         jsonb_build_object('paused_by_task_id', p_task.paused_by_task_id)
   where p_task.paused_by_task_id <> p_task.task_id
  union all
  select 7, 'not_yet_available', 'The run is not to be claimed before its time.', jsonb_build_object(
           'available_at', _utc(p_run.available_at), 'cause', case
             when p_run.available_at = p_task.available_at then 'scheduled'
             when l.ended_how = 'expiry' or l.fence is null and p_run.retries > 0 then 'back_off' else 'delay' end)
    from (values (1)) one
    left join lease l on l.workspace_id = p_task.workspace_id and l.run_id = p_run.run_id and l.fence = p_run.fence
   where p_run.status = 'queued' and p_run.available_at > p_now
  union all
  select 8, 'budget_exhausted', 'The budget of the task is used up.', jsonb_build_object(
           'budget', _budget_json(p_task), 'usage', (select u.body from task_usage_wire u
             where u.workspace_id = p_task.workspace_id and u.task_id = p_task.task_id))
   where _is_spent(p_task)
  union all
  select 9, 'concurrency_limit', 'As many tasks with its concurrency key are worked on as may be.', jsonb_build_object(
           'concurrency_key', p_task.concurrency_key, 'limit', p_task.concurrency_limit,
           'active', _active(p_task.workspace_id, p_task.concurrency_key))
   where not _has_slot(p_task)
$$;

-- The codes of the closed gates of these rules, in their order: what a refusal tells.
create function _closed(p_task task, p_run run, p_now timestamptz, p_rules int[]) returns jsonb
language sql stable as $$
  select coalesce(jsonb_agg(g.code order by g.rule), '[]')
    from _gates(p_task, p_run, p_now) g where g.rule = any (p_rules)
$$;

-- Refuses what may not be done while an approval or a dependency blocks the task.
create function _check_gates(p_task task) returns void language plpgsql as $$
declare
  v_reasons jsonb := _closed(p_task, null, lease_now(), '{4,5}');
begin
  if v_reasons <> '[]' then
    perform _refuse('task_blocked', jsonb_build_object('reasons', v_reasons));
  end if;
end $$;

-- Refuses the claim of a queued run.
create function _refuse_claim(p_task task, p_run run, p_now timestamptz) returns void language plpgsql as $$
begin
  perform _refuse('run_not_claimable', jsonb_build_object('reasons',
    _closed(p_task, p_run, p_now, '{3,4,5,6,7,8,9}')));
end $$;
