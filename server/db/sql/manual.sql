-- Runs by hand: people claim one run, and end it under that claim; made after gates.sql.

-- Makes or renews a session that works on a run by hand; answers whose it is. No name given: its own.
create function _bind_session(p_ws text, p_session_id text, p_agent_name text) returns text
language plpgsql as $$
declare
  v_agent text := coalesce(p_agent_name, (select s.agent_name from agent_session s
    where s.workspace_id = p_ws and s.session_id = p_session_id));
  v_owner text;
begin
  if p_session_id is null then
    return p_agent_name;
  elsif v_agent is null then
    perform _refuse('identity_required', '{"header": "X-Agent-Name"}');
  end if;
  insert into agent_session as s (workspace_id, session_id, agent_name) values (p_ws, p_session_id, v_agent)
    on conflict (workspace_id, session_id) do update set updated_at = lease_now()
  returning s.agent_name into v_owner;
  if v_owner <> v_agent then
    perform _refuse('identity_mismatch', jsonb_build_object('session_id', p_session_id));
  end if;
  return v_agent;
end $$;

-- A run as it is now with a lease and its token, derived again. The lease of that fence: who holds the run now has
-- one of its own.
create function _lease_answer(
  p_ws text, p_run_id text, p_fence bigint, p_outer bytea, p_inner bytea, p_outer_previous bytea,
  p_inner_previous bytea) returns text language plpgsql as $$
begin
  return (select json_build_object('run', w.claimed_body, 'lease', _merge(
                   _lease_json(r, l, w.coordination_channel), json_build_object('claim_token',
                     _token_again(p_ws, p_run_id, p_fence, l.token_hash, p_outer, p_inner, p_outer_previous,
                                  p_inner_previous))))::text
            from run_wire w
            join run r on r.workspace_id = p_ws and r.run_id = p_run_id
            join lease l on l.workspace_id = p_ws and l.run_id = p_run_id and l.fence = p_fence
           where w.workspace_id = p_ws and w.run_id = p_run_id);
end $$;

-- Claims this very run: what the task waits for holds, what it demands of a claimer does not.
create function claim_run(
  p_workspace_id text, p_cause jsonb, p_run_id text, p_session_id text, p_lease_seconds int, p_key text,
  p_hash text, p_outer bytea, p_inner bytea, p_outer_previous bytea, p_inner_previous bytea,
  out body text, out replayed boolean, out offers int)
language plpgsql as $$
declare
  v_now timestamptz;
  v_cause cause := _cause(p_cause);
  v_kept idempotency_key;
  v_task task;
  v_run run;
  v_agent text;
  v_offer tid;
  v_place tid;
  v_claim json;
begin
  v_kept := _take_key(p_workspace_id, v_cause, p_key, p_hash);
  replayed := v_kept.key is not null;
  offers := 0;
  if replayed then
    body := _lease_answer(p_workspace_id, p_run_id, (v_kept.ids ->> 'fence')::bigint, p_outer, p_inner,
                          p_outer_previous, p_inner_previous);
    if body is null then
      perform _refuse('run_not_found', jsonb_build_object('id', p_run_id));
    end if;
    return;
  end if;

  -- The task first; the run belongs to it for ever.
  select t.* into v_task from _run(p_workspace_id, p_run_id) r
    cross join lateral (select k.* from task k
      where k.workspace_id = p_workspace_id and k.task_id = r.task_id for no key update) t;
  select * into v_run from run r
   where r.workspace_id = p_workspace_id and r.run_id = p_run_id for no key update;
  if not found then
    perform _refuse('run_not_found', jsonb_build_object('id', p_run_id));
  end if;
  v_now := lease_now();
  if v_run.status <> 'queued' then
    perform _refuse('run_not_queued', jsonb_build_object('run_id', p_run_id, 'run_status', v_run.status));
  end if;
  -- What is due has its offer now, and what has none may not be claimed.
  perform _offer(p_workspace_id, array[v_run.task_id], v_now);
  if v_task.concurrency_key is not null then
    perform _offer_ahead(p_workspace_id, p_run_id, array[v_run.lane_id], 0);
  end if;
  select o.ctid into v_offer from offer o
   where o.workspace_id = p_workspace_id and o.run_id = p_run_id for no key update;
  if not found then
    perform _refuse_claim(v_task, v_run, v_now);
  end if;

  v_agent := _bind_session(p_workspace_id, p_session_id, v_cause.agent_name);
  perform _keep_key(p_workspace_id, v_cause, p_key, p_hash, 200, jsonb_build_object('fence', v_task.fence + 1));
  select t.ctid into v_place from task t
   where t.workspace_id = p_workspace_id and t.task_id = v_run.task_id;
  select a.body into v_claim from _lease_out(p_workspace_id,
    array[row(0, 0, p_session_id, v_agent, 1, p_lease_seconds, null, null, v_cause, 'manual')::claim_call],
    array[row(0, p_run_id, v_run.task_id, v_offer, v_place)::claimed_run], p_outer, p_inner) a;
  if v_claim is null then
    perform _refuse_claim(v_task, v_run, v_now);
  end if;
  if v_task.concurrency_key is not null then -- who skipped its slot meanwhile is to look again
    offers := _leave_contest(p_workspace_id, array[row(0, p_run_id, v_run.task_id, null, v_place)::claimed_run], true);
  end if;
  body := json_build_object('run', v_claim -> 'run', 'lease', v_claim -> 'lease')::text;
end $$;

