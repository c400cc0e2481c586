-- Inspect: a task or run as an operator looks at it when something seems wrong; made after observe.sql.

create function _inspected_run(p_run run, p_lease lease, p_error text, p_now timestamptz) returns json
language sql stable as $$
  select json_build_object(
    'run_id', p_run.run_id, 'task_id', p_run.task_id, 'status', p_run.status, 'attempt', p_run.attempt,
    'retries', p_run.attempt - 1,
    'claim_token_hash_truncated', left(encode(p_lease.token_hash, 'hex'), 8), 'fence', p_run.fence,
    'lease_until', case when _is_live(p_lease) then _utc(p_lease.lease_until) end,
    'heartbeat_at', case when _is_live(p_lease) then _utc(p_lease.heartbeat_at) end,
    'heartbeat_age_seconds', case when _is_live(p_lease)
      then greatest(0, floor(extract(epoch from p_now - p_lease.heartbeat_at)))::bigint end,
    'lease_expiries', p_run.lease_expiries, 'last_error_summary', left(p_error, 160),
    'failure_kind', p_run.failure_kind,
    'bound_session_id', case when _is_held(p_lease) then p_lease.session_id end,
    'previous_run_id', p_run.previous_run_id, 'queued_at', _utc(p_run.queued_at),
    'started_at', _utc(p_run.started_at), 'ended_at', _utc(p_run.ended_at))
$$;

create function _inspected_event(p_event event) returns json language sql stable as $$
  select json_build_object(
    'id', _event_id(p_event.workspace_id, p_event.sequence, p_event.at), 'type', p_event.event_type,
    'session_id', p_event.payload ->> 'session_id', 'task_id', p_event.task_id, 'run_id', p_event.run_id,
    'outcome', coalesce(p_event.payload ->> 'outcome', p_event.payload ->> 'status',
                        p_event.payload ->> 'task_status'),
    'summary', left(coalesce(p_event.payload ->> 'error', p_event.payload ->> 'reason',
                             p_event.payload ->> 'title', p_event.event_type), 160),
    'timestamp', _utc(p_event.at))
$$;

create function _inspected_scheduler(p_ws text) returns json language sql stable as $$
  select json_build_object(
    'paused', p.workspace_id is not null, 'paused_by', p.paused_by, 'paused_at', _utc(p.paused_at),
    'reason', p.paused_reason, 'updated_at', _utc(coalesce(p.paused_at, _last_resume(p_ws))))
    from (values (1)) one left join _pausing(p_ws) p on true
$$;

-- The session that a run is bound to; one that is not stored any more is missing.
create function _inspected_session(p_ws text, p_task_id text, p_session_id text, p_since timestamptz) returns json
language sql stable as $$
  select json_build_object(
    'session_id', p_session_id, 'state', x.state, 'agent_name', s.agent_name,
    'provider_name', (select p.profile -> 'worker' ->> 'provider' from execution_profile p
       where p.workspace_id = p_ws and p.task_id = p_task_id),
    'workspace_id', p_ws, 'started_at', _utc(s.created_at), 'last_activity_at', _utc(s.updated_at),
    'stop_reason', case when x.state = 'stopped' then 'unseen' end, 'failure_kind', null)
    from (select p_session_id as id) asked
    left join agent_session s on s.workspace_id = p_ws and s.session_id = asked.id
    cross join lateral (select case when s.session_id is null then 'missing'
                                    when s.updated_at > p_since then 'active' else 'stopped' end as state) x
   where asked.id is not null
$$;

-- Agents that might come for a run: the sessions seen lately, the latest first.
create function _active_sessions(p_ws text, p_since timestamptz) returns json language sql stable as $$
  select coalesce(json_agg(json_build_object('session_id', s.session_id, 'agent_name', s.agent_name,
           'channel', s.channel, 'capabilities', s.capabilities)), '[]')
    from (select k.* from agent_session k where k.workspace_id = p_ws and k.updated_at > p_since
           order by k.updated_at desc limit 1000) s
$$;

-- All that inspect is made of, at one instant. p_run_id: the run that is asked about; null: that of the task.
create function read_inspection(p_workspace_id text, p_task_id text, p_run_id text, p_session_ttl float8)
returns text language plpgsql stable as $$
declare
  v_now timestamptz := lease_now();
  v_since timestamptz := v_now - make_interval(secs => p_session_ttl);
  v_task task;
  v_run run;
  v_lease lease;
  v_settings jsonb;
  v_free boolean;
  v_since_queued interval;
