-- Reviews: a judgement on the result of a run, by whoever claims it or by a person; made after scheduler.sql. Whoever
-- changes a review holds its task. What a gating review means for its task stands in run.review, for _settle().

-- A judgement on the result of a run. Gating: its task waits for it.
create table review (
  workspace_id word,
  review_id word,
  task_id word not null,
  run_id word not null,
  parent_review_id word,
  policy word not null,
  review_round int not null,
  attempt int not null,
  gating boolean not null,
  status word not null default 'requested',
  outcome word,
  confidence double precision,
  reason text,
  delivery_id text,
  missing_work json not null default '[]',
  next_round_guidance text,
  review_text text,
  continuation_run_id word,
  session_id word,                           -- of the reviewer
  agent_name text,
  peer_id text,
  channel_id text,
  reviewed_by_kind word,
  reviewed_by_ref text,
  requested_at timestamptz not null,
  updated_at timestamptz not null,
  routed_at timestamptz,
  started_at timestamptz,
  reviewed_at timestamptz,
  deadline_at timestamptz not null,
  check_at timestamptz,                      -- while it is open: when the loop `reviews` is to look at it
  fence bigint,
  lease_expiries int not null default 0,
  primary key (workspace_id, review_id),
  foreign key (workspace_id, task_id) references task on delete cascade);
create unique index review_run on review (run_id, review_round, attempt, gating, workspace_id);
create index review_task on review (task_id, workspace_id);
create index review_requested on review (workspace_id, deadline_at, requested_at, review_id)
  where status = 'requested';
create index review_check on review (check_at, workspace_id) where check_at is not null;

-- One row a claim of a review, as with lease.
create table review_lease (
  workspace_id word,
  review_id word,
  fence bigint,
  session_id word not null,
  agent_name text not null,
  claim_key word,
  claim_hash bytea,
  token_hash bytea not null,
  claimed_at timestamptz not null,
  lease_seconds int not null,
  lease_until timestamptz not null,
  heartbeat_at timestamptz not null,
  check_at timestamptz not null,
  ended_at timestamptz,
  ended_how word,                            -- verdict release expiry cancel
  ended_reason text,
  primary key (workspace_id, review_id, fence),
  foreign key (workspace_id, review_id) references review on delete cascade);
create index review_lease_check on review_lease (check_at, workspace_id) where ended_at is null;
create index review_lease_session on review_lease (session_id, workspace_id, claimed_at) where ended_at is null;
create index review_lease_key on review_lease (claim_key, session_id, workspace_id) where claim_key is not null;

-- ══ The wire ════════════════════════════════════════════════════════════════════════════════════════════════

create function _is_held_review(p_lease review_lease) returns boolean language sql stable as $$
  select p_lease.fence is not null and p_lease.ended_at is null
$$;

create function _review_json(p_review review, p_lease review_lease) returns json language sql stable as $$
  select json_build_object(
    'review_id', p_review.review_id, 'task_id', p_review.task_id, 'run_id', p_review.run_id,
    'parent_review_id', p_review.parent_review_id, 'policy', p_review.policy,
    'review_round', p_review.review_round, 'attempt', p_review.attempt, 'status', p_review.status,
    'outcome', p_review.outcome, 'confidence', p_review.confidence, 'reason', p_review.reason,
    'delivery_id', p_review.delivery_id, 'missing_work', p_review.missing_work,
    'missing_work_bytes', octet_length(p_review.missing_work::text),
    'next_round_guidance', p_review.next_round_guidance, 'review_text', p_review.review_text,
    'reviewer_session_id', p_review.session_id, 'reviewer_agent_name', p_review.agent_name,
    'reviewer_peer_id', p_review.peer_id, 'reviewer_channel_id', p_review.channel_id,
    'reviewed_by', _actor(p_review.reviewed_by_kind, p_review.reviewed_by_ref),
    'requested_at', _utc(p_review.requested_at), 'created_at', _utc(p_review.requested_at),
    'updated_at', _utc(p_review.updated_at), 'routed_at', _utc(p_review.routed_at),
    'started_at', _utc(p_review.started_at), 'reviewed_at', _utc(p_review.reviewed_at),
    'deadline_at', _utc(p_review.deadline_at), 'gating', p_review.gating, 'fence', p_review.fence,
    'lease_until', case when _is_held_review(p_lease) then _utc(p_lease.lease_until) end,
    'heartbeat_at', case when _is_held_review(p_lease) then _utc(p_lease.heartbeat_at) end,
    'lease_expiries', p_review.lease_expiries)
$$;

