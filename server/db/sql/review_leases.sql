-- Leases of reviews: how reviewers claim them, renew and end them, and what becomes of those whose time is over; made
-- after reviews.sql.

-- A call under a review lease, or a verdict, as the server decoded it.
create type review_call as (
  review_id text, run_id text, session_id text, agent_name text, token_hash text, token_fence bigint,
  genuine boolean, fence bigint, cause cause, lease_seconds int, reason text, note text, outcome text,
  confidence float8, delivery_id text, missing_work json, next_round_guidance text, review_text text);

-- Locks the task and the run of a review, as _hold(), and returns the review as it is then.
create function _lock_review(p_ws text, p_review_id text, p_ending boolean) returns review language plpgsql as $$
declare
  v_review review;
begin
  select * into v_review from review v where v.workspace_id = p_ws and v.review_id = p_review_id;
  perform _hold(p_ws, array[v_review.run_id], p_ending);
  select * into v_review from review v where v.workspace_id = p_ws and v.review_id = p_review_id;
  if not found then
    perform _refuse('review_not_found', jsonb_build_object('id', p_review_id));
  end if;
  return v_review;
end $$;

-- Whether a run is the work of this agent or session: nobody reviews that.
create function _is_own_work(p_ws text, p_run_id text, p_agent_name text, p_session_id text) returns boolean
language sql stable as $$
  select exists (select from _run(p_ws, p_run_id) r
    cross join lateral (select k.agent_name, k.session_id from lease k
      where k.workspace_id = p_ws and k.run_id = r.run_id and k.fence = r.fence offset 0) l
   where l.agent_name = p_agent_name or l.session_id = p_session_id)
$$;

-- What a call under a review lease meets, in the order in which it is promised; the task is locked. code null: the
-- lease is live and the caller holds it. 'replay': this very operation was done already.
create function _judge_review(p_ws text, p_call review_call, p_operation text, out code text, out evidence jsonb)
language plpgsql as $$
declare
  v_review review;
  v_lease review_lease;                      -- the current or last one
  v_proven review_lease;                     -- the one that the token was made for
begin
  select * into v_review from review v where v.workspace_id = p_ws and v.review_id = p_call.review_id;
  select * into v_lease from review_lease l
   where l.workspace_id = p_ws and l.review_id = p_call.review_id and l.fence = v_review.fence;
  select * into v_proven from review_lease l
   where l.workspace_id = p_ws and l.review_id = p_call.review_id and l.fence = p_call.token_fence
     and l.token_hash = decode(p_call.token_hash, 'hex');
  code := case
    when p_call.token_hash is not null and v_proven.review_id is null and not p_call.genuine
      then 'invalid_claim_token'
    when p_call.token_hash is not null and v_proven.review_id is null then 'stale_fence'
    when p_call.token_hash is not null and (v_proven.session_id, v_proven.agent_name) is distinct from
         (p_call.session_id, p_call.agent_name) then 'foreign_run'
    when p_call.token_hash is null and _is_held_review(v_lease)
         and v_lease.session_id is distinct from p_call.session_id then 'foreign_run'
    when p_call.token_hash is null and v_lease.session_id = p_call.session_id then 'claim_token_required'
    when p_call.token_hash is null then 'no_active_lease'
    when v_proven.fence < v_review.fence and v_proven.ended_how = 'release' and p_operation = 'release'
      then 'replay'
    when v_proven.fence < v_review.fence or p_call.fence <> v_review.fence then 'stale_fence'
    else _judge_state(v_review, p_call, p_operation) end;
  code := coalesce(code, case
    when v_lease.ended_how = 'release' and p_operation = 'release' then 'replay'
    when v_lease.ended_how = 'release' then 'lease_released'
    when v_lease.ended_at is not null then 'lease_expired' end);
  evidence := jsonb_build_object('review_id', p_call.review_id) || case code
    when 'stale_fence' then jsonb_build_object('current_fence', v_review.fence,
      'fence', coalesce(nullif(p_call.token_fence, v_review.fence), p_call.fence))
    when 'no_active_lease' then jsonb_build_object('review_status', v_review.status)
    when 'lease_released' then jsonb_build_object('review_status', v_review.status,
      'reason', v_lease.ended_reason)
    when 'lease_expired' then jsonb_build_object('review_status', v_review.status,
      'lease_until', _utc(v_lease.lease_until), 'deadline_at', _utc(v_review.deadline_at))
    when 'review_closed' then jsonb_build_object('outcome', v_review.outcome,
      'delivery_id', v_review.delivery_id)
    when 'review_already_recorded' then jsonb_build_object('outcome', v_review.outcome,
      'delivery_id', v_review.delivery_id)
    else '{}' end;
