-- Drafts: tasks that nobody works on before they are published.

-- The drafts below a task, parents first.
create function _drafts_below(p_ws text, p_task_id text) returns text[] language plpgsql as $$
begin
  return array(
    with recursive below (task_id, status, depth) as (
      select t.task_id, t.status, t.depth from task t
       where t.workspace_id = p_ws and t.parent_task_id = p_task_id
      union all
      select t.task_id, t.status, t.depth
        from below b
        cross join lateral (select k.task_id, k.status, k.depth from task k
          where k.workspace_id = p_ws and k.parent_task_id = b.task_id offset 0) t
    ) select b.task_id from below b where b.status = 'draft' order by b.depth, b.task_id);
end $$;

-- Makes a task of a draft and queues its run; refused while a gate is closed. p_subtree: the drafts below come
-- along, and whatever has a closed gate waits for it.
create function publish_task(
  p_workspace_id text, p_cause jsonb, p_role text, p_task_id text, p_subtree boolean, p_channel text,
  p_metadata json, p_key text, p_hash text,
  out task_body text, out run_body text, out version int, out replayed boolean, out offers int)
language plpgsql as $$
declare
  v_now timestamptz;
  v_cause cause := _cause(p_cause);
  v_task task;
  v_kept idempotency_key;
  v_run_id text := _new_id('run');
  v_tasks text[] := array[p_task_id];
  v_events new_event[];
begin
  v_kept := _take_key(p_workspace_id, v_cause, p_key, p_hash);
  replayed := v_kept.key is not null;
  offers := 0;
  if replayed then
    v_run_id := v_kept.ids ->> 'run_id';
  else
    v_task := _lock_task(p_workspace_id, p_task_id);
    if p_subtree then
      v_tasks := v_tasks || _drafts_below(p_workspace_id, p_task_id);
      if _are_many(cardinality(v_tasks)) then
        perform _plan_for_many();
      end if;
      perform _lock_tasks(p_workspace_id, v_tasks);
    end if;
    v_now := lease_now();
    perform _check_own(p_workspace_id, v_cause, p_role, v_task, false);
    if v_task.canceled then
      perform _refuse('task_canceled', jsonb_build_object('closed_at', _utc(v_task.closed_at)));
    elsif v_task.status <> 'draft' then
      perform _refuse('task_not_draft', jsonb_build_object('status', v_task.status));
    elsif not p_subtree then
      perform _check_gates(v_task);
    end if;

    -- Looked at again: a draft below may have been published or canceled before its lock was had.
    with published as (
      update task t set draft = false, version = t.version + 1, updated_at = v_now
        from unnest(v_tasks) x (task_id)
        cross join lateral (select k.ctid from task k where k.workspace_id = p_workspace_id
          and k.task_id = x.task_id and k.status = 'draft' offset 0) k
       where t.ctid = k.ctid
      returning t.task_id
    )
    select array_agg(p.task_id), array_agg(_event(v_cause, 'task.published', p.task_id, null,
             '{"previous_status": "draft"}') order by p.task_id)
      into v_tasks, v_events from published p;
    perform _time_approvals(p_workspace_id, v_tasks);
    v_events := v_events || _add_runs(p_workspace_id, v_now, array(
      select row(t.task_id, null, case when t.task_id = p_task_id and p_channel is not null then p_channel
                   else t.network_channel end, case when t.task_id = p_task_id then p_metadata end,
                 case when t.task_id = p_task_id then p_key end, t.available_at, 'publish', false,
                 case when t.task_id = p_task_id then v_run_id end, v_cause)::new_run
        from unnest(v_tasks) x (task_id)
        cross join lateral (select k.* from task k
          where k.workspace_id = p_workspace_id and k.task_id = x.task_id offset 0) t), true);
    perform _keep_key(p_workspace_id, v_cause, p_key, p_hash, 200, jsonb_build_object('run_id', v_run_id));
    offers := _settle_and_log(p_workspace_id, v_tasks, v_now, v_cause, 'task.published', v_events);
  end if;
  select * into task_body, run_body, version from _task_run_answer(p_workspace_id, p_task_id, v_run_id);
end $$;
