-- The scheduler: whether runs and reviews are handed out, in one workspace or in all ('*'); made after wire.sql.

-- The switch that stops the claims of a workspace: its own, else that of all. No row: they go on.
create function _pausing(p_ws text) returns setof scheduler language sql stable as $$
  select s.* from scheduler s
   where s.workspace_id in (p_ws, '*') and s.paused_at is not null order by s.workspace_id desc limit 1
$$;

-- Whether claims are stopped. For a claim to go by, asked in a statement of its own after it has the log lock:
-- whoever pauses holds that lock too, so no claim commits behind an answered pause. (The claim of a run asks
-- the same in a statement that it needs anyway.)
create function _scheduler_paused(p_ws text) returns boolean language plpgsql stable as $$
begin
  return exists (select from scheduler s where s.workspace_id in (p_ws, '*') and s.paused_at is not null);
end $$;

create function _last_resume(p_ws text) returns timestamptz language sql stable as $$
  select max(s.resumed_at) from scheduler s where s.workspace_id in (p_ws, '*')
$$;

create function _scope(p_ws text) returns text language sql stable as $$
  select case when p_ws = '*' then 'all' else 'workspace' end
$$;

-- The workspaces that a switch is over.
create function _under(p_ws text) returns text[] language sql stable as $$
  select array(select w.workspace_id from workspace w where p_ws = '*' or w.workspace_id = p_ws)
$$;

-- A run that waits since then, or longer, starves. Null: none does, for claims are stopped or have just gone on.
create function _starves_since(p_ws text, p_settings jsonb, p_now timestamptz) returns timestamptz
language sql stable as $$
  select case when bool_and(s.paused_at is null) and coalesce(max(s.resumed_at) <= x.since, true) then x.since end
    from (select p_now - make_interval(secs => _setting(p_settings, 'starvation_seconds', 120)) as since) x
    join scheduler s on s.workspace_id in (p_ws, '*')
   group by x.since
$$;

create function _active_claims(p_workspaces text[]) returns bigint language plpgsql stable as $$
begin
  return (select count(*) from lease l where l.ended_at is null and l.workspace_id = any (p_workspaces));
end $$;

-- The numbers of the scheduler, counted in thin tables and partial indexes: a queued run has an offer or a due_at,
-- and both with a concurrency key.
create function _scheduler_numbers(p_workspaces text[], p_now timestamptz) returns json language plpgsql stable as $$
declare
  v_held bigint := (select count(*) from run r where r.workspace_id = any (p_workspaces) and r.due_at is not null);
  v_offers record;
begin
  select count(*) filter (where o.concurrency_key is null) as waiting,
         count(*) filter (where o.waiting_since <= x.since) as starved into v_offers
    from workspace w
    cross join lateral (select _starves_since(w.workspace_id, w.settings, p_now) as since offset 0) x
    join offer o on o.workspace_id = w.workspace_id
   where w.workspace_id = any (p_workspaces);
  return json_build_object(
    'active_claim_count', _active_claims(p_workspaces), 'queued_run_count', v_held + v_offers.waiting,
    'paused_task_count', (select count(*) from task_body b
       where b.workspace_id = any (p_workspaces) and b.paused_at is not null),
    'starved_run_count', v_offers.starved,
    'needs_attention_run_count', (select count(*) from run r where r.workspace_id = any (p_workspaces)
       and r.quarantined_at is not null and r.status = 'needs_attention'),
    'as_of', _utc(p_now));
end $$;

-- What a SchedulerStatus is.
create function _scheduler_status(p_ws text) returns json language plpgsql stable as $$
begin
  return (select _merge(json_build_object(
      'paused', p.workspace_id is not null, 'paused_by', p.paused_by, 'paused_at', _utc(p.paused_at),
      'paused_reason', p.paused_reason,
      'paused_scope', case when p.workspace_id is not null then _scope(p.workspace_id) end),
    _scheduler_numbers(_under(p_ws), lease_now())) from (values (1)) one left join _pausing(p_ws) p on true);
end $$;