end $$;

-- Refuses a call that was judged so; answers whether it was done already.
create function _is_repeat(p_code text, p_evidence jsonb) returns boolean language plpgsql as $$
begin
  if p_code <> 'replay' then
    perform _refuse(p_code, p_evidence);
  end if;
  return p_code is not null;
end $$;

-- What the state of a review answers by itself.
create function _judge_state(p_review review, p_call review_call, p_operation text) returns text
language sql stable as $$
  select case
    when p_review.status = 'canceled' then 'review_closed'
    when p_review.check_at is not null then null
    when p_operation = 'verdict' and (p_review.delivery_id, p_review.outcome, p_review.reviewed_by_kind,
           p_review.reviewed_by_ref) = (p_call.delivery_id, p_call.outcome, (p_call.cause).actor_kind,
           (p_call.cause).actor_ref) then 'replay'
    else 'review_already_recorded' end
$$;

-- What keeps a person's verdict from being recorded. One that stopped the task is overruled while nothing has
-- come after it.
create function _judge_by_hand(p_ws text, p_review review, p_call review_call, out code text, out evidence jsonb)
language plpgsql as $$
begin
  code := _judge_state(p_review, p_call, 'verdict');
  evidence := jsonb_build_object('review_id', p_review.review_id, 'outcome', p_review.outcome,
                                 'delivery_id', p_review.delivery_id);
  if code = 'review_already_recorded' and (p_review.status = 'circuit_opened' or p_review.outcome = 'blocked')
     and exists (select from task t where t.workspace_id = p_ws and t.task_id = p_review.task_id
                    and t.newest_run_id = p_review.run_id and not t.canceled) then
    code := null;
  end if;
end $$;

-- Refuses a rejection after which no run could be queued: a review by hand may be of any run.
create function _check_rejection(p_ws text, p_review review) returns void language plpgsql as $$
declare
  v_task task;
  v_newest run;
begin
  select * into v_task from task t where t.workspace_id = p_ws and t.task_id = p_review.task_id;
  select * into v_newest from _run(p_ws, v_task.newest_run_id);
  if v_task.canceled then
    perform _refuse('task_canceled', jsonb_build_object('closed_at', _utc(v_task.closed_at)));
  elsif _is_open(v_newest.status) then
    perform _refuse('open_run_exists', jsonb_build_object('run_id', v_newest.run_id,
                                                          'run_status', v_newest.status));
  elsif v_newest.review = 'open' and not p_review.gating then
    perform _refuse('review_open', jsonb_build_object('review_id', _open_review(p_ws, v_newest.run_id)));
  end if;
end $$;

-- Takes a verdict: of who holds the review lease, or of a person, who needs none and wins.
create function submit_review(
  p_workspace_id text, p_call json, p_by_hand boolean, p_max_attempts int,
  out body text, out outcomes text[], out replayed boolean, out offers int)
language plpgsql as $$
declare
  v_now timestamptz;
  v_call review_call := json_populate_record(null::review_call, p_call);
  v_review review := _lock_review(p_workspace_id, v_call.review_id, true);
  v_met record;
  v_recorded record;
