-- The shapes of the wire, made after schema.sql.
-- One view an entity; `body` is its JSON, with the fields of the Struct of the same name in server/contract.

-- What lists filter by; null asks for nothing. Written once, put by the planner where it is called.
create function _task_fits(
  p_task task, p_scope text, p_status text[], p_priority smallint[], p_approval_state text, p_owner_kind text,
  p_owner_ref text, p_network_channel text, p_tag text[], p_identifier text, p_query text, p_include_drafts boolean)
returns boolean language sql stable as $$
  select (p_task.status <> 'draft' or p_include_drafts or 'draft' = any (p_status))
     and (p_scope is null or p_task.scope = p_scope)
     and (p_status is null or p_task.status = any (p_status))
     and (p_priority is null or p_task.priority = any (p_priority))
     and (p_approval_state is null or coalesce(p_task.approval_state, 'not_required') = p_approval_state)
     and (p_owner_kind is null or p_task.owner_kind = p_owner_kind)
     and (p_owner_ref is null or p_task.owner_ref = p_owner_ref)
     and (p_network_channel is null or p_task.network_channel = p_network_channel)
     and (p_tag is null or p_task.tags && p_tag)
     and (p_identifier is null or p_task.identifier = p_identifier)
     and (p_query is null or strpos(lower(p_task.title), lower(p_query)) > 0
          or strpos(lower(p_task.identifier), lower(p_query)) > 0)
$$;

create function _event_fits(
  p_event event, p_run_id text, p_event_type text[], p_actor_kind text, p_actor_ref text, p_since timestamptz,
  p_until timestamptz) returns boolean language sql stable as $$
  select (p_run_id is null or p_event.run_id = p_run_id)
     and (p_event_type is null or p_event.event_type = any (p_event_type))
     and (p_actor_kind is null or p_event.actor_kind = p_actor_kind)
     and (p_actor_ref is null or p_event.actor_ref = p_actor_ref)
     and (p_since is null or p_event.at >= p_since)
     and (p_until is null or p_event.at < p_until)
$$;

-- The same for the `result` of a whole task or run, and for what a review found missing.
create function _cut_result(p_body json) returns json language sql stable as $$
  select case when (p_body ->> 'result_bytes')::int > 8192 or (p_body ->> 'missing_work_bytes')::int > 8192
    then (p_body::jsonb
      || case when (p_body ->> 'result_bytes')::int > 8192 then '{"result": null}' else '{}' end::jsonb
      || case when (p_body ->> 'missing_work_bytes')::int > 8192 then '{"missing_work": null}'
              else '{}' end::jsonb)::json
    else p_body end
$$;

-- What the claims of a run used; each lease keeps its own, so a repeated report adds nothing.
create function _run_usage(p_ws text, p_run_id text) returns table (body json) language sql stable as $$
  select json_build_object(
         'input_tokens', coalesce(sum(l.input_tokens), 0), 'output_tokens', coalesce(sum(l.output_tokens), 0),
         'total_tokens', coalesce(sum(l.input_tokens), 0) + coalesce(sum(l.output_tokens), 0),
         'total_cost', coalesce(sum(l.total_cost), 0), 'cost_currency', min(l.cost_currency),
         'tool_calls', coalesce(sum(l.tool_calls), 0), 'turns', coalesce(sum(l.turns), 0))
    from (select k.* from lease k where k.workspace_id = p_ws and k.run_id = p_run_id offset 0) l
$$;

create view task_usage_wire as
select t.workspace_id, t.task_id, (select json_build_object(
         'input_tokens', coalesce(sum(l.input_tokens), 0), 'output_tokens', coalesce(sum(l.output_tokens), 0),
         'total_tokens', coalesce(sum(l.input_tokens), 0) + coalesce(sum(l.output_tokens), 0),
         'total_cost', coalesce(sum(l.total_cost), 0), 'cost_currency', min(l.cost_currency),
         'tool_calls', coalesce(sum(l.tool_calls), 0), 'turns', coalesce(sum(l.turns), 0))
         from (select k.run_id from run k
                where k.workspace_id = t.workspace_id and k.task_id = t.task_id offset 0) r
         cross join lateral (select k.* from lease k
           where k.workspace_id = t.workspace_id and k.run_id = r.run_id offset 0) l) as body
  from task t;