create function _review_lease_json(p_lease review_lease) returns json language sql stable as $$
  select json_build_object(
    'review_id', p_lease.review_id, 'claim_token_hash', 'sha256:' || encode(p_lease.token_hash, 'hex'),
    'fence', p_lease.fence, 'lease_until', case when _is_held_review(p_lease) then _utc(p_lease.lease_until) end,
    'lease_seconds', p_lease.lease_seconds)
$$;

create view review_wire as
select v.workspace_id, v.review_id, v.task_id, v.run_id, v.updated_at, _review_json(v, l::review_lease) as body,
       _review_lease_json(l::review_lease) as lease, l.token_hash
  from review v
  left join lateral (select k.* from review_lease k
    where k.workspace_id = v.workspace_id and k.review_id = v.review_id and k.fence = v.fence offset 0) l on true;

-- What lists filter by; null asks for nothing.
create function _review_fits(
  p_review review, p_run_id text, p_status text[], p_reviewer_session_id text, p_gating boolean)
returns boolean language sql stable as $$
  select (p_run_id is null or p_review.run_id = p_run_id)
     and (p_status is null or p_review.status = any (p_status))
     and (p_reviewer_session_id is null or p_review.session_id = p_reviewer_session_id)
     and (p_gating is null or p_review.gating = p_gating)
$$;

create function _review_event(p_cause cause, p_type text, p_review review, p_payload jsonb) returns new_event
language sql stable as $$
  select _event(p_cause, 'task.run_review_' || p_type, p_review.task_id, p_review.run_id,
                jsonb_build_object('review_id', p_review.review_id) || p_payload)
$$;

create function _requested(p_cause cause, p_review review) returns new_event language sql stable as $$
  select _review_event(p_cause, 'requested', p_review, jsonb_build_object(
    'policy', p_review.policy, 'review_round', p_review.review_round, 'review_attempt', p_review.attempt,
    'gating', p_review.gating, 'deadline_at', _utc(p_review.deadline_at)))
$$;

-- ══ Requests ════════════════════════════════════════════════════════════════════════════════════════════════

-- Asks for gating reviews of runs that ended (their tasks are locked, and run.review says so already).
create function _ask_reviews(p_ws text, p_now timestamptz, p_wishes review_wish[]) returns new_event[]
language plpgsql as $$
declare
  v_events new_event[];
begin
  with asked as (
    insert into review (workspace_id, review_id, task_id, run_id, parent_review_id, policy, review_round, attempt,
                        gating, requested_at, updated_at, deadline_at, check_at)
    select p_ws, w.review_id, r.task_id, w.run_id, coalesce(w.parent_review_id, r.review_id),
           coalesce(p.policy, t.review_policy), coalesce(p.review_round, r.review_round, 1),
           coalesce(p.attempt, 0) + 1, true, p_now, p_now, d.at, d.at
      from unnest(p_wishes) w
      cross join lateral _run(p_ws, w.run_id) r
      cross join lateral (select k.review_policy from task k
        where k.workspace_id = p_ws and k.task_id = r.task_id offset 0) t
      cross join lateral (select p_now + make_interval(secs => k.review_timeout_seconds) as at from task_body k
        where k.workspace_id = p_ws and k.task_id = r.task_id offset 0) d
      left join lateral (select k.policy, k.review_round, k.attempt from review k
        where k.workspace_id = p_ws and k.review_id = w.parent_review_id offset 0) p on true
    returning *
  )
  select array_agg(_requested(w.cause, a::review) order by a.run_id) into v_events
    from asked a join unnest(p_wishes) w using (review_id);
  return v_events;
end $$;

-- Asks for a review by hand, which gates nothing. There is one of a run, round and attempt: a stored one is
-- answered.
create function request_review(
  p_workspace_id text, p_cause jsonb, p_run_id text, p_task_id text, p_request jsonb, p_key text, p_hash text,
  out body text, out status int, out replayed boolean)
language plpgsql as $$
declare
  v_now timestamptz;
  v_cause cause := _cause(p_cause);
  v_kept idempotency_key;
  v_run run;
  v_review review;