begin
  v_now := lease_now();
  if v_call.run_id <> v_review.run_id then
    perform _refuse_field('run_id', 'match', 'must be that of the review');
  elsif not p_by_hand and _is_own_work(p_workspace_id, v_review.run_id, v_call.agent_name, v_call.session_id) then
    perform _refuse('own_work', jsonb_build_object('review_id', v_review.review_id, 'run_id', v_review.run_id));
  end if;
  if p_by_hand then
    v_met := _judge_by_hand(p_workspace_id, v_review, v_call);
  else
    v_met := _judge_review(p_workspace_id, v_call, 'verdict');
  end if;
  replayed := _is_repeat(v_met.code, v_met.evidence);
  offers := 0;
  outcomes := '{}';
  if not replayed then
    if v_call.outcome = 'rejected' then
      perform _check_rejection(p_workspace_id, v_review);
    end if;
    v_recorded := _record(p_workspace_id, v_now, array[row(v_review.review_id, v_call.outcome, v_call.confidence,
      v_call.reason, v_call.delivery_id, v_call.missing_work, v_call.next_round_guidance, v_call.review_text,
      p_by_hand, 'verdict', v_call.cause)::review_verdict], p_max_attempts);
    outcomes := array[v_call.outcome];
    offers := _settle_and_log(p_workspace_id, v_recorded.tasks, v_now, v_call.cause,
                              v_recorded.events[1].event_type, v_recorded.events);
  end if;
  body := (select json_build_object('review', w.body, 'continuation_run', (select r.body from run_wire r
               where r.workspace_id = p_workspace_id and r.run_id = v.continuation_run_id),
             'circuit_opened', v.status = 'circuit_opened')::text
    from review v join review_wire w on w.workspace_id = p_workspace_id and w.review_id = v.review_id
   where v.workspace_id = p_workspace_id and v.review_id = v_review.review_id);
end $$;

-- A review, and the lease of this fence or else its newest.
create function _held_answer(p_ws text, p_review_id text, p_fence bigint) returns text language plpgsql as $$
begin
  return (select json_build_object('review', w.body,
                   'lease', case when l.fence is not null then _review_lease_json(l) else w.lease end,
                   'server_time', _utc(lease_now()))::text
            from review_wire w
            left join review_lease l on l.workspace_id = p_ws and l.review_id = p_review_id and l.fence = p_fence
           where w.workspace_id = p_ws and w.review_id = p_review_id);
end $$;

create function heartbeat_review(p_workspace_id text, p_call json, out body text) language plpgsql as $$
declare
  v_now timestamptz;
  v_call review_call := json_populate_record(null::review_call, p_call);
  v_review review := _lock_review(p_workspace_id, v_call.review_id, false);
begin
  v_now := lease_now();
  perform _is_repeat(j.code, j.evidence) from _judge_review(p_workspace_id, v_call, 'heartbeat') j;
  update review_lease l
     set heartbeat_at = v_now, lease_until = _longer(l.lease_until, v_now,
           coalesce(v_call.lease_seconds, l.lease_seconds), v_review.deadline_at)
   where l.workspace_id = p_workspace_id and l.review_id = v_review.review_id and l.fence = v_review.fence;
  if v_review.status = 'routed' then
    update review v set status = 'in_review', started_at = v_now, updated_at = v_now
     where v.workspace_id = p_workspace_id and v.review_id = v_review.review_id;
    perform _log(p_workspace_id, v_now, array[_bound(v_call.cause, 'started', v_review)]);
  end if;
  body := _held_answer(p_workspace_id, v_review.review_id, null);
end $$;

-- An event that says who reviews.
create function _bound(p_cause cause, p_type text, p_review review) returns new_event language sql stable as $$
  select _review_event(p_cause, p_type, p_review, jsonb_build_object('session_id', p_review.session_id,
    'reviewer_agent_name', p_review.agent_name, 'reviewer_peer_id', p_review.peer_id,
    'reviewer_channel_id', p_review.channel_id))
$$;

-- Takes reviews from their holders: anybody else may claim them.
create function _put_back(p_ws text, p_now timestamptz, p_cause cause, p_reviews text[], p_how text, p_reason text,
  p_note text) returns new_event[] language plpgsql as $$
declare
  v_events new_event[];
begin
  with held as (
    select v.* from unnest(p_reviews) x (review_id)
      cross join lateral (select k.*, k.ctid as place from review k
        where k.workspace_id = p_ws and k.review_id = x.review_id offset 0) v
  ), freed as (
    update review_lease l set ended_at = p_now, ended_how = p_how, ended_reason = p_reason
      from held h
      cross join lateral (select k.ctid from review_lease k where k.workspace_id = p_ws
        and k.review_id = h.review_id and k.fence = h.fence offset 0) k
     where l.ctid = k.ctid
  ), freed_review as (
    update review v
       set status = 'requested', session_id = null, agent_name = null, peer_id = null, channel_id = null,
           routed_at = null, started_at = null, updated_at = p_now,
           lease_expiries = h.lease_expiries + (p_how = 'expiry')::int
      from held h where v.ctid = h.place
  )
  select array_agg(_event(p_cause, 'task.run_review_released', h.task_id, h.run_id, jsonb_build_object(
           'review_id', h.review_id, 'session_id', h.session_id,
           'cause', case p_how when 'expiry' then 'lease_expired' else p_how end, 'note', p_note))
           order by h.review_id)
    into v_events from held h;
  return v_events;