create function _task_reference_json(p_task task, p_sequence bigint) returns json language sql stable as $$
  select json_build_object(
    'id', p_task.task_id, 'identifier', p_task.identifier, 'title', p_task.title, 'status', p_task.status,
    'priority', _priority_name(p_task.priority), 'owner', _actor(p_task.owner_kind, p_task.owner_ref),
    'scope', p_task.scope, 'workspace_id', case when p_task.scope = 'workspace' then p_task.workspace_id end,
    'latest_event_seq', coalesce(p_sequence, 0),
    'paused', coalesce(p_task.paused_by_task_id = p_task.task_id, false),
    'effective_paused', p_task.paused_by_task_id is not null, 'paused_by_task_id', p_task.paused_by_task_id)
$$;

create view task_reference_wire as
select t.workspace_id, t.task_id, _task_reference_json(t, a.sequence) as body
  from task t left join task_activity a on a.workspace_id = t.workspace_id and a.task_id = t.task_id;

-- What belongs to a lease is shown while it lives and after it ended the run; a run that was queued again has
-- neither holder nor session.
create function _is_live(p_lease lease) returns boolean language sql stable as $$
  select p_lease.fence is not null and p_lease.ended_at is null
$$;

create function _is_held(p_lease lease) returns boolean language sql stable as $$
  select _is_live(p_lease) or coalesce(p_lease.ended_how in (
    'complete', 'fail', 'deadline', 'cancel', 'force'), false)
$$;

-- Whose the run is or was last: also where the lease ran out once too often, for then nobody queued it again.
create function _is_known(p_run run, p_lease lease) returns boolean language sql stable as $$
  select _is_held(p_lease) or coalesce(p_lease.ended_at = p_run.quarantined_at, false)
$$;

-- On which the holder of the run and others talk about it; computed, not stored.
create function _channel_json(
  p_ws text, p_task_id text, p_run_id text, p_channel text, p_title text, p_metadata json, p_active_at timestamptz)
returns json language sql stable as $$
  select json_build_object(
    'id', coalesce(p_channel, 'coord-' || p_run_id), 'channel', coalesce(p_channel, 'coord-' || p_run_id),
    'display_name', left(p_title, 80), 'purpose', 'task_run_coordination',
    'workspace_id', p_ws, 'task_id', p_task_id, 'run_id', p_run_id,
    'workflow_id', case when json_typeof(p_metadata -> 'workflow_id') = 'string'
                        then p_metadata ->> 'workflow_id' end,
    'allowed_message_kinds', '["status","request","reply","blocker","handoff","result","review_request"]'::json,
    'last_activity_at', _utc(p_active_at))
$$;

create function _lease_json(p_run run, p_lease lease, p_channel json) returns json language sql stable as $$
  select json_build_object(
    'task_id', p_run.task_id, 'run_id', p_run.run_id, 'status', p_run.status,
    'session_id', case when _is_held(p_lease) then p_lease.session_id end,
    'claimed_by', case when _is_known(p_run, p_lease)
                       then _actor(p_lease.claimed_by_kind, p_lease.claimed_by_ref) end,
    'claim_token_hash', 'sha256:' || encode(p_lease.token_hash, 'hex'), 'fence', p_lease.fence,
    'lease_until', case when _is_live(p_lease) then _utc(p_lease.lease_until) end,
    'heartbeat_at', case when _is_live(p_lease) then _utc(p_lease.heartbeat_at) end,
    'lease_seconds', p_lease.lease_seconds, 'deadline_at', _utc(p_lease.deadline_at),
    'coordination_channel_id', coalesce(p_run.network_channel, 'coord-' || p_run.run_id),
    'coordination_channel', p_channel)
$$;