begin
  v_kept := _take_key(p_workspace_id, v_cause, p_key, p_hash);
  replayed := v_kept.key is not null;
  status := coalesce(v_kept.status, 201);
  if replayed then
    v_review.review_id := v_kept.ids ->> 'review_id';
  else
    v_run := _lock_run(p_workspace_id, p_run_id, true);
    v_now := lease_now();
    perform _check_request(p_workspace_id, v_run, p_task_id, p_request, v_now);
    select * into v_review from review v
     where v.run_id = p_run_id and v.workspace_id || '' = p_workspace_id
       and v.review_round = coalesce((p_request ->> 'review_round')::int, v_run.review_round, 1)
       and v.attempt = (p_request ->> 'attempt')::int
     order by v.gating desc limit 1;
    if found then
      status := 200;
    else
      insert into review (workspace_id, review_id, task_id, run_id, parent_review_id, policy, review_round, attempt,
                          gating, reason, requested_at, updated_at, deadline_at, check_at)
      select p_workspace_id, _new_id('rev'), v_run.task_id, p_run_id, p_request ->> 'parent_review_id',
             p_request ->> 'policy', coalesce((p_request ->> 'review_round')::int, v_run.review_round, 1),
             (p_request ->> 'attempt')::int, false, p_request ->> 'reason', v_now, v_now, d.at, d.at
        from task_body b
        cross join lateral (select coalesce((p_request ->> 'deadline_at')::timestamptz,
          v_now + make_interval(secs => b.review_timeout_seconds)) as at) d
       where b.workspace_id = p_workspace_id and b.task_id = v_run.task_id
      returning * into v_review;
      perform _log(p_workspace_id, v_now, array[_requested(v_cause, v_review)]);
    end if;
    perform _keep_key(p_workspace_id, v_cause, p_key, p_hash, status,
                      jsonb_build_object('review_id', v_review.review_id));
  end if;
  body := _review_answer(p_workspace_id, v_review.review_id);
end $$;

create function _check_request(p_ws text, p_run run, p_task_id text, p_request jsonb, p_now timestamptz) returns void
language plpgsql as $$
declare
  v_policy text := p_request ->> 'policy';
  v_deadline timestamptz := (p_request ->> 'deadline_at')::timestamptz;
begin
  if p_task_id <> p_run.task_id then
    perform _refuse_field('task_id', 'match', 'must be that of the run');
  elsif v_deadline <= p_now or v_deadline > p_now + interval '30 days' then
    perform _refuse_field('deadline_at', 'range', 'must be in the next 30 days');
  elsif p_request ->> 'parent_review_id' is not null and not exists (select from review v
      where v.workspace_id = p_ws and v.review_id = p_request ->> 'parent_review_id') then
    perform _refuse('review_not_found', jsonb_build_object('id', p_request ->> 'parent_review_id'));
  elsif _is_open(p_run.status) then
    perform _refuse('run_not_terminal', jsonb_build_object('run_id', p_run.run_id, 'run_status', p_run.status));
  elsif v_policy = 'on_success' and p_run.status <> 'completed'
     or v_policy = 'on_failure' and p_run.status = 'completed' then
    perform _refuse('review_policy_mismatch', jsonb_build_object('policy', v_policy, 'run_status', p_run.status));
  end if;
end $$;

create function _review_answer(p_ws text, p_review_id text) returns text language plpgsql as $$
declare
  v_body text := (select w.body::text from review_wire w
    where w.workspace_id = p_ws and w.review_id = p_review_id);
begin
  if v_body is null then
    perform _refuse('review_not_found', jsonb_build_object('id', p_review_id));
  end if;
  return v_body;
end $$;

-- Refuses a further run while a review may still decide, and `start` where one has stopped the task.
create function _check_review(p_ws text, p_task task, p_reason text) returns void language plpgsql as $$
declare
  v_review text := (select r.review from run r where r.workspace_id = p_ws and r.run_id = p_task.newest_run_id);
begin
  if v_review = 'open' then
    perform _refuse('review_open', jsonb_build_object('review_id', _open_review(p_ws, p_task.newest_run_id)));
  elsif v_review = 'blocked' and p_reason = 'start' then
    perform _refuse('task_blocked', jsonb_build_object('reasons', '["review_blocked"]'::jsonb
      || _closed(p_task, null, lease_now(), '{4,5}')));
  end if;
end $$;

-- The gating review of a run that is not decided yet. Here and below: never by the workspace alone (|| ''),
-- whatever the statistics say.
create function _open_review(p_ws text, p_run_id text) returns text language sql stable as $$
  select v.review_id::text from review v
   where v.run_id = p_run_id and v.workspace_id || '' = p_ws and v.gating and v.check_at is not null
$$;

-- Cancels the open reviews of these tasks (locked by the caller), or of one run of theirs. p_who: for each task,
-- whose cause it is (null: there is one).
create function _cancel_reviews(
  p_ws text, p_now timestamptz, p_tasks text[], p_run_id text, p_causes cause[], p_who int[], p_why text)
returns new_event[] language plpgsql as $$
declare
  v_events new_event[];