end $$;

create function release_review(p_workspace_id text, p_call json, out body text, out replayed boolean)
language plpgsql as $$
declare
  v_now timestamptz;
  v_call review_call := json_populate_record(null::review_call, p_call);
  v_review review := _lock_review(p_workspace_id, v_call.review_id, false);
begin
  v_now := lease_now();
  replayed := (select _is_repeat(j.code, j.evidence) from _judge_review(p_workspace_id, v_call, 'release') j);
  if not replayed then
    perform _log(p_workspace_id, v_now, _put_back(p_workspace_id, v_now, v_call.cause, array[v_review.review_id],
                                                  'release', v_call.reason, v_call.note));
  end if;
  -- Repeated, it is about the lease that was given back, whoever has the next.
  body := _held_answer(p_workspace_id, v_review.review_id, coalesce(v_call.token_fence, v_call.fence));
end $$;

-- ══ Claims ══════════════════════════════════════════════════════════════════════════════════════════════════

-- Who wants to review, and what it can do.
create type reviewer as (
  session_id text, agent_name text, channel text, peer_id text, capabilities text[], lease_seconds int,
  key text, hash text, cause cause);

create function _lists(p_list jsonb, p_name text) returns boolean language sql stable as $$
  select coalesce(jsonb_array_length(p_list), 0) = 0 or coalesce(p_list ? p_name, false)
$$;

-- Whether a task's profile admits a reviewer.
create function _admits(p_demands jsonb, p_reviewer reviewer) returns boolean language sql stable as $$
  select coalesce(p_demands ->> 'agent_name' = p_reviewer.agent_name, true)
     and _lists(p_demands -> 'allowed_agent_names', p_reviewer.agent_name)
     and _lists(p_demands -> 'allowed_channel_ids', p_reviewer.channel)
     and _lists(p_demands -> 'allowed_peer_ids', p_reviewer.peer_id)
     and coalesce(p_demands -> 'required_capabilities', '[]') <@ to_jsonb(p_reviewer.capabilities)
$$;

-- The claim that came with this key before, if it is not over with; null: the key is new.
create function _repeat_review_claim(p_ws text, p_reviewer reviewer) returns review_lease language plpgsql as $$
declare
  v_lease review_lease;
begin
  if p_reviewer.key is null then
    return null;
  elsif not pg_try_advisory_xact_lock(hashtextextended(
      p_ws || ' ' || p_reviewer.session_id || ' ' || p_reviewer.key, 3)) then
    perform _refuse('idempotency_in_progress');
  end if;
  -- A key whose review was claimed again is new.
  select l.* into v_lease from review_lease l
    join review v on v.workspace_id = p_ws and v.review_id = l.review_id and v.fence = l.fence
   where l.workspace_id = p_ws and l.session_id = p_reviewer.session_id and l.claim_key = p_reviewer.key
     and l.claimed_at > lease_now() - interval '24 hours'
   order by l.claimed_at desc limit 1;
  if v_lease.review_id is null then
    return null;
  elsif v_lease.claim_hash <> decode(p_reviewer.hash, 'hex') then
    perform _refuse('idempotency_key_reused');
  elsif v_lease.ended_at is not null then
    perform _refuse('claim_key_spent', jsonb_build_object('review_ids', jsonb_build_array(v_lease.review_id)));
  end if;
  return v_lease;
end $$;

-- The next review that this agent may do, its task locked; null: there is none. What another transaction holds is
-- skipped, so a claim never waits.
create function _next_review(p_ws text, p_now timestamptz, p_reviewer reviewer) returns review language plpgsql as $$
declare
  v_review review;
  v_passed text[] := '{}';
