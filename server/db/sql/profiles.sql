-- What a task demands of its worker, changed and taken away by itself; made after schema.sql.

-- Locks a task whose profile is to change, which it may not while somebody works by it.
create function _lock_profile(p_ws text, p_task_id text) returns task language plpgsql as $$
declare
  v_task task := _lock_task(p_ws, p_task_id);
begin
  if v_task.current_run_id is not null then
    perform _refuse('profile_locked', jsonb_build_object('run_id', v_task.current_run_id));
  end if;
  return v_task;
end $$;

-- What follows: the queued run moves to the lane of the new demands, and its offer with it. Answers how many
-- runs came into the queue.
create function _follow_profile(p_ws text, p_task task, p_now timestamptz, p_cause cause, p_event text, p_profile jsonb)
returns int language plpgsql as $$
begin
  perform _move_lane(p_ws, p_task, true);
  return _settle_and_log(p_ws, array[p_task.task_id], p_now, p_cause, p_event, array[_event(p_cause, p_event,
    p_task.task_id, null, jsonb_build_object('coordinator_mode', p_profile -> 'coordinator' -> 'mode',
      'worker_mode', p_profile -> 'worker' -> 'mode', 'sandbox_mode', p_profile -> 'sandbox' -> 'mode',
      'profile_sha256', encode(sha256(convert_to(p_profile::text, 'UTF8')), 'hex')))]);
end $$;

-- Replaces the whole profile. One that is stored already leaves no trace.
create function put_profile(
  p_workspace_id text, p_cause jsonb, p_task_id text, p_profile jsonb, out body text, out offers int)
language plpgsql as $$
declare
  v_now timestamptz;
  v_task task;
  v_profile jsonb := p_profile - array['task_id', 'created_at', 'updated_at'];
begin
  v_task := _lock_profile(p_workspace_id, p_task_id);
  v_now := lease_now();
  offers := 0;
  insert into execution_profile as e (workspace_id, task_id, profile, created_at, updated_at)
  values (p_workspace_id, p_task_id, v_profile, v_now, v_now)
  on conflict (workspace_id, task_id) do update set profile = excluded.profile, updated_at = v_now
    where e.profile <> excluded.profile;
  if found then
    offers := _follow_profile(p_workspace_id, v_task, v_now, _cause(p_cause),
                              'task.execution_profile_updated', v_profile);
  end if;
  select json_build_object('profile', w.body)::text into body from profile_wire w
   where w.workspace_id = p_workspace_id and w.task_id = p_task_id;
end $$;

create function delete_profile(p_workspace_id text, p_cause jsonb, p_task_id text, out offers int)
language plpgsql as $$
declare
  v_task task := _lock_task(p_workspace_id, p_task_id);
begin
  if not exists (select from execution_profile e
      where e.workspace_id = p_workspace_id and e.task_id = p_task_id) then
    perform _refuse('profile_not_found', jsonb_build_object('id', p_task_id));
  end if;
  v_task := _lock_profile(p_workspace_id, p_task_id);
  delete from execution_profile e where e.workspace_id = p_workspace_id and e.task_id = p_task_id;
  offers := _follow_profile(p_workspace_id, v_task, lease_now(), _cause(p_cause),
                            'task.execution_profile_deleted', null);
end $$;
