-- Approvals: a human gate before work. The state stands in the task, whose status follows from it; who asked and
-- decided stands in task_body.

-- Says when the loop `approvals` is to look at these tasks: one timeout after their approval was asked for.
create function _time_approvals(p_ws text, p_tasks text[]) returns void language plpgsql as $$
begin
  update task_body b
     set approval_due_at = case when k.waits
           then b.approval_requested_at + make_interval(secs => b.approval_timeout_seconds) end
    from unnest(p_tasks) x (task_id)
    cross join lateral (select t.approval_state = 'pending' and not t.draft and not t.canceled as waits from task t
      where t.workspace_id = p_ws and t.task_id = x.task_id offset 0) k
    cross join lateral (select y.ctid from task_body y
      where y.workspace_id = p_ws and y.task_id = x.task_id offset 0) y
   where b.ctid = y.ctid;
end $$;

-- Asks for the approval of tasks that were made pending.
create function _ask_approvals(p_ws text, p_now timestamptz, p_cause cause, p_tasks text[]) returns new_event[]
language plpgsql as $$
begin
  if cardinality(p_tasks) = 0 then
    return '{}';
  end if;
  update task_body b set approval_requested_at = p_now, approval_decided_at = null, approval_decided_by_kind = null,
                         approval_decided_by_ref = null, approval_reason = null, approval_expired = false
    from unnest(p_tasks) x (task_id)
    cross join lateral (select k.ctid from task_body k
      where k.workspace_id = p_ws and k.task_id = x.task_id offset 0) k
   where b.ctid = k.ctid;
  perform _time_approvals(p_ws, p_tasks);
  return array(select _event(p_cause, 'task.approval_requested', b.task_id, null, jsonb_build_object(
           'approval_requested_at', _utc(p_now), 'approval_timeout_seconds', b.approval_timeout_seconds,
           'on_approval_timeout', b.on_approval_timeout))
    from unnest(p_tasks) with ordinality x (task_id, n)
    cross join lateral (select k.* from task_body k
      where k.workspace_id = p_ws and k.task_id = x.task_id offset 0) b
   order by x.n);
end $$;

-- What a patch (done already) means for the approval of its task.
create function _patch_approval(p_ws text, p_now timestamptz, p_cause cause, p_task_id text, p_changes jsonb)
returns new_event[] language plpgsql as $$
begin
  if p_changes ->> 'approval_policy' = 'manual' then
    return _ask_approvals(p_ws, p_now, p_cause, array[p_task_id]);
  elsif p_changes ->> 'approval_policy' = 'none' then
    update task_body b
       set approval_requested_at = null, approval_decided_at = null, approval_decided_by_kind = null,
           approval_decided_by_ref = null, approval_reason = null, approval_expired = false, approval_due_at = null
     where b.workspace_id = p_ws and b.task_id = p_task_id;
  elsif p_changes ?| '{approval_timeout_seconds,on_approval_timeout}' then
    perform _time_approvals(p_ws, array[p_task_id]);
  end if;
  return '{}';
end $$;

-- Decides pending approvals; the tasks are locked by the caller.
create function _decide(
  p_ws text, p_now timestamptz, p_cause cause, p_tasks text[], p_state text, p_reason text, p_expired boolean)
returns new_event[] language plpgsql as $$
begin
  update task t set approval_state = p_state, version = t.version + 1, updated_at = p_now
    from unnest(p_tasks) x (task_id)
    cross join lateral (select k.ctid from task k
      where k.workspace_id = p_ws and k.task_id = x.task_id offset 0) k
   where t.ctid = k.ctid;
  update task_body b
     set approval_decided_at = p_now, approval_decided_by_kind = p_cause.actor_kind,
         approval_decided_by_ref = p_cause.actor_ref, approval_reason = p_reason, approval_expired = p_expired,
         approval_due_at = null
    from unnest(p_tasks) x (task_id)
    cross join lateral (select k.ctid from task_body k
      where k.workspace_id = p_ws and k.task_id = x.task_id offset 0) k
   where b.ctid = k.ctid;
  return array(select _event(p_cause, 'task.' || p_state, x, null, jsonb_build_object(
    'previous_approval_state', 'pending', 'approval_state', p_state, 'reason', p_reason, 'expired', p_expired))
    from unnest(p_tasks) x order by x);
end $$;

create function _check_pending(p_task task) returns void language plpgsql as $$
begin
  if p_task.approval_state is distinct from 'pending' then
    perform _refuse('approval_not_pending', jsonb_build_object(
      'approval_policy', case when p_task.approval_state is null then 'none' else 'manual' end,
      'approval_state', coalesce(p_task.approval_state, 'not_required')));
  elsif p_task.canceled then
    perform _refuse('task_canceled', jsonb_build_object('closed_at', _utc(p_task.closed_at)));
  end if;
end $$;

-- Opens the gate, and queues a run unless one is open, the task is a draft, has no attempt left, or waits for
-- a review.
create function approve_task(
  p_workspace_id text, p_cause jsonb, p_task_id text, p_channel text, p_metadata json, p_key text, p_hash text,
  out task_body text, out run_body text, out version int, out replayed boolean, out offers int)