begin
  loop
    select x.review_id into v_review.review_id
      from (select v.review_id, v.task_id from review v
              left join lateral (select k.profile from execution_profile k
                where k.workspace_id = p_ws and k.task_id = v.task_id offset 0) p on true
             where v.workspace_id = p_ws and v.status = 'requested' and v.deadline_at > p_now
               and v.review_id <> all (v_passed) and _admits(p.profile -> 'review', p_reviewer)
               and not _is_own_work(p_ws, v.run_id, p_reviewer.agent_name, p_reviewer.session_id)
             order by v.deadline_at, v.requested_at, v.review_id offset 0) x
      cross join lateral (select from task t
        where t.workspace_id = p_ws and t.task_id = x.task_id for no key update skip locked) l
     limit 1;
    if not found then
      return null;
    end if;
    -- Looked at again under the lock: somebody may have taken it a moment before.
    select * into v_review from review v where v.workspace_id = p_ws and v.review_id = v_review.review_id;
    if v_review.status = 'requested' then
      return v_review;
    end if;
    v_passed := v_passed || v_review.review_id::text;
  end loop;
end $$;

-- Everything that the holder of this lease needs to begin; null if it holds the review no more.
create function _review_claim(
  p_ws text, p_review_id text, p_fence bigint, p_outer bytea, p_inner bytea, p_outer_previous bytea,
  p_inner_previous bytea)
returns text language plpgsql as $$
begin
  return (select json_build_object('review', w.body, 'run', r.body, 'task', t.body,
             'lease', _merge(w.lease, json_build_object('claim_token', _token_again(p_ws, p_review_id,
               (w.lease ->> 'fence')::bigint, w.token_hash, p_outer, p_inner, p_outer_previous,
               p_inner_previous))),
             'payload', b.payload, 'description', b.description, 'result', r.body -> 'result',
             'previous_reviews', (select coalesce(json_agg(_cut_result(y.body)), '[]') from (
                select o.body from (select v.review_id, v.requested_at from review v
                   where v.workspace_id || '' = p_ws and v.task_id = w.task_id and v.review_id <> p_review_id
                   order by v.requested_at desc, v.review_id desc limit 5) v
                  cross join lateral (select k.body from review_wire k
                    where k.workspace_id = p_ws and k.review_id = v.review_id offset 0) o
                 order by v.requested_at desc, v.review_id desc) y),
             'execution_profile', (select p.body from profile_wire p
                where p.workspace_id = p_ws and p.task_id = w.task_id))::text
    from review_wire w
    -- Each looked up by its key, whatever the statistics say.
    cross join lateral (select k.body from run_wire k
      where k.workspace_id = p_ws and k.run_id = w.run_id offset 0) r
    cross join lateral (select k.body from task_reference_wire k
      where k.workspace_id = p_ws and k.task_id = w.task_id offset 0) t
    cross join lateral (select k.payload, k.description from task_body k
      where k.workspace_id = p_ws and k.task_id = w.task_id offset 0) b
   where w.workspace_id = p_ws and w.review_id = p_review_id
     and (w.lease ->> 'fence')::bigint = p_fence and w.lease ->> 'lease_until' is not null);
end $$;

-- Claims the next review for an agent; body null: there is none.
create function claim_review(
  p_workspace_id text, p_reviewer json, p_outer bytea, p_inner bytea, p_outer_previous bytea,
  p_inner_previous bytea, out body text, out replayed boolean)
language plpgsql as $$
declare
  v_now timestamptz := lease_now();
  v_reviewer reviewer := json_populate_record(null::reviewer, p_reviewer);
  v_lease review_lease := _repeat_review_claim(p_workspace_id, v_reviewer);
  v_review review;
  v_seconds int;