-- Gives a session to a run that was claimed by hand without one; fence and token stay.
create function attach_session(
  p_workspace_id text, p_cause jsonb, p_run_id text, p_session_id text, p_agent_name text, p_outer bytea,
  p_inner bytea, p_outer_previous bytea, p_inner_previous bytea, out body text)
language plpgsql as $$
declare
  v_now timestamptz;
  v_cause cause := _cause(p_cause);
  v_run run;
  v_session text;
  v_agent text;
begin
  select * into v_run from run r
   where r.workspace_id = p_workspace_id and r.run_id = p_run_id for no key update;
  if not found then
    perform _refuse('run_not_found', jsonb_build_object('id', p_run_id));
  end if;
  v_now := lease_now();
  select l.session_id into v_session from lease l
   where l.workspace_id = p_workspace_id and l.run_id = p_run_id and l.fence = v_run.fence and l.ended_at is null;
  if v_session is not null then
    perform _refuse('session_already_bound', jsonb_build_object('session_id', v_session));
  elsif v_run.status <> 'claimed' then
    perform _refuse('run_not_claimed', jsonb_build_object('run_id', p_run_id, 'run_status', v_run.status));
  end if;
  v_agent := _bind_session(p_workspace_id, p_session_id, coalesce(p_agent_name, v_cause.agent_name));
  update lease l set session_id = p_session_id, agent_name = v_agent
   where l.workspace_id = p_workspace_id and l.run_id = p_run_id and l.fence = v_run.fence;
  update run r set status = 'starting' where r.workspace_id = p_workspace_id and r.run_id = p_run_id;
  perform _log(p_workspace_id, v_now, array[_event(v_cause, 'task.run_session_bound', v_run.task_id, p_run_id,
    jsonb_build_object('session_id', p_session_id, 'agent_name', v_agent))]);
  body := _lease_answer(p_workspace_id, p_run_id, v_run.fence, p_outer, p_inner, p_outer_previous,
                        p_inner_previous);
end $$;

-- An operator's call in the place of whoever claimed the run by hand, with what proves that lease unless the call
-- brings its own. Agents' claims are theirs (what an operator may do to those stands in force.sql).
create function _by_hand(p_ws text, p_call lease_call) returns lease_call language plpgsql as $$
declare
  v_run run;
  v_lease lease;
begin
  select * into v_run from run r where r.workspace_id = p_ws and r.run_id = p_call.run_id;
  if not found then
    perform _refuse('run_not_found', jsonb_build_object('id', p_call.run_id));
  end if;
  select * into v_lease from lease l
   where l.workspace_id = p_ws and l.run_id = p_call.run_id and l.fence = v_run.fence;
  if v_run.status in ('queued', 'needs_attention') then
    perform _refuse('run_not_claimed', jsonb_build_object('run_id', p_call.run_id, 'run_status', v_run.status));
  elsif _is_leased(v_run.status) and v_lease.claim_kind = 'agent' then
    perform _refuse('lease_held', jsonb_build_object('run_id', p_call.run_id, 'session_id', v_lease.session_id));
  elsif v_run.status = 'canceled' or v_lease.claim_kind is distinct from 'manual' then
    perform _refuse('task_run_already_terminal', jsonb_build_object('run_id', p_call.run_id,
      'run_status', v_run.status, 'ended_at', _utc(v_run.ended_at), 'failure_kind', v_run.failure_kind));
  end if;
  p_call.session_id := v_lease.session_id;
  p_call.agent_name := v_lease.agent_name;
  if p_call.token_hash is null then
    p_call.token_hash := encode(v_lease.token_hash, 'hex');
    p_call.token_fence := v_lease.fence;
    p_call.genuine := true;
  end if;
  return p_call;
end $$;

-- Lets a run begin. One that runs already is left as it is.
create function _start_run(p_ws text, p_call lease_call) returns call_answer language plpgsql as $$
declare
  v_now timestamptz := lease_now();
  v_verdict call_answer := (_judge(p_ws, array[p_call], 'start'))[1];
  v_task text;
begin
  if v_verdict.code is null then
    update run r set status = 'running', started_at = v_now
     where r.workspace_id = p_ws and r.run_id = p_call.run_id and r.status in ('claimed', 'starting')
    returning r.task_id into v_task;
    if found then
      perform _log(p_ws, v_now, array[_event(p_call.cause, 'task.run_started', v_task, p_call.run_id,
        jsonb_build_object('session_id', p_call.session_id))]);
    end if;
  end if;
  return v_verdict;
end $$;

-- Starts, completes or fails one run: by the proof of its holder, or by hand.
create function hold_run(
  p_workspace_id text, p_operation text, p_call json, p_by_hand boolean,
  out body text, out replayed boolean, out offers int)
language plpgsql as $$
declare
  v_call lease_call := json_populate_record(null::lease_call, p_call);
  v_answer call_answer;
begin
  perform _hold(p_workspace_id, array[v_call.run_id], p_operation <> 'start');
  v_call.n := 0;
  if p_by_hand then
    v_call := _by_hand(p_workspace_id, v_call);
  end if;
  if p_operation = 'start' then
    v_answer := _start_run(p_workspace_id, v_call);
  elsif p_operation = 'complete' then
    select * into v_answer from complete_runs(p_workspace_id, json_build_array(v_call));
  else
    select * into v_answer from fail_runs(p_workspace_id, json_build_array(v_call));
  end if;
  if v_answer.code is not null then
    perform _refuse(v_answer.code, v_answer.evidence);
  end if;
  replayed := v_answer.replayed;
  offers := v_answer.offers;
  body := _run_answer(p_workspace_id, v_call.run_id);
end $$;