language plpgsql as $$
declare
  v_now timestamptz;
  v_cause cause := _cause(p_cause);
  v_task task;
  v_kept idempotency_key;
  v_run_id text;
  v_events new_event[];
begin
  v_kept := _take_key(p_workspace_id, v_cause, p_key, p_hash);
  replayed := v_kept.key is not null;
  offers := 0;
  if replayed then
    v_run_id := v_kept.ids ->> 'run_id';
  else
    v_task := _lock_with_waiting(p_workspace_id, p_task_id);
    v_now := lease_now();
    perform _check_pending(v_task);
    v_events := _decide(p_workspace_id, v_now, v_cause, array[p_task_id], 'approved', null, false);
    if exists (select from run r where r.workspace_id = p_workspace_id and r.run_id = v_task.newest_run_id
                  and _is_open(r.status)) then
      v_run_id := v_task.newest_run_id;
    elsif not v_task.draft and v_task.status <> 'pending' and v_task.attempts_used < v_task.max_attempts then
      v_run_id := _new_id('run');
      v_events := v_events || _add_runs(p_workspace_id, v_now, array[row(p_task_id, null,
        coalesce(p_channel, v_task.network_channel), p_metadata, p_key, v_task.available_at, 'approve', false,
        v_run_id, v_cause)::new_run], true);
    end if;
    perform _keep_key(p_workspace_id, v_cause, p_key, p_hash, 201, jsonb_build_object('run_id', v_run_id));
    offers := _settle_and_log(p_workspace_id, array[p_task_id], v_now, v_cause, 'task.approved', v_events);
  end if;
  select * into task_body, run_body, version from _task_run_answer(p_workspace_id, p_task_id, v_run_id);
end $$;

-- Leaves the gate closed; no run is touched.
create function reject_task(
  p_workspace_id text, p_cause jsonb, p_task_id text, p_reason text, out body text, out version int, out offers int)
language plpgsql as $$
declare
  v_now timestamptz;
  v_cause cause := _cause(p_cause);
  v_task task;
begin
  v_task := _lock_task(p_workspace_id, p_task_id);
  v_now := lease_now();
  perform _check_pending(v_task);
  offers := _settle_and_log(p_workspace_id, array[p_task_id], v_now, v_cause, 'task.rejected',
    _decide(p_workspace_id, v_now, v_cause, array[p_task_id], 'rejected', p_reason, false));
  select * into body, version from _task_answer(p_workspace_id, p_task_id);
end $$;

-- Does what the tasks say of approvals whose time is over, judged again under their locks: rejects them, or
-- reminds of them and comes back one timeout later. Busy tasks are left for the next pass.
create function expire_approvals(p_workspace_id text, p_tasks text[], out rejected int, out reminded int)
language plpgsql as $$
declare
  v_now timestamptz;
  v_cause cause := row('daemon', 'approvals', 'daemon', 'daemon.approvals', null, null, null)::cause;
  v_tasks text[];
  v_late text[];
  v_events new_event[];
  v_settled record;
begin
  v_tasks := array(select l.task_id from (select x from unnest(p_tasks) x order by x collate "C") x
    cross join lateral (select t.task_id from task t where t.workspace_id = p_workspace_id and t.task_id = x.x
      for no key update skip locked) l);
  v_now := lease_now();
  with judged as (
    select b.task_id, b.on_approval_timeout = 'reject' as rejects, b.approval_requested_at,
           b.approval_timeout_seconds, b.approval_due_at,
           t.approval_state = 'pending' and not t.draft and not t.canceled as waits, b.place
      from unnest(v_tasks) x (task_id)
      cross join lateral (select k.*, k.ctid as place from task_body k
        where k.workspace_id = p_workspace_id and k.task_id = x.task_id and k.approval_due_at <= v_now offset 0) b
      cross join lateral (select k.approval_state, k.draft, k.canceled from task k
        where k.workspace_id = p_workspace_id and k.task_id = x.task_id offset 0) t
  ), timed as (
    update task_body b
       set approval_due_at = case when j.waits then j.approval_due_at + make_interval(secs =>
             j.approval_timeout_seconds * (1 + floor(extract(epoch from v_now - j.approval_due_at)
                                                     / j.approval_timeout_seconds))) end
      from judged j where b.ctid = j.place and not (j.waits and j.rejects)
  )
  select array_agg(j.task_id order by j.task_id) filter (where j.rejects),
         array_agg(_event(v_cause, 'task.approval_overdue', j.task_id, null, jsonb_build_object(
           'approval_requested_at', _utc(j.approval_requested_at),
           'approval_timeout_seconds', j.approval_timeout_seconds)) order by j.task_id)
           filter (where not j.rejects)
    into v_late, v_events from judged j where j.waits;
  rejected := coalesce(cardinality(v_late), 0);
  reminded := coalesce(cardinality(v_events), 0);
  if rejected > 0 then
    v_events := coalesce(v_events, '{}')
             || _decide(p_workspace_id, v_now, v_cause, v_late, 'rejected', null, true);
    v_settled := _settle(p_workspace_id, v_late, v_now, array[v_cause], 'task.rejected');
    v_events := v_events || v_settled.events;
  end if;
  if v_events is not null then
    perform _log(p_workspace_id, v_now, v_events);
  end if;
end $$;