create function _run_json(
  p_run run, p_max_attempts smallint, p_priority smallint, p_lease lease, p_body run_body, p_usage json,
  p_channel json default null) returns json language sql stable as $$
  select json_build_object(
    'id', p_run.run_id, 'task_id', p_run.task_id, 'status', p_run.status, 'attempt', p_run.attempt,
    'max_attempts', p_max_attempts, 'priority', _priority_name(p_priority),
    'previous_run_id', p_run.previous_run_id, 'failure_kind', p_run.failure_kind, 'retryable', p_run.retryable,
    'claimed_by', case when _is_known(p_run, p_lease)
                       then _actor(p_lease.claimed_by_kind, p_lease.claimed_by_ref) end,
    'agent_name', p_lease.agent_name,
    'session_id', case when _is_held(p_lease) then p_lease.session_id end,
    'origin', _actor(p_run.origin_kind, p_run.origin_ref), 'idempotency_key', p_run.idempotency_key,
    'network_channel', p_run.network_channel,
    'claim_token_hash', 'sha256:' || encode(p_lease.token_hash, 'hex'), 'fence', p_run.fence,
    'claim_kind', p_lease.claim_kind, 'claim_count', p_run.claim_count,
    'lease_until', case when _is_live(p_lease) then _utc(p_lease.lease_until) end,
    'heartbeat_at', case when _is_live(p_lease) then _utc(p_lease.heartbeat_at) end,
    'lease_seconds', case when _is_live(p_lease) then p_lease.lease_seconds end,
    'deadline_at', case when _is_live(p_lease) then _utc(p_lease.deadline_at) end,
    'lease_expiries', p_run.lease_expiries,
    'coordination_channel_id', coalesce(p_run.network_channel, 'coord-' || p_run.run_id),
    'coordination_channel', p_channel,
    'queued_at', _utc(p_run.queued_at), 'first_queued_at', _utc(p_run.first_queued_at),
    'available_at', _utc(p_run.available_at),
    'claimed_at', case when _is_known(p_run, p_lease) then _utc(p_lease.claimed_at) end,
    'started_at', _utc(p_run.started_at), 'ended_at', _utc(p_run.ended_at), 'error', p_body.error,
    'metadata', p_body.metadata, 'result', p_body.result,
    'result_bytes', octet_length(p_body.result::text),
    'progress', case when p_body.progress_at is not null then json_build_object(
      'percent', p_body.progress_percent, 'message', p_body.progress_message,
      'updated_at', _utc(p_body.progress_at)) end,
    'usage', p_usage, 'note', p_body.note, 'parent_run_id', p_run.parent_run_id, 'review_id', p_run.review_id,
    'review_round', p_run.review_round, 'continuation_reason', p_body.continuation -> 'reason',
    'missing_work', p_body.continuation -> 'missing_work',
    'missing_work_bytes', octet_length(p_body.continuation ->> 'missing_work'),
    'next_round_guidance', p_body.continuation -> 'next_round_guidance')
$$;

-- A run with its task and its current or last lease, as the objects that show them.
create view run_wire as
select r.workspace_id, r.run_id, r.task_id, r.status, r.previous_run_id, r.queued_at, r.fence, l.token_hash,
       l.claimed_at, case when _is_live(l::lease) then _utc(l.lease_until) end as lease_until,
       _lease_json(r, l::lease, c.body) as lease, c.body as coordination_channel, u.body as usage,
       _task_reference_json(t::task, a.sequence) as task, t.paused_by_task_id is not null as paused,
       _is_spent(t::task) as spent, _budget_left(t::task) as budget_left,
       _run_json(r, t.max_attempts, t.priority, l::lease, b::run_body, u.body) as body,
       -- As answers to claims have it.
       _run_json(r, t.max_attempts, t.priority, l::lease, b::run_body, u.body, c.body) as claimed_body
  from run r
  -- Each looked up by its key (offset 0), whatever the statistics say.
  cross join lateral (select k.* from task k
    where k.workspace_id = r.workspace_id and k.task_id = r.task_id offset 0) t
  left join lateral (select k.* from lease k
    where k.workspace_id = r.workspace_id and k.run_id = r.run_id and k.fence = r.fence offset 0) l on true
  left join lateral (select k.* from run_body k
    where k.workspace_id = r.workspace_id and k.run_id = r.run_id offset 0) b on true
  left join lateral (select k.sequence from task_activity k
    where k.workspace_id = r.workspace_id and k.task_id = r.task_id offset 0) a on true
  cross join lateral _run_usage(r.workspace_id, r.run_id) u
  cross join lateral (select _channel_json(
      r.workspace_id, r.task_id, r.run_id, r.network_channel, coalesce(t.identifier, t.title), b.metadata, (
        select e.at from event e where e.workspace_id = r.workspace_id and e.task_id = r.task_id
         and e.run_id = r.run_id order by e.sequence desc limit 1)) as body offset 0) c;