create function read_scheduler(p_workspace_id text) returns text language plpgsql stable as $$
begin
  return _scheduler_status(p_workspace_id);
end $$;

-- The switch of a workspace or of all, locked.
create function _lock_switch(p_ws text) returns scheduler language plpgsql as $$
declare
  v_switch scheduler;
begin
  insert into scheduler (workspace_id) values (p_ws) on conflict (workspace_id) do nothing;
  select * into v_switch from scheduler s where s.workspace_id = p_ws for update;
  return v_switch;
end $$;

-- Takes the log locks of all workspaces under a switch. One that is held for long refuses the call rather than
-- make all others wait: lock_timeout of the callers.
create function _lock_logs(p_workspaces text[]) returns void language plpgsql as $$
begin
  perform 1 from workspace_lock l where l.workspace_id = any (p_workspaces) and l.name = 'log'
    order by l.workspace_id for no key update;
end $$;

-- Writes an event of the scheduler into each of these logs, whose locks are held. As _log(), but for many
-- workspaces at once and about no task.
create function _log_scheduler(
  p_workspaces text[], p_now timestamptz, p_cause cause, p_type text, p_scope text, p_payload jsonb) returns void
language plpgsql as $$
begin
  if _are_many(cardinality(p_workspaces)) then
    perform _plan_for_many();
  end if;
  insert into event (workspace_id, sequence, event_type, actor_kind, actor_ref, origin_kind, origin_ref, payload, at,
                     open_tasks)
  select w.workspace_id, coalesce(x.sequence, 0) + 1, p_type, p_cause.actor_kind, p_cause.actor_ref,
         p_cause.origin_kind, p_cause.origin_ref,
         jsonb_build_object('manual', true, 'actor_kind', p_cause.actor_kind, 'actor_id', p_cause.actor_ref,
           'scope', p_scope, 'reason', null, 'active_claims', null, 'remaining_claims', null, 'timed_out', null,
           'started_at', null, 'completed_at', null) || p_payload,
         p_now, coalesce(x.open_tasks, 0)
    from unnest(p_workspaces) w (workspace_id)
    left join lateral (select e.sequence, e.open_tasks from event e
      where e.workspace_id = w.workspace_id order by e.sequence desc limit 1) x on true;
end $$;

-- Stops the claims under a switch that is locked, and so are the logs.
create function _stop_claims(
  p_switch scheduler, p_workspaces text[], p_now timestamptz, p_cause cause, p_reason text) returns void
language plpgsql as $$
begin
  update scheduler s set paused_by = p_cause.actor_kind || ':' || p_cause.actor_ref, paused_at = p_now,
                         paused_reason = p_reason
   where s.workspace_id = p_switch.workspace_id;
  perform _log_scheduler(p_workspaces, p_now, p_cause, 'scheduler.paused', _scope(p_switch.workspace_id),
    jsonb_build_object('reason', p_reason, 'previous_paused', p_switch.paused_at is not null, 'paused', true));
end $$;

-- No claim commits behind the answer. Again: who, when and why are rewritten.
create function pause_scheduler(p_workspace_id text, p_cause jsonb, p_reason text) returns text
language plpgsql set lock_timeout = '3s' as $$
declare
  v_switch scheduler := _lock_switch(p_workspace_id);
  v_under text[] := _under(p_workspace_id);
begin
  perform _lock_logs(v_under);
  perform _stop_claims(v_switch, v_under, lease_now(), _cause(p_cause), p_reason);
  return _scheduler_status(p_workspace_id);
end $$;

-- Lets claims go on, as far as this switch stops them; offers: for how many claims to look at once, at most.
create function resume_scheduler(p_workspace_id text, p_cause jsonb, p_reason text, out body text, out offers int)
language plpgsql set lock_timeout = '3s' as $$
declare
  v_now timestamptz;
  v_switch scheduler := _lock_switch(p_workspace_id);
  v_under text[] := _under(p_workspace_id);