begin
  with canceled as (
    update review v set status = 'canceled', check_at = null, updated_at = p_now
      from unnest(p_tasks, p_who) x (task_id, who)
      cross join lateral (select k.ctid from review k where k.task_id = x.task_id and k.workspace_id || '' = p_ws
        and k.check_at is not null and (p_run_id is null or k.run_id = p_run_id) offset 0) k
     where v.ctid = k.ctid
    returning v.*, x.who
  ), freed as (
    update review_lease l set ended_at = p_now, ended_how = 'cancel', ended_reason = p_why
      from canceled c
      cross join lateral (select k.ctid from review_lease k where k.workspace_id = p_ws
        and k.review_id = c.review_id and k.fence = c.fence and k.ended_at is null offset 0) k
     where l.ctid = k.ctid
  ), opened as (
    update run r set review = null
      from canceled c
      cross join lateral (select k.ctid from run k
        where k.workspace_id = p_ws and k.run_id = c.run_id and c.gating offset 0) k
     where r.ctid = k.ctid
  )
  -- Of a task that is about to go the log cannot look these up.
  select array_agg(_event(p_causes[coalesce(c.who, 1)], 'task.run_review_canceled', c.task_id, c.run_id,
           jsonb_build_object('review_id', c.review_id, 'cause', p_why, 'task_status', t.status,
             'status', r.status, 'attempt', r.attempt, 'fence', r.fence)) order by c.review_id)
    into v_events
    from canceled c
    cross join lateral _run(p_ws, c.run_id) r
    cross join lateral (select k.status from task k
      where k.workspace_id = p_ws and k.task_id = c.task_id offset 0) t;
  return coalesce(v_events, '{}');
end $$;

-- ══ Verdicts ════════════════════════════════════════════════════════════════════════════════════════════════

-- What somebody says of a review; `how`: the way in which that ends its lease.
create type review_verdict as (
  review_id text, outcome text, confidence float8, reason text, delivery_id text, missing_work json,
  next_round_guidance text, review_text text, by_person boolean, how text, cause cause);

-- Records verdicts on reviews (tasks and runs are locked) with what follows: a continuation run, another attempt,
-- or an open circuit. People's verdicts know no limits.
create function _record(
  p_ws text, p_now timestamptz, p_verdicts review_verdict[], p_max_attempts int,
  out tasks text[], out events new_event[]) language plpgsql as $$
declare
  v_runs new_run[];
  v_reviews review_wish[];
