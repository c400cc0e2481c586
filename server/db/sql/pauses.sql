-- Pauses. A pause stops claims and queueing in a whole subtree. Each task of it says by which task it is paused,
-- so that whether a run has an offer is seen in its own task, and a claim never looks for ancestors.

-- Says in a task (locked by the caller) and in all below it that are not paused themselves what pauses them now
-- (null: nothing). Level by level: lock the children of a level in one statement, parents first; whoever makes
-- a child, or resumes one, holds its parent, so none slips by. Answers which of them are ready: only
-- those may have an offer, or be queued.
create function _spread_pause(p_ws text, p_task_id text, p_by text, p_now timestamptz, out ready text[])
language plpgsql as $$
declare
  v_level text[] := array[p_task_id];
  v_places tid[] := array(select t.ctid from task t where t.workspace_id = p_ws and t.task_id = p_task_id);
  v_ready text[];
begin
  ready := '{}';
  while cardinality(v_level) > 0 loop
    if _are_many(cardinality(v_level)) then
      perform _plan_for_many();
    end if;
    with marked as (
      update task t
         set paused_by_task_id = p_by, updated_at = p_now,
             ready_at = case when t.status = 'ready' and p_by is null then p_now else t.ready_at end
        from unnest(v_places) x (place) where t.ctid = x.place
      returning t.task_id, t.status
    )
    select array_agg(m.task_id) into v_ready from marked m where m.status = 'ready';
    ready := ready || v_ready;
    select array_agg(c.task_id), array_agg(c.ctid) into v_level, v_places
      from (select c.task_id, c.ctid from task c
             where c.workspace_id = p_ws and c.parent_task_id = any (v_level)
               and c.paused_by_task_id is distinct from c.task_id
             order by c.task_id for no key update) c;
  end loop;
end $$;

create function _log_pause(
  p_ws text, p_now timestamptz, p_cause cause, p_task_id text, p_type text, p_was boolean, p_reason text,
  p_metadata jsonb, p_tasks text[]) returns int language plpgsql as $$
begin
  return _settle_and_log(p_ws, p_tasks, p_now, p_cause, p_type, array[_event(p_cause, p_type, p_task_id, null,
    jsonb_build_object('manual', true, 'actor_kind', p_cause.actor_kind, 'actor_id', p_cause.actor_ref,
      'previous_paused', p_was, 'paused', p_type = 'task.paused', 'reason', p_reason, 'metadata', p_metadata))]);
end $$;

-- Pauses a task and all below it: no claim takes their runs. Again: who, when and why are rewritten.
create function pause_task(
  p_workspace_id text, p_cause jsonb, p_task_id text, p_reason text, p_metadata jsonb,
  out body text, out version int, out offers int)
language plpgsql as $$
declare
  v_now timestamptz;
  v_cause cause := _cause(p_cause);
  v_task task;
  v_ready text[] := '{}';
begin
  v_task := _lock_task(p_workspace_id, p_task_id);
  v_now := lease_now();
  if _has_ended(v_task.status) then
    perform _refuse('task_already_terminal', jsonb_build_object('status', v_task.status));
  end if;
  if v_task.paused_by_task_id is distinct from p_task_id then
    v_ready := _spread_pause(p_workspace_id, p_task_id, p_task_id, v_now);
  end if;
  update task t set version = t.version + 1, updated_at = v_now
    where t.workspace_id = p_workspace_id and t.task_id = p_task_id;
  update task_body b set paused_by = v_cause.actor_kind || ':' || v_cause.actor_ref, paused_at = v_now,
                         paused_reason = p_reason
    where b.workspace_id = p_workspace_id and b.task_id = p_task_id;
  -- What was paused by an ancestor has no offer to lose.
  offers := _log_pause(p_workspace_id, v_now, v_cause, p_task_id, 'task.paused',
    coalesce(v_task.paused_by_task_id = p_task_id, false), p_reason, p_metadata,
    case when v_task.paused_by_task_id is null then v_ready else '{}' end);
  select * into body, version from _task_answer(p_workspace_id, p_task_id);
end $$;

-- Ends the pause of a task; an ancestor's stays. What nothing pauses any more is queued and offered again.
create function resume_task(
  p_workspace_id text, p_cause jsonb, p_task_id text, p_reason text, p_metadata jsonb,
  out body text, out version int, out offers int)
language plpgsql as $$
declare
  v_now timestamptz;
  v_cause cause := _cause(p_cause);
  v_task task;
  v_by text;
  v_ready text[];
begin
  -- The parent first: what pauses it may not change meanwhile.
  perform 1 from task p where p.workspace_id = p_workspace_id and p.task_id = (
    select t.parent_task_id from task t where t.workspace_id = p_workspace_id and t.task_id = p_task_id) for share;
  v_task := _lock_task(p_workspace_id, p_task_id);
  v_now := lease_now();
  offers := 0;
  if v_task.paused_by_task_id = p_task_id then
    v_by := (select p.paused_by_task_id from task p
              where p.workspace_id = p_workspace_id and p.task_id = v_task.parent_task_id);
    v_ready := _spread_pause(p_workspace_id, p_task_id, v_by, v_now);
    update task t set version = t.version + 1
      where t.workspace_id = p_workspace_id and t.task_id = p_task_id;
    update task_body b set paused_by = null, paused_at = null, paused_reason = null
      where b.workspace_id = p_workspace_id and b.task_id = p_task_id;
    offers := _log_pause(p_workspace_id, v_now, v_cause, p_task_id, 'task.resumed', true, p_reason, p_metadata,
                         case when v_by is null then v_ready else '{}' end);
  end if;
  select * into body, version from _task_answer(p_workspace_id, p_task_id);
end $$;