-- The fields of a run that its summary has.
create function _run_summary(p_run jsonb) returns json language plpgsql stable as $$
begin
  return case when p_run is not null then (select to_json(w) from (select
    p_run -> 'id' as id, p_run -> 'task_id' as task_id, p_run -> 'status' as status,
    p_run -> 'attempt' as attempt, p_run -> 'max_attempts' as max_attempts,
    p_run -> 'previous_run_id' as previous_run_id, p_run -> 'failure_kind' as failure_kind,
    p_run -> 'session_id' as session_id, p_run -> 'claimed_by' as claimed_by,
    p_run -> 'claim_token_hash' as claim_token_hash, p_run -> 'fence' as fence,
    p_run -> 'lease_until' as lease_until, p_run -> 'heartbeat_at' as heartbeat_at,
    p_run -> 'lease_expiries' as lease_expiries,
    p_run -> 'coordination_channel_id' as coordination_channel_id, null as coordination_channel,
    p_run -> 'queued_at' as queued_at, p_run -> 'available_at' as available_at,
    p_run -> 'claimed_at' as claimed_at, p_run -> 'started_at' as started_at,
    p_run -> 'ended_at' as ended_at, p_run -> 'error' as error, p_run -> 'progress' as progress) w) end;
end $$;

create view task_wire as
select t.workspace_id, t.task_id, t.version, f.body as common, _merge(f.body, wide.body) as body
  from task t
  left join task_body b on b.workspace_id = t.workspace_id and b.task_id = t.task_id
  left join task_activity a on a.workspace_id = t.workspace_id and a.task_id = t.task_id
  left join run_body n on n.workspace_id = t.workspace_id and n.run_id = t.newest_run_id
  -- By its key (offset 0), whatever the statistics say.
  cross join lateral (select k.body from task_usage_wire k
    where k.workspace_id = t.workspace_id and k.task_id = t.task_id offset 0) u
  cross join lateral (select to_json(w) as body from (select
         t.task_id as id, t.identifier, t.scope,
         case when t.scope = 'workspace' then t.workspace_id end as workspace_id, t.parent_task_id,
         t.network_channel, t.title, _priority_name(t.priority) as priority, t.max_attempts,
         t.auto_enqueue_on_ready, t.status,
         case when t.approval_state is null then 'none' else 'manual' end as approval_policy,
         coalesce(t.approval_state, 'not_required') as approval_state, b.approval_timeout_seconds,
         b.on_approval_timeout, _utc(b.approval_requested_at) as approval_requested_at,
         _utc(b.approval_decided_at) as approval_decided_at,
         _actor(b.approval_decided_by_kind, b.approval_decided_by_ref) as approval_decided_by,
         b.approval_reason, b.approval_expired, t.status = 'draft' as draft, _actor(t.owner_kind, t.owner_ref) as owner,
         t.current_run_id, coalesce(a.sequence, 0) as latest_event_seq,
         coalesce(t.paused_by_task_id = t.task_id, false) as paused, b.paused_by, _utc(b.paused_at) as paused_at,
         b.paused_reason, t.paused_by_task_id is not null as effective_paused, t.paused_by_task_id,
         _actor(t.created_by_kind, t.created_by_ref) as created_by, _actor(t.origin_kind, t.origin_ref) as origin,
         t.created_by_agent, t.created_by_run_id, _utc(t.created_at) as created_at,
         _utc(t.updated_at) as updated_at, _utc(t.closed_at) as closed_at,
         case when n.progress_at is not null then json_build_object('percent', n.progress_percent,
           'message', n.progress_message, 'updated_at', _utc(n.progress_at)) end as progress,
         u.body as usage, _budget_json(t) as budget, t.fence, t.version, t.attempts_used, t.dependencies_waiting,
         _utc(t.ready_at) as ready_at, _utc(t.available_at) as available_at,
         json_build_object('strategy', t.retry_strategy, 'base_seconds', t.retry_base_seconds,
           'max_seconds', t.retry_max_seconds) as retry,
         t.on_dependency_failure, t.review_policy, b.review_max_rounds, b.review_timeout_seconds,
         t.concurrency_key, t.concurrency_limit,
         t.max_lease_expiries, t.deadline_seconds, t.tags) w) f
  cross join lateral (select to_json(w) as body from (select
         b.description, b.metadata, b.payload,
         case when t.status = 'completed' then n.result end as result,
         case when t.status = 'completed' then octet_length(n.result::text) end as result_bytes,
         b.checkpoint, b.note) w) wide;