begin
  select r.* into v_run from run r where r.workspace_id = p_workspace_id and r.run_id = p_run_id;
  select t.* into v_task from task t
   where t.workspace_id = p_workspace_id and t.task_id = coalesce(v_run.task_id, p_task_id);
  if v_task.task_id is null then
    return null;
  end if;
  if v_run.run_id is null then
    select r.* into v_run from run r where r.workspace_id = p_workspace_id and r.run_id = v_task.newest_run_id;
  end if;
  select l.* into v_lease from lease l
   where l.workspace_id = p_workspace_id and l.run_id = v_run.run_id and l.fence = v_run.fence;
  select w.settings into v_settings from workspace w where w.workspace_id = p_workspace_id;
  v_free := v_run.run_id = v_task.newest_run_id and not exists (select from _gates(v_task, v_run, v_now));
  v_since_queued := v_now - greatest(v_run.available_at, v_task.ready_at, _last_resume(p_workspace_id));
  return json_build_object(
    'shown', json_build_object(
      'target', case when p_run_id is null then 'task' else 'run' end,
      'task', (select s.body from task_summary_wire s
         where s.workspace_id = p_workspace_id and s.task_id = v_task.task_id),
      'current_run', case when v_run.run_id is not null then _inspected_run(v_run, v_lease, (select b.error
         from run_body b where b.workspace_id = p_workspace_id and b.run_id = v_run.run_id), v_now) end,
      'recent_runs', (select coalesce(json_agg(_inspected_run(x.run, x.lease, x.error, v_now)
           order by (x.run).attempt desc), '[]')
         from (select r as run, l as lease, b.error from run r
           left join lease l on l.workspace_id = r.workspace_id and l.run_id = r.run_id and l.fence = r.fence
           left join run_body b on b.workspace_id = r.workspace_id and b.run_id = r.run_id
          where r.workspace_id = p_workspace_id and r.task_id = v_task.task_id
          order by r.attempt desc limit 5) x),
      'bound_session', case when _is_held(v_lease) then
         _inspected_session(p_workspace_id, v_task.task_id, v_lease.session_id, v_since) end,
      'recent_events', (select coalesce(json_agg(_inspected_event(x.event) order by (x.event).sequence desc), '[]')
         from (select e as event from event e
                where e.workspace_id = p_workspace_id and e.task_id = v_task.task_id
                order by e.sequence desc limit 10) x),
      'scheduler', _inspected_scheduler(p_workspace_id),
      'as_of', _utc(v_now)),
    'run_id', v_run.run_id, 'run_status', v_run.status, 'attempt', v_run.attempt,
    'lease_expiries', v_run.lease_expiries, 'newest', v_run.run_id = v_task.newest_run_id,
    'task_id', v_task.task_id, 'task_status', v_task.status, 'approval_state', v_task.approval_state,
    'open_run', exists (select from run r where r.workspace_id = p_workspace_id
       and r.run_id = v_task.newest_run_id and _is_open(r.status)),
    'review', (select r.review from run r where r.workspace_id = p_workspace_id
       and r.run_id = v_task.newest_run_id and not v_task.canceled),
    'lease_until', case when _is_live(v_lease) then _utc(v_lease.lease_until) end,
    'heartbeat_at', case when _is_live(v_lease) then _utc(v_lease.heartbeat_at) end,
    'stuck', _is_stuck(v_run.status, v_lease, v_now),
    'stale', coalesce(_is_leased(v_run.status) and v_lease.lease_until < v_now, false),
    'orphan', coalesce(_is_leased(v_run.status) and v_lease.session_id is not null and not exists (
       select from agent_session s where s.workspace_id = p_workspace_id and s.session_id = v_lease.session_id
          and s.updated_at > v_since), false),
    'free', coalesce(v_free, false),
    'long_queued', coalesce(v_free and v_since_queued >= make_interval(
       secs => _setting(v_settings, 'stranded_seconds', 300)), false),
    'starved', coalesce(v_free and v_since_queued >= make_interval(
       secs => _setting(v_settings, 'starvation_seconds', 120)), false),
    'spent', _is_open(v_run.status) and _is_spent(v_task),
    'demands', (select n.demands from lane n
       where n.workspace_id = p_workspace_id and n.lane_id = v_run.lane_id),
    'sessions', case when v_free then _active_sessions(p_workspace_id, v_since) else '[]' end)::text;
end $$;