begin
  replayed := v_lease.review_id is not null;
  if replayed then
    v_review.review_id := v_lease.review_id;
    v_review.fence := v_lease.fence;
  else
    v_review := _next_review(p_workspace_id, v_now, v_reviewer);
    if v_review.review_id is null then
      return;
    end if;
    -- A pause commits under this lock: no claim commits behind its back.
    perform 1 from workspace_lock l where l.workspace_id = p_workspace_id and l.name = 'log' for no key update;
    if _scheduler_paused(p_workspace_id) then
      return;
    end if;
    v_now := lease_now();
    -- One asked for by hand counts by itself, but above what a restore has lifted the fence of its task to.
    v_review.fence := 1 + greatest(v_review.fence, (select t.fence / 1000000 * 1000000 from task t
      where t.workspace_id = p_workspace_id and t.task_id = v_review.task_id));
    if v_review.gating then
      update task t set fence = t.fence + 1, updated_at = v_now
       where t.workspace_id = p_workspace_id and t.task_id = v_review.task_id
      returning t.fence into v_review.fence;
    end if;
    update review v
       set status = 'routed', fence = v_review.fence, session_id = v_reviewer.session_id,
           agent_name = v_reviewer.agent_name, peer_id = v_reviewer.peer_id, channel_id = v_reviewer.channel,
           routed_at = v_now, updated_at = v_now
     where v.workspace_id = p_workspace_id and v.review_id = v_review.review_id
    returning * into v_review;
    select coalesce(v_reviewer.lease_seconds, _setting(w.settings, 'default_lease_seconds', 300)) into v_seconds
      from workspace w where w.workspace_id = p_workspace_id;
    insert into review_lease (workspace_id, review_id, fence, session_id, agent_name, claim_key, claim_hash,
                              token_hash, claimed_at, lease_seconds, lease_until, heartbeat_at, check_at)
    select p_workspace_id, v_review.review_id, v_review.fence, v_reviewer.session_id, v_reviewer.agent_name,
           v_reviewer.key, decode(v_reviewer.hash, 'hex'),
           sha256(convert_to(_claim_token(p_workspace_id, v_review.review_id, v_review.fence, p_outer, p_inner),
                             'UTF8')), v_now, v_seconds, x.until, v_now, x.until
      from (select least(v_now + make_interval(secs => v_seconds), v_review.deadline_at) as until) x;
    perform _log(p_workspace_id, v_now, array[_bound(v_reviewer.cause, 'bound', v_review)]);
  end if;
  body := _review_claim(p_workspace_id, v_review.review_id, v_review.fence, p_outer, p_inner, p_outer_previous,
                        p_inner_previous);
  if body is null then                       -- the lease has ended since it was found
    perform _refuse('claim_key_spent', jsonb_build_object('review_ids', jsonb_build_array(v_review.review_id)));
  end if;
end $$;

-- ══ Time ════════════════════════════════════════════════════════════════════════════════════════════════════

create type review_place as (workspace_id text, review_id text);

-- The reviews whose deadline has passed or whose lease lapsed, by workspace. As with sweep_leases(): after a gap
-- of over 30 s, in which nobody could heartbeat, what lapsed in it is renewed and nothing is returned.
create function late_reviews(p_limit int, p_without text[]) returns table (workspace_id text, reviews text[])
language plpgsql as $$
declare
  v_now timestamptz;
  v_gap interval;
  v_outage boolean;
  v_renewed review_place[];
begin
  v_gap := _since_last('reviews');
  v_now := lease_now();
  v_outage := v_gap > interval '30 seconds';
  -- The run is the lock of its reviews. One that somebody holds now is looked at in the next pass.
  v_renewed := array(select row(r.workspace_id, x.review_id)::review_place
    from (select l.workspace_id, l.review_id, v.run_id from review_lease l
            join review v on v.workspace_id = l.workspace_id and v.review_id = l.review_id
           where l.ended_at is null and l.check_at <= v_now
             and (l.lease_until > v_now
                  or v_outage and l.lease_until >= v_now - v_gap and v.deadline_at > v_now)
           order by l.check_at) x
    cross join lateral (select k.workspace_id from run k
      where k.workspace_id = x.workspace_id and k.run_id = x.run_id for no key update skip locked) r
   limit case when not v_outage then p_limit end);
  update review_lease l set lease_until = k.until, check_at = k.until
    from unnest(v_renewed) x
    cross join lateral (select k.ctid, case when k.lease_until > v_now then k.lease_until
          else _longer(v_now, v_now, k.lease_seconds, v.deadline_at) end as until
      from review_lease k
      join review v on v.workspace_id = k.workspace_id and v.review_id = k.review_id
      where k.workspace_id = x.workspace_id and k.review_id = x.review_id and k.ended_at is null offset 0) k
   where l.ctid = k.ctid;
  if v_outage then
    return;
  end if;
  return query
    select x.workspace_id::text, array_agg(x.review_id::text order by x.review_id) from (
      (select l.workspace_id, l.review_id from review_lease l
        where l.ended_at is null and l.check_at <= v_now and l.lease_until <= v_now
          and l.workspace_id <> all (p_without) order by l.check_at limit p_limit)
      union
      (select v.workspace_id, v.review_id from review v
        where v.check_at <= v_now and v.workspace_id <> all (p_without)
        order by v.check_at limit p_limit)) x
     group by x.workspace_id;