create view dependency_wire as
select d.workspace_id, d.task_id, d.depends_on_task_id, d.created_at, (select to_json(w) from (select
         d.task_id, d.depends_on_task_id, 'blocks' as kind, _utc(d.created_at) as created_at,
         d.satisfied) w) as body
  from dependency d;

create view dependency_reference_wire as
select d.workspace_id, d.task_id, d.depends_on_task_id, d.created_at,
       _merge(d.body, json_build_object('depends_on', t.body)) as body
  from dependency_wire d
  join task_reference_wire t on t.workspace_id = d.workspace_id and t.task_id = d.depends_on_task_id;

create view task_summary_wire as
select t.workspace_id, t.task_id, _merge(t.common, (select to_json(w) from (select
         (select count(*) from task c
           where c.workspace_id = t.workspace_id and c.parent_task_id = t.task_id) as child_count,
         (select count(*) from dependency d
           where d.workspace_id = t.workspace_id and d.task_id = t.task_id) as dependency_count,
         (select coalesce(json_agg(r.body order by x.created_at, x.depends_on_task_id), '[]')
            from (select d.created_at, d.depends_on_task_id from dependency d
                   where d.workspace_id = t.workspace_id and d.task_id = t.task_id
                   order by d.created_at, d.depends_on_task_id limit 20) x
            cross join lateral (select r.body from dependency_reference_wire r
              where r.workspace_id = t.workspace_id and r.task_id = t.task_id
                and r.depends_on_task_id = x.depends_on_task_id offset 0) r) as dependencies,
         (select _run_summary(r.body::jsonb) from task o join run_wire r
              on r.workspace_id = o.workspace_id and r.run_id = o.newest_run_id and _is_open(r.status)
           where o.workspace_id = t.workspace_id and o.task_id = t.task_id) as active_run,
         (select _utc(greatest(o.created_at, o.updated_at, a.at)) from task o left join task_activity a
              on a.workspace_id = o.workspace_id and a.task_id = o.task_id
           where o.workspace_id = t.workspace_id and o.task_id = t.task_id) as last_activity_at) w)) as body
  from task_wire t;

-- Event ids are made from what makes an event unique: time, workspace, sequence. They read as UUIDv7.
create function _event_id(p_ws text, p_sequence bigint, p_at timestamptz) returns text
language sql stable as $$
  select 'evt_' || encode(
      substring(int8send((extract(epoch from p_at) * 1000)::bigint) from 3)
      || set_byte(substring(decode(md5(p_ws), 'hex') from 1 for 2), 0,
                  get_byte(decode(md5(p_ws), 'hex'), 0) & 15 | 112)
      || set_byte(int8send(p_sequence), 0, get_byte(int8send(p_sequence), 0) & 63 | 128), 'hex')::uuid
$$;

create view event_wire as
select e.workspace_id, e.sequence, e.task_id, e.run_id, e.event_type, e.at, e.root_task_id, e.actor_kind,
       e.actor_ref,
       (select to_json(w) from (select
         _event_id(e.workspace_id, e.sequence, e.at) as id, e.task_id, e.run_id, e.event_type,
         _actor(e.actor_kind, e.actor_ref) as actor, _actor(e.origin_kind, e.origin_ref) as origin,
         _cut(e.payload::json) as payload, octet_length(e.payload::text) as payload_bytes,
         _utc(e.at) as timestamp) w) as body,
       (select to_json(w) from (select
         e.sequence, _event_id(e.workspace_id, e.sequence, e.at) as id, e.task_id, e.run_id, e.event_type,
         _actor(e.actor_kind, e.actor_ref) as actor, _actor(e.origin_kind, e.origin_ref) as origin,
         e.payload, octet_length(e.payload::text) as payload_bytes, _utc(e.at) as timestamp) w) as log_body
  from event e;