begin
  offers := 0;
  if v_switch.paused_at is not null then
    perform _lock_logs(v_under);
    v_now := lease_now();
    update scheduler s set paused_by = null, paused_at = null, paused_reason = null, resumed_at = v_now,
                           drain_started_at = null, drain_completed_at = null
     where s.workspace_id = p_workspace_id;
    perform _log_scheduler(v_under, v_now, _cause(p_cause), 'scheduler.resumed', _scope(p_workspace_id),
      jsonb_build_object('reason', p_reason, 'previous_paused', true, 'paused', false));
    offers := (select count(*) from (select from offer o where o.workspace_id = any (v_under) limit 1000) o);
  end if;
  body := _scheduler_status(p_workspace_id);
end $$;

-- Begins a drain, or finds the one that goes on: since when. Claims are stopped from here on.
create function start_drain(p_workspace_id text, p_cause jsonb, p_reason text) returns timestamptz
language plpgsql set lock_timeout = '3s' as $$
declare
  v_now timestamptz;
  v_cause cause := _cause(p_cause);
  v_switch scheduler := _lock_switch(p_workspace_id);
  v_under text[] := _under(p_workspace_id);
begin
  if v_switch.drain_started_at is not null and v_switch.drain_completed_at is null then
    return v_switch.drain_started_at;
  end if;
  perform _lock_logs(v_under);
  v_now := lease_now();
  if v_switch.paused_at is null then
    perform _stop_claims(v_switch, v_under, v_now, v_cause, p_reason);
  end if;
  update scheduler s set drain_started_at = v_now, drain_completed_at = null where s.workspace_id = p_workspace_id;
  perform _log_drain(p_workspace_id, v_under, v_now, v_cause, 'scheduler.drain_started', jsonb_build_object(
    'reason', p_reason, 'started_at', _utc(v_now), 'previous_paused', v_switch.paused_at is not null));
  return v_now;
end $$;

-- The events of a drain tell a workspace's claims, but nobody those of others.
create function _log_drain(
  p_ws text, p_workspaces text[], p_now timestamptz, p_cause cause, p_type text, p_payload jsonb) returns void
language plpgsql as $$
declare
  v_active bigint := case when p_ws <> '*' then _active_claims(p_workspaces) end;
begin
  perform _log_scheduler(p_workspaces, p_now, p_cause, p_type, _scope(p_ws), jsonb_build_object('paused', true,
    'previous_paused', true, 'active_claims', v_active, 'remaining_claims', v_active) || p_payload);
end $$;

-- How a drain stands; completes it once nothing is claimed any more. over: there is nothing more to wait for, since
-- it was completed, or because somebody resumed. One that another drain followed ends with that: only its completion
-- or a resume ended it, and behind both the other one waits for the same.
create function look_at_drain(
  p_workspace_id text, p_cause jsonb, p_started_at timestamptz, out body text, out over boolean)
language plpgsql set lock_timeout = '3s' as $$
declare
  v_now timestamptz;
  v_switch scheduler := _lock_switch(p_workspace_id);
  v_under text[] := _under(p_workspace_id);
  v_active bigint := _active_claims(v_under);
  v_goes_on boolean := coalesce(v_switch.drain_started_at >= p_started_at, false);
begin
  if v_goes_on and v_switch.drain_completed_at is null and v_active = 0 then
    perform _lock_logs(v_under);
    v_now := lease_now();
    update scheduler s set drain_completed_at = v_now where s.workspace_id = p_workspace_id
    returning * into v_switch;
    perform _log_drain(p_workspace_id, v_under, v_now, _cause(p_cause), 'scheduler.drain_completed',
      jsonb_build_object('started_at', _utc(v_switch.drain_started_at), 'completed_at', _utc(v_now), 'timed_out', false,
        'remaining_claims', 0));
  end if;
  over := not v_goes_on or v_switch.drain_completed_at is not null;
  body := json_build_object(
    'scheduler', _scheduler_status(p_workspace_id), 'completed', v_goes_on and over, 'timed_out', not over,
    'remaining_claims', v_active, 'started_at', _utc(p_started_at),
    'completed_at', case when v_goes_on then _utc(v_switch.drain_completed_at) end);
end $$;