end $$;

-- Ends what is late among these reviews, judged again under their locks; tasks that are busy are left for the next
-- pass. Answers the outcomes that were recorded, and how many leases were put back.
create function expire_reviews(
  p_workspace_id text, p_reviews text[], p_max_attempts int, p_max_expiries int,
  out outcomes text[], out put_back int)
language plpgsql as $$
declare
  v_now timestamptz;
  v_cause cause := row('daemon', 'reviews', 'daemon', 'daemon.reviews', null, null, null)::cause;
  v_tasks text[];
  v_lapsed text[];
  v_verdicts review_verdict[];
  v_recorded record;
begin
  v_tasks := array(select l.task_id from (select distinct v.task_id from review v
      where v.workspace_id = p_workspace_id and v.review_id = any (p_reviews) order by 1) x
    cross join lateral (select t.task_id from task t
      where t.workspace_id = p_workspace_id and t.task_id = x.task_id for no key update skip locked) l);
  perform _lock_runs(p_workspace_id, array(select v.run_id from review v
    where v.workspace_id = p_workspace_id and v.review_id = any (p_reviews) and v.task_id = any (v_tasks)));
  v_now := lease_now();
  with late as (
    select v.review_id, v.deadline_at <= v_now as timed_out, v.lease_expiries + 1 >= p_max_expiries as last
      from review v
      left join review_lease l on l.workspace_id = p_workspace_id and l.review_id = v.review_id
       and l.fence = v.fence and l.ended_at is null
     where v.workspace_id = p_workspace_id and v.review_id = any (p_reviews) and v.task_id = any (v_tasks)
       and v.check_at is not null and (v.deadline_at <= v_now or l.lease_until <= v_now)
  )
  select array_agg(x.review_id order by x.review_id) filter (where not x.timed_out and not x.last),
         array_agg(row(x.review_id, case when x.timed_out then 'timeout' else 'error' end, null,
             case when x.timed_out then 'the deadline of the review has passed'
                  else 'the lease of the review expired ' || p_max_expiries || ' times' end,
             null, null, null, null, false, case when x.timed_out then 'verdict' else 'expiry' end,
             v_cause)::review_verdict order by x.review_id) filter (where x.timed_out or x.last)
    into v_lapsed, v_verdicts from late x;
  put_back := coalesce(cardinality(v_lapsed), 0);
  outcomes := array(select v.outcome from unnest(v_verdicts) v);
  if v_verdicts is null then
    if put_back > 0 then
      perform _log(p_workspace_id, v_now, _put_back(p_workspace_id, v_now, v_cause, v_lapsed, 'expiry', null, null));
    end if;
    return;
  end if;
  update review v set lease_expiries = v.lease_expiries + 1
   where v.workspace_id = p_workspace_id and v.review_id = any (array(
     select x.review_id from unnest(v_verdicts) x where x.outcome = 'error'));
  v_recorded := _record(p_workspace_id, v_now, v_verdicts, p_max_attempts);
  if put_back > 0 then
    v_recorded.events := v_recorded.events
                      || _put_back(p_workspace_id, v_now, v_cause, v_lapsed, 'expiry', null, null);
  end if;
  perform _settle_and_log(p_workspace_id, v_recorded.tasks, v_now, v_cause, v_recorded.events[1].event_type,
                          v_recorded.events);
end $$;

-- Leaves a review that could not be dealt with for a minute, so that it does not hold up the others.
create function set_review_aside(p_workspace_id text, p_review_id text) returns void language sql as $$
  select _lock_runs(p_workspace_id, array(select v.run_id from review v
    where v.workspace_id = p_workspace_id and v.review_id = p_review_id));
  update review v set check_at = lease_now() + interval '1 minute'
   where v.workspace_id = p_workspace_id and v.review_id = p_review_id and v.check_at is not null;
  update review_lease l set check_at = lease_now() + interval '1 minute'
   where l.workspace_id = p_workspace_id and l.review_id = p_review_id and l.ended_at is null
$$;