create view timeline_wire as
select e.workspace_id, e.sequence, e.task_id, e.root_task_id, e.event_type, (select to_json(w) from (select
         e.sequence, _event_id(e.workspace_id, e.sequence, e.at) as event_id,
         (select t.body from task_reference_wire t
           where t.workspace_id = e.workspace_id and t.task_id = e.task_id) as task,
         (select _run_summary(r.body::jsonb) from run_wire r
           where r.workspace_id = e.workspace_id and r.run_id = e.run_id) as run,
         e.event_type, _actor(e.actor_kind, e.actor_ref) as actor,
         _actor(e.origin_kind, e.origin_ref) as origin, _cut(e.payload::json) as payload,
         octet_length(e.payload::text) as payload_bytes, _utc(e.at) as timestamp) w) as body
  from event e;

create view task_detail_wire as
select t.workspace_id, t.task_id, t.version, json_build_object('task', (select to_json(w) from (select
         s.body as summary, _cut_result(t.body) as task,
         (select coalesce(json_agg(c.body order by x.created_at desc, x.task_id desc), '[]')
            from (select k.created_at, k.task_id from task k
                   where k.workspace_id = t.workspace_id and k.parent_task_id = t.task_id
                   order by k.created_at desc, k.task_id desc limit 50) x
            cross join lateral (select c.body from task_summary_wire c
              where c.workspace_id = t.workspace_id and c.task_id = x.task_id offset 0) c) as children,
         (select coalesce(json_agg(x.body), '[]') from (select d.body from dependency_wire d
           where d.workspace_id = t.workspace_id and d.task_id = t.task_id
           order by d.created_at, d.depends_on_task_id limit 1000) x) as dependencies,
         (select coalesce(json_agg(r.body order by x.created_at, x.depends_on_task_id), '[]')
            from (select d.created_at, d.depends_on_task_id from dependency d
                   where d.workspace_id = t.workspace_id and d.task_id = t.task_id
                   order by d.created_at, d.depends_on_task_id limit 1000) x
            cross join lateral (select r.body from dependency_reference_wire r
              where r.workspace_id = t.workspace_id and r.task_id = t.task_id
                and r.depends_on_task_id = x.depends_on_task_id offset 0) r) as dependency_references,
         (select coalesce(json_agg(x.body), '[]') from (select _cut_result(r.body) as body from run_wire r
           where r.workspace_id = t.workspace_id and r.task_id = t.task_id
           order by r.queued_at desc, r.run_id desc limit 50) x) as runs,
         (select coalesce(json_agg(x.body), '[]') from (select e.body from event_wire e
           where e.workspace_id = t.workspace_id and e.task_id = t.task_id
           order by e.sequence desc limit 50) x) as events) w)) as body
  from task_wire t
  join task_summary_wire s on s.workspace_id = t.workspace_id and s.task_id = t.task_id;

-- Everything that a claimer is told of a run.
create function _claim_json(
  p_task json, p_run json, p_lease json, p_channel json, p_inputs task_body, p_previous_error text,
  p_profile json, p_budget_left json, p_token text) returns text language sql stable as $$
  select json_build_object(
    'task', p_task, 'run', p_run, 'lease', _merge(p_lease, json_build_object('claim_token', p_token)),
    'coordination_channel', p_channel, 'payload', p_inputs.payload, 'checkpoint', p_inputs.checkpoint,
    'note', p_inputs.note, 'description', p_inputs.description, 'previous_error', p_previous_error,
    'budget_remaining', p_budget_left, 'execution_profile', p_profile)::text
$$;

create view profile_wire as
select p.workspace_id, p.task_id, _merge(_merge(json_build_object('task_id', p.task_id), p.profile::json),
         json_build_object('created_at', _utc(p.created_at), 'updated_at', _utc(p.updated_at))) as body
  from execution_profile p;

create view heartbeat_wire as
select w.workspace_id, w.run_id, json_build_object(
         'lease', w.lease, 'lease_until', w.lease_until, 'cancel_requested', w.spent,
         'stop_reason', case when w.spent then 'budget_exhausted' end, 'paused', w.paused,
         'budget_remaining', w.budget_left) as body
  from run_wire w;