begin
  with judged as materialized (
    select u.*, v.n, v.cause as by, v.how, r.network_channel, r.status as run_status, t.available_at, x.circuit,
           v.outcome as given, v.confidence as sure, v.reason as why, v.delivery_id as delivery,
           coalesce(v.missing_work, '[]') as missing, v.next_round_guidance as guidance, v.review_text as text,
           case when v.outcome = 'rejected' and not x.circuit then _new_id('run') end as next_run_id,
           case when u.gating and not x.circuit and v.outcome in ('error', 'timeout', 'invalid_output')
                then _new_id('rev') end as next_review_id
      from unnest(p_verdicts) with ordinality v (review_id, outcome, confidence, reason, delivery_id, missing_work,
        next_round_guidance, review_text, by_person, how, cause, n)
      cross join lateral (select k.*, k.ctid as place from review k
        where k.workspace_id = p_ws and k.review_id = v.review_id offset 0) u
      cross join lateral _run(p_ws, u.run_id) r
      cross join lateral (select k.available_at from task k
        where k.workspace_id = p_ws and k.task_id = u.task_id offset 0) t
      cross join lateral (select k.review_max_rounds from task_body k
        where k.workspace_id = p_ws and k.task_id = u.task_id offset 0) b
      cross join lateral (select u.gating and not v.by_person and case
        when v.outcome = 'rejected' then u.review_round >= b.review_max_rounds
        else v.outcome in ('error', 'timeout', 'invalid_output') and u.attempt >= p_max_attempts end as circuit
        offset 0) x
  ), recorded as (
    update review v
       set status = case when j.circuit then 'circuit_opened' else 'recorded' end, outcome = j.given,
           confidence = j.sure, reason = j.why, delivery_id = j.delivery, missing_work = j.missing,
           next_round_guidance = j.guidance, review_text = j.text, continuation_run_id = j.next_run_id,
           reviewed_by_kind = (j.by).actor_kind, reviewed_by_ref = (j.by).actor_ref, reviewed_at = p_now,
           updated_at = p_now, check_at = null
      from judged j where v.ctid = j.place
  ), freed as (
    update review_lease l set ended_at = p_now, ended_how = j.how
      from judged j
      cross join lateral (select k.ctid from review_lease k where k.workspace_id = p_ws
        and k.review_id = j.review_id and k.fence = j.fence and k.ended_at is null offset 0) k
     where l.ctid = k.ctid
  ), marked as (
    update run r set review = case when j.circuit or j.given = 'blocked' then 'blocked'
                                   when j.next_review_id is not null then 'open' end
      from judged j
      cross join lateral (select k.ctid from run k
        where k.workspace_id = p_ws and k.run_id = j.run_id and j.gating offset 0) k
     where r.ctid = k.ctid
  ), forgotten as (
    update task_body b set checkpoint = null
      from judged j
      cross join lateral (select k.ctid from task_body k where k.workspace_id = p_ws and k.task_id = j.task_id
        and k.checkpoint is not null offset 0) k
     where b.ctid = k.ctid and j.gating and j.given = 'approved' and j.run_status = 'completed'
  ), told as (
    select j.n, e.place, e.event
      from judged j
      cross join lateral (select jsonb_build_object('review_id', j.review_id, 'outcome', j.given,
        'confidence', j.sure, 'reason', j.why, 'delivery_id', j.delivery, 'review_round', j.review_round,
        'missing_work', j.missing, 'next_round_guidance', j.guidance,
        'continuation_run_id', j.next_run_id) as verdict) p
      cross join lateral (values
        (1, j.circuit, _event(j.by, 'task.run_review_circuit_opened', j.task_id, j.run_id, jsonb_build_object(
           'review_id', j.review_id, 'outcome', j.given, 'review_round', j.review_round,
           'review_attempt', j.attempt))),
        (2, not j.circuit, _event(j.by, 'task.run_review_recorded', j.task_id, j.run_id, p.verdict)),
        (3, not j.circuit, _event(j.by, 'task.run_review_' || j.given, j.task_id, j.run_id, p.verdict)),
        (4, j.next_run_id is not null, _event(j.by, 'task.run_review_retry_enqueued', j.task_id, j.next_run_id,
           jsonb_build_object('review_id', j.review_id, 'parent_run_id', j.run_id,
             'continuation_run_id', j.next_run_id, 'review_round', j.review_round + 1)))
      ) e (place, holds, event)
     where e.holds
  )
  select array_agg(distinct j.task_id),
         array_agg(row(j.task_id, null, j.network_channel, json_build_object('source', 'task_run_review',
             'review_id', j.review_id, 'outcome', j.given, 'parent_run_id', j.run_id), null, j.available_at, null,
           false, j.next_run_id, j.by)::new_run order by j.n) filter (where j.next_run_id is not null),
         array_agg(row(j.next_review_id, j.run_id, j.review_id, j.by)::review_wish order by j.n)
           filter (where j.next_review_id is not null),
         (select array_agg(e.event order by e.n, e.place) from told e)
    into tasks, v_runs, v_reviews, events
    from judged j;
  if v_runs is not null then
    perform _continue(p_ws, p_now, v_runs);
  end if;
  if v_reviews is not null then
    events := events || _ask_reviews(p_ws, p_now, v_reviews);
  end if;
end $$;

-- Queues the runs that go on where a review found something missing. They burn no attempt.
create function _continue(p_ws text, p_now timestamptz, p_runs new_run[]) returns void language plpgsql as $$
begin
  perform _add_runs(p_ws, p_now, p_runs, false);
  with rejecting as (
    select n.run_id as next_run_id, v.*
      from unnest(p_runs) n
      cross join lateral (select k.* from review k where k.task_id = n.task_id and k.workspace_id || '' = p_ws
        and k.continuation_run_id = n.run_id offset 0) v
  ), linked as (
    update run r set parent_run_id = v.run_id, review_id = v.review_id, review_round = v.review_round + 1
      from rejecting v
      cross join lateral (select k.ctid from run k
        where k.workspace_id = p_ws and k.run_id = v.next_run_id offset 0) k
     where r.ctid = k.ctid
  ), told as (
    update run_body b set continuation = json_build_object('reason', v.reason, 'missing_work', v.missing_work,
                                                           'next_round_guidance', v.next_round_guidance)
      from rejecting v
      cross join lateral (select k.ctid from run_body k
        where k.workspace_id = p_ws and k.run_id = v.next_run_id offset 0) k
     where b.ctid = k.ctid
  )
  update task t set attempts_used = t.attempts_used - 1
    from rejecting v
    cross join lateral (select k.ctid from task k
      where k.workspace_id = p_ws and k.task_id = v.task_id offset 0) k
   where t.ctid = k.ctid;
end $$;
