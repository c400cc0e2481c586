-- What a session is told at once, made after wire.sql.

-- Whether an event may tell the holder of a lease something that it did not do itself. An agent ends leases of
-- its own only, unless an operator forces it; an operator who acts as an agent ends any claim by hand.
create function _is_signal(p_type text, p_actor_kind text, p_origin_ref text, p_payload jsonb) returns boolean
language sql immutable as $$
  select p_type in ('task.run_canceled', 'task.run_lease_expired', 'task.run_operator_forced_fail',
                    'task.paused', 'task.resumed', 'scheduler.paused', 'scheduler.resumed')
      or p_type in ('task.run_completed', 'task.run_failed', 'task.run_released')
         and (p_actor_kind <> 'agent_session' or p_payload ->> 'manual' = 'true'
              or p_origin_ref in ('tasks.complete_run', 'tasks.fail_run'))
$$;

-- What a late call of the lease's holder would be refused with.
create function _loss_code(p_type text) returns text language sql immutable as $$
  select case p_type when 'task.run_canceled' then 'run_canceled'
                     when 'task.run_lease_expired' then 'lease_expired'
                     when 'task.run_released' then 'lease_revoked'
                     else 'task_run_already_terminal' end
$$;

-- A task and those above it, itself first.
create function _upwards(p_ws text, p_task_id text) returns setof text language sql stable as $$
  with recursive up as (
    select t.task_id, t.parent_task_id from task t where t.workspace_id = p_ws and t.task_id = p_task_id
    union all
    select t.task_id, t.parent_task_id from up u
      cross join lateral (select k.task_id, k.parent_task_id from task k
        where k.workspace_id = p_ws and k.task_id = u.parent_task_id offset 0) t
  )
  select u.task_id from up u
$$;

-- What these events tell these sessions: leases that ended without their doing, pauses of what they hold
-- and of the scheduler.
create function _signals(p_ws text, p_sessions text[], p_after bigint, p_upto bigint)
returns table (sequence bigint, session_id text, name text, data json) language sql stable as $$
  with signal as materialized (
    select e.* from event e
     where e.workspace_id = p_ws and e.sequence > p_after and e.sequence <= p_upto
       and _is_signal(e.event_type, e.actor_kind, e.origin_ref, e.payload)
  )
  select e.sequence, l.session_id, 'run_canceled', json_build_object(
           'run_id', e.run_id, 'task_id', e.task_id, 'fence', l.fence, 'code', _loss_code(e.event_type),
           'reason', coalesce(e.payload ->> 'reason', e.payload ->> 'error'))
    from signal e
    cross join lateral (select k.session_id, k.fence, k.ended_at from lease k
      where k.workspace_id = p_ws and k.run_id = e.run_id and k.fence = (e.payload ->> 'fence')::bigint
      offset 0) l
   where l.session_id = any (p_sessions) and l.ended_at = e.at
     and not (e.event_type in ('task.run_completed', 'task.run_failed') and e.actor_kind = 'agent_session'
              and e.actor_ref = l.session_id)
  union all
  select e.sequence, l.session_id, 'paused', json_build_object(
           'task_id', l.task_id, 'run_id', l.run_id, 'paused', t.body -> 'effective_paused',
           'paused_by_task_id', t.body -> 'paused_by_task_id', 'scope', 'task')
    from signal e
    cross join lateral (select k.session_id, k.task_id, k.run_id from lease k
      where k.workspace_id = p_ws and k.session_id = any (p_sessions) and k.ended_at is null offset 0) l
    cross join lateral (select w.body from task_reference_wire w
      where w.workspace_id = p_ws and w.task_id = l.task_id offset 0) t
   where e.event_type in ('task.paused', 'task.resumed') and e.task_id in (select _upwards(p_ws, l.task_id))
  union all
  select e.sequence, s.session_id, 'paused', json_build_object(
           'task_id', null, 'run_id', null, 'paused', _scheduler_paused(p_ws), 'paused_by_task_id', null,
           'scope', e.payload -> 'scope')
    from signal e cross join unnest(p_sessions) s (session_id)
   where e.event_type in ('scheduler.paused', 'scheduler.resumed')
     and e.payload -> 'paused' <> e.payload -> 'previous_paused'
  order by 1
$$;
