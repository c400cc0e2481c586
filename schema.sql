-- Worklease on PostgreSQL 15 and later: every table, and every transition as one function.
--
-- The life cycle
--
--   create ──> task blocked ──(last dependency satisfied)──> task ready ──> run queued ──> offer
--                                                                                           │ claim
--          retry, release, expiry: a queued run again, an offer again                       v
--   offer <─────────────────────────────────────────────────────────── run claimed, lease, task in_progress
--                                                                                           │ heartbeat
--                                                                                           v
--   task completed <── complete ── run running ── fail ──> task failed (or a new queued run)
--                                      │ lease_until passes, sweep
--                                      v
--                        queued again after a back-off, or needs_attention
--
-- A *task* is what is to be done, a *run* one attempt, a *lease* the time-limited right to a run, an *offer*
-- the queue's row for a run that may be claimed now, a *lane* one distinct set of demands on a claimer.
--
-- How a transition is written: lock in one statement, look in the next (it has a new snapshot), change, settle,
-- log, answer. Lock order: scheduler rows, edge lock, idempotency keys (sorted), task rows, run rows, lane lock,
-- slots, offers, log lock; within a kind by id, trees parent first. The task row is the lock of everything of its
-- task; every write to an edge holds its waiting task. A claim comes from the offers' end and takes slots, offers
-- and tasks with SKIP LOCKED, so it never waits for any. Deadlocks that remain (40P01) mean rolled back: the server
-- repeats.
--
-- _settle() ends every transition: it alone derives task status, counts dependencies, queues runs that became
-- runnable and makes or withdraws offers. Only a claim does without: _lease_out() writes the one status that it
-- knows by construction (in_progress, of a run whose offer it holds), and its own event. Events come last,
-- under the workspace's log lock, so that sequence order is commit order.
--
-- Refusals are raised with SQLSTATE WL001: the message is the error code, the detail its evidence (JSON).
-- Functions of many callers (claim, heartbeat, complete, fail, release) answer a row per caller instead.
-- Functions whose names begin with an underscore are parts of others; the server calls none that changes a row.
-- What objects look like on the wire stands in server/db/sql/wire.sql, which is applied after this file.

-- ══ 1. Versions, clock, identifiers ═════════════════════════════════════════════════════════════════════════

create table schema_version (version int not null, compatible_from int not null);
insert into schema_version values (1, 1);

-- The secrets under which claim tokens were made: a server that has none of them stays out.
create table server_secret (fingerprint bytea primary key, known_since timestamptz not null default clock_timestamp());

-- One row while tests move the clock, none otherwise.
create table test_clock (offset_by interval not null);

create function lease_now() returns timestamptz language sql volatile as $$
  select clock_timestamp() + coalesce((select offset_by from test_clock), interval '0')
$$;

-- A UUIDv7 (milliseconds, then random) behind the prefix of its kind.
create function _new_id(p_prefix text) returns text language sql volatile as $$
  select p_prefix || '_' || encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid()) placing
    substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3) from 1 for 6),
    52, 1), 53, 1), 'hex')::uuid
$$;

-- Timestamps on the wire: RFC 3339, UTC, six digits.
create function _utc(p_at timestamptz) returns text language sql stable as $$
  select to_char(p_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
$$;

create function _refuse(p_code text, p_evidence jsonb default '{}') returns void language plpgsql as $$
begin
  raise exception using errcode = 'WL001', message = p_code, detail = p_evidence::text;
end $$;

-- Refuses one field that breaks a rule.
create function _refuse_field(p_field text, p_rule text, p_message text) returns void language plpgsql as $$
begin
  perform _refuse('validation_failed', jsonb_build_object('errors', jsonb_build_array(
    jsonb_build_object('field', p_field, 'rule', p_rule, 'message', p_message))));
end $$;

-- ══ 2. Tables ═══════════════════════════════════════════════════════════════════════════════════════════════
-- Text is compared byte by byte (collate "C"): keys sort the same on every server and in every cursor.
create domain word as text collate "C";

create table workspace (
  workspace_id word primary key,
  name word not null unique,
  display_name text,
  settings jsonb not null default '{}',      -- only what differs from the defaults
  version int not null default 1,
  created_at timestamptz not null default lease_now(),
  updated_at timestamptz not null default lease_now());

-- What is locked, never updated, to put the writers of one workspace in order: 'log', 'edge', 'lane'.
-- A table of its own, so that no foreign key check ever waits for these locks.
create table workspace_lock (workspace_id word, name word, primary key (workspace_id, name));

-- The switches that stop all claims: of a workspace, from its first pause on, and '*' of all of them.
create table scheduler (
  workspace_id word primary key,
  paused_by text,
  paused_at timestamptz,                     -- null: not paused
  paused_reason text,
  resumed_at timestamptz,                    -- what waited until then did not starve
  drain_started_at timestamptz,              -- of the last drain, until the next resume
  drain_completed_at timestamptz);
insert into scheduler (workspace_id) values ('*');

create table api_key (
  key_id word primary key,
  workspace_id word references workspace,    -- null: all workspaces (admins)
  name word not null,
  role word not null check (role in ('viewer', 'agent', 'operator', 'admin')),
  agent_name word,
  actor_kind word,
  secret_hash bytea not null,                -- SHA-256 of the whole key text
  prefix text not null,
  created_by_kind word not null,
  created_by_ref text not null,
  created_at timestamptz not null default lease_now(),
  expires_at timestamptz,
  last_used_at timestamptz,
  revoked_at timestamptz,
  rotated_to word);
create unique index api_key_name on api_key (coalesce(workspace_id, ''), name)
  where revoked_at is null and rotated_to is null;
create unique index api_key_secret on api_key (secret_hash);

create table agent_session (
  workspace_id word references workspace,
  session_id word,
  agent_name word not null,
  channel word,
  capabilities text[] not null default '{}',
  created_at timestamptz not null default lease_now(),
  updated_at timestamptz not null default lease_now(),
  primary key (workspace_id, session_id));

-- The first use of an Idempotency-Key: which objects it made, so that a repeat can answer them.
create table idempotency_key (
  workspace_id word,
  key_id word,                               -- the API key under which the request came
  key word,
  request_hash bytea not null,
  status int not null,
  ids jsonb not null,
  created_at timestamptz not null default lease_now(),
  primary key (workspace_id, key_id, key));
create index idempotency_key_age on idempotency_key (created_at);

create table task (
  workspace_id word references workspace,
  task_id word,
  root_task_id word not null,
  parent_task_id word,
  depth smallint not null,
  identifier text,
  scope word not null,
  title text not null,
  network_channel word,
  priority smallint not null,                -- 10 low, 20 medium, 30 high, 40 urgent
  max_attempts smallint not null,
  auto_enqueue_on_ready boolean not null,
  status word not null default 'blocked',    -- written by _settle() and _lease_out() only
  canceled boolean not null default false,
  draft boolean not null default false,      -- made as one and not published yet
  approval_state word,                       -- null: none is asked for
  paused_by_task_id word,                    -- itself, else its nearest paused ancestor
  owner_kind word,
  owner_ref text,
  newest_run_id word,                        -- the run with the highest attempt; only it can be open
  current_run_id word,                       -- = newest_run_id while that is claimed, starting or running
  created_by_kind word not null,
  created_by_ref text not null,
  origin_kind word not null,
  origin_ref text not null,
  created_by_agent text,
  created_by_run_id word,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  closed_at timestamptz,
  fence bigint not null default 0,           -- number of the last claim; only ever rises
  version int not null default 1,
  attempts_used int not null default 0,
  dependencies_waiting int not null default 0,
  ready_at timestamptz,
  available_at timestamptz,
  retry_strategy word not null,
  retry_base_seconds int not null,
  retry_max_seconds int not null,
  on_dependency_failure word not null,
  max_lease_expiries smallint not null,
  deadline_seconds int,
  review_policy word not null default 'none',
  concurrency_key word,                      -- what only so many leased runs may share: slots.sql
  concurrency_limit int,
  max_total_tokens bigint,                   -- the budget: budgets.sql
  max_cost numeric(18, 6),
  tags text[] not null default '{}',
  primary key (workspace_id, task_id),
  foreign key (workspace_id, parent_task_id) references task
) with (fillfactor = 80);                    -- a claim and a completion update in place (HOT)
create index task_parent on task (workspace_id, parent_task_id, created_at, task_id)
  where parent_task_id is not null;
create index task_root on task (workspace_id, root_task_id) where parent_task_id is not null;
-- For lists, which name its condition (true of every task) and so are the only ones to meet it.
create index task_created on task (workspace_id, created_at, task_id) where depth > 0;
-- No other full index begins with workspace_id and is narrower than the primary key: for a workspace that looks
-- empty the planner would take it, and read all tasks for one.

-- What of a task is wide or seldom read, apart from the row that every claim updates.
create table task_body (
  workspace_id word,
  task_id word,
  description text,
  metadata json,
  payload json,
  checkpoint json,
  note text,
  approval_timeout_seconds int,
  on_approval_timeout word not null default 'wait',
  approval_requested_at timestamptz,
  approval_decided_at timestamptz,
  approval_decided_by_kind word,
  approval_decided_by_ref text,
  approval_reason text,
  approval_expired boolean not null default false,
  approval_due_at timestamptz,               -- when the loop `approvals` is to look at it next
  paused_by text,
  paused_at timestamptz,
  paused_reason text,
  review_max_rounds smallint not null default 3,
  review_timeout_seconds int not null default 86400,
  primary key (workspace_id, task_id),
  foreign key (workspace_id, task_id) references task on delete cascade);
create index task_body_paused on task_body (workspace_id, task_id) where paused_at is not null;
create index task_body_approval on task_body (approval_due_at, workspace_id) where approval_due_at is not null;

-- What a task demands of its worker (and, unread by the server, of its sandbox and coordinator).
create table execution_profile (
  workspace_id word,
  task_id word,
  profile jsonb not null,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  primary key (workspace_id, task_id),
  foreign key (workspace_id, task_id) references task on delete cascade);

-- Deleted ids are not free again, and their events keep their place in the tree.
create table deleted_task (
  workspace_id word,
  task_id word,
  parent_task_id word,
  root_task_id word not null,
  primary key (workspace_id, task_id));
create index deleted_task_parent on deleted_task (workspace_id, parent_task_id) where parent_task_id is not null;

create table dependency (
  workspace_id word,
  task_id word,
  depends_on_task_id word,
  satisfied boolean not null,                -- kept by _settle(); dependencies_waiting counts the false ones
  created_at timestamptz not null,
  primary key (workspace_id, task_id, depends_on_task_id),
  foreign key (workspace_id, task_id) references task on delete cascade,
  foreign key (workspace_id, depends_on_task_id) references task);
create index dependency_reverse on dependency (depends_on_task_id, task_id, workspace_id);

create table run (
  workspace_id word,
  run_id word,
  task_id word not null,
  status word not null default 'queued',
  attempt int not null,
  previous_run_id word,
  retries int not null default 0,            -- automatic retries in the chain of previous_run_id
  chain int not null default 1,              -- length of that chain
  failure_kind word,
  retryable boolean,
  review word,                               -- of its gating review: open, or blocked until a person decides
  parent_run_id word,                        -- of a continuation and its retries: the run that was rejected,
  review_id word,                            -- in which review,
  review_round int,                          -- and how many rejections there have been, and one
  origin_kind word not null,
  origin_ref text not null,
  idempotency_key text,
  network_channel word,
  lane_id bigint not null,
  fence bigint,                              -- of the current or last lease
  claim_count int not null default 0,
  lease_expiries int not null default 0,
  lapses int not null default 0,             -- expiries since the last new checkpoint
  first_queued_at timestamptz not null,
  queued_at timestamptz not null,
  available_at timestamptz not null,
  due_at timestamptz,                        -- of a queued run without offer: = available_at if only time keeps
                                             -- it from one, else infinity; with a concurrency key always
  started_at timestamptz,
  ended_at timestamptz,
  quarantined_at timestamptz,                -- when it came to need attention; stays when that is over
  primary key (workspace_id, run_id),
  foreign key (workspace_id, task_id) references task on delete cascade
) with (fillfactor = 80);
create unique index run_attempt on run (task_id, attempt, workspace_id);
create index run_quarantined on run (workspace_id, run_id) where quarantined_at is not null;
create index run_due on run (due_at, workspace_id) where due_at is not null;
create index run_due_here on run (workspace_id, due_at) where due_at is not null;
create index run_without_offer on run (lane_id, workspace_id) where due_at is not null;

-- The wide values of a run; a row from the first of them on. No foreign key, as with lease: whoever writes here
-- holds the run.
create table run_body (
  workspace_id word,
  run_id word,
  metadata json,
  result json,
  error text,
  note text,
  continuation json,                         -- what the rejection said: reason, missing_work, next_round_guidance
  progress_percent double precision,
  progress_message text,
  progress_at timestamptz,
  primary key (workspace_id, run_id));

-- One row a claim, live until ended_at is set, and remembered as long as the run. No foreign key: claim_runs()
-- holds the run it writes here, and delete_task() takes both. Heartbeats change no indexed column; check_at is
-- a lower bound of lease_until that the sweep moves.
create table lease (
  workspace_id word,
  run_id word,
  fence bigint,
  task_id word not null,
  session_id word,
  agent_name text,
  claimed_by_kind word not null,
  claimed_by_ref text not null,
  claim_kind word not null,                  -- 'agent' or 'manual'
  claim_key word,
  claim_hash bytea,                          -- of the request that came with claim_key
  token_hash bytea not null,
  claimed_at timestamptz not null,
  lease_seconds int not null,
  lease_until timestamptz not null,
  heartbeat_at timestamptz not null,
  deadline_at timestamptz,
  check_at timestamptz not null,
  ended_at timestamptz,
  ended_how word,                            -- complete fail release expiry deadline cancel client_gone revoke force
  ended_reason text,
  input_tokens bigint,                       -- usage since this claim, the greatest value reported
  output_tokens bigint,
  total_cost numeric(18, 6),
  cost_currency word,
  tool_calls bigint,
  turns bigint,
  concurrency_key word,                      -- of the task, while it lives
  primary key (workspace_id, run_id, fence)
) with (fillfactor = 80);
create index lease_check on lease (check_at, workspace_id) where ended_at is null;
create index lease_session on lease (session_id, workspace_id, claimed_at) where ended_at is null;
create index lease_claim_key on lease (claim_key, session_id, workspace_id) where claim_key is not null;
create index lease_slot on lease (concurrency_key, workspace_id)
  where ended_at is null and concurrency_key is not null;

-- One distinct set of demands on a claimer. Ids rise in commit order within a workspace (lane lock), so a
-- cached list is whole as long as no id is higher. A lane that nothing uses is first retired: nobody takes it up
-- any more, and who asks for its demands makes another. It goes two hours later, if it is still not in use; until
-- then claims read it, for the sake of a transition that took it up just before.
create table lane (
  workspace_id word,
  lane_id bigint generated always as identity,
  demands jsonb not null,
  digest uuid not null generated always as (md5(demands::text)::uuid) stored,
  created_at timestamptz not null default lease_now(),
  retired_at timestamptz,
  primary key (workspace_id, lane_id));
create unique index lane_digest on lane (workspace_id, digest) where retired_at is null;

-- The queue: the runs that may be claimed now. rank_at = available_at less the head start of the priority.
create table offer (
  workspace_id word,
  lane_id bigint,
  priority smallint,
  rank_at timestamptz,
  run_id word,
  task_id word not null,
  available_at timestamptz not null,         -- of the run when the offer was made
  waiting_since timestamptz not null,        -- that, or when the task last became ready or was resumed
  starved boolean not null default false,    -- an event tells that it waits for long
  concurrency_key word,                      -- such an offer comes and goes under the lock of its slot
  made xid8 not null default pg_current_xact_id(),  -- lane, priority and rank_at are as this transaction made them
  primary key (lane_id, priority, rank_at, run_id, workspace_id),
  unique (workspace_id, run_id));
create index offer_made on offer (workspace_id, made, lane_id, priority, rank_at, run_id);
create index offer_starving on offer (workspace_id, waiting_since) where not starved;
create index offer_slot on offer (concurrency_key, workspace_id) where concurrency_key is not null;

-- The log. No foreign key: events outlive their tasks.
create table event (
  workspace_id word,
  sequence bigint,
  task_id word,
  root_task_id word,
  run_id word,
  event_type word not null,
  actor_kind word not null,
  actor_ref text not null,
  origin_kind word not null,
  origin_ref text not null,
  payload jsonb not null,
  at timestamptz not null,
  open_tasks int not null,                   -- tasks of the workspace that had not ended after this transition
  primary key (workspace_id, sequence));
create index event_task on event (task_id, sequence, workspace_id) where task_id is not null;
create index event_root on event (workspace_id, root_task_id, sequence) where root_task_id <> task_id;

-- The newest event of each task, for lists in order of activity; written under the log lock.
create table task_activity (
  workspace_id word,
  task_id word,
  sequence bigint not null,
  at timestamptz not null,
  primary key (workspace_id, task_id)) with (fillfactor = 80);
create index task_activity_order on task_activity (workspace_id, at, task_id);

-- Tasks that a failed dependency cancels (on_dependency_failure), beyond what one transaction does; the loop
-- `cascade` goes on with them. root_task_id: at which task that cancel began, here or above.
create table cascade_task (
  workspace_id word,
  step bigint generated always as identity,
  task_id word not null,
  root_task_id word not null,
  primary key (workspace_id, step));

-- When each background service last finished a pass.
create table beat (name word primary key, at timestamptz not null);

-- ══ 3. Types passed between functions ═══════════════════════════════════════════════════════════════════════

-- Who causes a transition, and by which way it came.
create type cause as (
  actor_kind text, actor_ref text, origin_kind text, origin_ref text, agent_name text, session_id text,
  key_id text);

create type new_event as (task_id text, run_id text, event_type text, payload jsonb, cause cause);

create type new_run as (
  task_id text, previous_run_id text, network_channel text, metadata json, idempotency_key text,
  available_at timestamptz, reason text, automatic boolean, run_id text, cause cause);

-- A call under a lease, as the server decoded it: the n-th of its batch, from 0. `genuine`: the token's HMAC is
-- this server's.
create type lease_call as (
  n int, run_id text, session_id text, agent_name text, token_hash text, token_fence bigint, genuine boolean,
  fence bigint, lease_seconds int, cause cause,
  result json, error text, failure_kind text, retryable boolean, retry_after_seconds int, metadata json,
  reason text, note text, delay_seconds int, checkpoint json, progress json, usage json);

-- One answer of a function of many callers: refused (code), repeated, or done, with the JSON to send; evidence of
-- what was done is for the metrics.
create type call_answer as (n int, code text, evidence jsonb, replayed boolean, body text, offers int);

-- A gating review to be asked for: of a run that ended, or again after one that came to nothing (its parent).
create type review_wish as (review_id text, run_id text, parent_review_id text, cause cause);

create function _cause(p_cause jsonb) returns cause language sql stable as $$
  select jsonb_populate_record(null::cause, p_cause)
$$;

create function _event(p_cause cause, p_type text, p_task_id text, p_run_id text, p_payload jsonb)
returns new_event language sql stable as $$
  select row(p_task_id, p_run_id, p_type, p_payload, p_cause)::new_event
$$;

-- ══ 4. Settings ═════════════════════════════════════════════════════════════════════════════════════════════

create function _setting(p_settings jsonb, p_name text, p_default int) returns int language sql stable as $$
  select coalesce((p_settings ->> p_name)::int, p_default)
$$;

-- The head start of a priority, in seconds.
create function _head_start(p_settings jsonb, p_priority smallint) returns int language sql stable as $$
  select coalesce((p_settings -> 'head_start_seconds' ->> case p_priority
           when 10 then 'low' when 20 then 'medium' when 30 then 'high' else 'urgent' end)::int,
         case p_priority when 10 then 0 when 20 then 600 when 30 then 3600 else 86400 end)
$$;

create function _priority_name(p_priority smallint) returns text language sql stable as $$
  select case p_priority when 10 then 'low' when 20 then 'medium' when 30 then 'high' else 'urgent' end
$$;

-- For statements over many rows: from here to the end of the transition they are planned for what they get, where
-- the cached plan for a few (server/db/sql/planner.sql) would join them row by row.
create function _are_many(p_rows int) returns boolean language sql immutable as $$ select p_rows > 200 $$;

create function _plan_for_many() returns void language plpgsql as $$
begin
  perform set_config('plan_cache_mode', 'force_custom_plan', true), set_config('enable_hashjoin', 'on', true);
end $$;

-- ══ 5. The log ══════════════════════════════════════════════════════════════════════════════════════════════

-- Numbers and writes the events of one transition. Takes the workspace's log lock, the last lock of all, and
-- reads the highest sequence in the next statement: so sequence order is commit order, without gaps. The newest
-- event also carries how many tasks are open, p_opened more than before, and that is answered: a count that is
-- exact under this lock and needs neither a row that all transitions update nor a look at the tasks.
create function _log(p_ws text, p_now timestamptz, p_events new_event[], p_opened int default 0) returns int
language plpgsql as $$
declare
  v_open int;
begin
  if _are_many(cardinality(p_events)) then
    perform _plan_for_many();
  end if;
  perform 1 from workspace_lock l where l.workspace_id = p_ws and l.name = 'log' for no key update;

  -- task_status, status, attempt and fence are those after the whole transition.
  with logged as (
    insert into event (workspace_id, sequence, task_id, root_task_id, run_id, event_type, actor_kind, actor_ref,
                       origin_kind, origin_ref, payload, at, open_tasks)
    select p_ws, coalesce(x.sequence, 0) + e.n, e.task_id, coalesce(t.root_task_id, d.root_task_id), e.run_id,
           e.event_type, (e.cause).actor_kind, (e.cause).actor_ref, (e.cause).origin_kind,
           (e.cause).origin_ref,
           case when r.run_id is not null then e.payload || jsonb_build_object('task_status', t.status,
                  'status', r.status, 'attempt', r.attempt, 'fence', r.fence)
                when t.task_id is not null then e.payload || jsonb_build_object('task_status', t.status)
                else e.payload end,
           p_now, coalesce(x.open_tasks, 0) + p_opened
      -- The highest sequence from the index alone, then its event by key: never a sort of the log.
      from (select m.sequence, (select l.open_tasks from event l
                where l.workspace_id = p_ws and l.sequence = m.sequence) as open_tasks
              from (select (select l.sequence from event l
                where l.workspace_id = p_ws order by l.sequence desc limit 1) as sequence offset 0) m offset 0) x
      cross join unnest(p_events) with ordinality e (task_id, run_id, event_type, payload, cause, n)
      left join lateral (select k.task_id, k.root_task_id, k.status from task k
        where k.workspace_id = p_ws and k.task_id = e.task_id offset 0) t on true
      left join lateral (select k.run_id, k.status, k.attempt, k.fence from run k
        where k.workspace_id = p_ws and k.run_id = e.run_id offset 0) r on true
      left join deleted_task d on t.task_id is null and d.workspace_id = p_ws and d.task_id = e.task_id
    returning task_id, sequence, open_tasks
  ), active as (
    insert into task_activity (workspace_id, task_id, sequence, at)
    select p_ws, g.task_id, max(g.sequence), p_now from logged g where g.task_id is not null group by g.task_id
    on conflict (workspace_id, task_id) do update set sequence = excluded.sequence, at = excluded.at
  )
  select g.open_tasks into v_open from logged g limit 1;
  return v_open;
end $$;

-- Events of workspaces and keys, one cause for each.
create function _log_events(p_workspace_id text, p_events jsonb) returns void language sql as $$
  select _log(p_workspace_id, lease_now(), array_agg(row(x ->> 'task_id', x ->> 'run_id', x ->> 'type',
                x -> 'payload', _cause(x))::new_event order by n))
    from jsonb_array_elements(p_events) with ordinality e (x, n)
$$;

-- ══ 6. Lanes ════════════════════════════════════════════════════════════════════════════════════════════════

-- What a run demands of its claimer: owner, channel, and the worker and participants lists of the profile.
-- Absent demands are left out, so equal demands are equal JSON.
create function _demands(p_owner_kind text, p_owner_ref text, p_channel text, p_profile jsonb) returns jsonb
language sql stable as $$
  select jsonb_strip_nulls(jsonb_build_object(
    'owner_kind', p_owner_kind, 'owner_ref', p_owner_ref, 'channel', p_channel,
    'agent', p_profile -> 'worker' ->> 'agent_name',
    'worker_agents', nullif(p_profile -> 'worker' -> 'allowed_agent_names', '[]'),
    'agents', nullif(p_profile -> 'participants' -> 'allowed_agent_names', '[]'),
    'channels', nullif(p_profile -> 'participants' -> 'allowed_channel_ids', '[]'),
    'peers', nullif(p_profile -> 'participants' -> 'allowed_peer_ids', '[]'),
    'capabilities', (select nullif(jsonb_agg(distinct c order by c), '[]')
       from jsonb_array_elements_text(
         coalesce(p_profile -> 'worker' -> 'required_capabilities', '[]')
         || coalesce(p_profile -> 'participants' -> 'required_capabilities', '[]')) c)))
$$;

-- Refuses to queue runs in these lanes (the lane lock is held) if more than 1,000 would then have queued runs.
-- Every queued run has an offer or a due_at.
create function _check_lanes(p_ws text, p_demands jsonb[]) returns void language plpgsql as $$
declare
  v_count int;
  v_more boolean;
begin
  select count(*), bool_or(u.digest is null) into v_count, v_more
    from (select distinct l.digest from lane l
           where l.workspace_id = p_ws and (
             exists (select from offer o where o.workspace_id = p_ws and o.lane_id = l.lane_id)
             or exists (select from run r
                 where r.workspace_id = p_ws and r.lane_id = l.lane_id and r.due_at is not null))) u
    full join (select md5(d::text)::uuid as digest from unnest(p_demands) d) asked using (digest);
  if v_more and v_count > 1000 then
    perform _refuse('lane_limit', jsonb_build_object('limit', 1000, 'count', v_count));
  end if;
end $$;

-- The lanes of distinct demands. Missing ones are made under the lane lock, so that ids rise in commit order;
-- p_asked: for runs that the call itself queues, which the limit of lanes holds for. It is counted under that
-- lock too, and only where there are so many lanes that it could be passed.
create function _lanes(p_ws text, p_demands jsonb[], p_asked boolean)
returns table (demands jsonb, lane_id bigint) language plpgsql as $$
declare
  v_lanes bigint[] := array(select l.lane_id from unnest(p_demands) with ordinality d (demands, n)
    left join lane l on l.workspace_id = p_ws and l.digest = md5(d.demands::text)::uuid and l.retired_at is null
    order by d.n);
begin
  if array_position(v_lanes, null) is not null
     or (p_asked and exists (select from lane l where l.workspace_id = p_ws order by l.lane_id offset 999)) then
    perform 1 from workspace_lock l where l.workspace_id = p_ws and l.name = 'lane' for no key update;
    if p_asked and cardinality(p_demands) + (select count(*) from lane l where l.workspace_id = p_ws) > 1000 then
      perform _check_lanes(p_ws, p_demands);
    end if;
    insert into lane (workspace_id, demands) select p_ws, d from unnest(p_demands) d order by d
      on conflict (workspace_id, digest) where retired_at is null do nothing;
    v_lanes := array(select l.lane_id from unnest(p_demands) with ordinality d (demands, n)
      join lane l on l.workspace_id = p_ws and l.digest = md5(d.demands::text)::uuid and l.retired_at is null
      order by d.n);
  end if;
  return query select * from unnest(p_demands, v_lanes);
end $$;

-- ══ 7. Rules ════════════════════════════════════════════════════════════════════════════════════════════════

-- Whether a task of this status satisfies an edge of a task with this policy.
create function _satisfies(p_status text, p_on_dependency_failure text) returns boolean
language sql stable as $$
  select p_status = 'completed'
      or (p_on_dependency_failure = 'run' and p_status in ('failed', 'canceled'))
$$;

create function _is_open(p_run_status text) returns boolean language sql stable as $$
  select coalesce(p_run_status in ('queued', 'claimed', 'starting', 'running', 'needs_attention'), false)
$$;

create function _has_ended(p_status text) returns boolean language sql stable as $$
  select p_status in ('completed', 'failed', 'canceled')
$$;

create function _is_leased(p_run_status text) returns boolean language sql stable as $$
  select coalesce(p_run_status in ('claimed', 'starting', 'running'), false)
$$;

-- The wait before the n-th further attempt.
create function _back_off(p_strategy text, p_base int, p_max int, p_n int) returns interval
language sql volatile as $$
  select make_interval(secs => least(p_max, case p_strategy
    when 'none' then 0
    when 'fixed' then p_base
    when 'linear' then p_base::float8 * p_n
    else p_base * power(2::float8, least(p_n, 64) - 1) * (0.5 + random() / 2) end))
$$;

-- Two JSON objects as one, the order of their fields kept.
create function _merge(p_a json, p_b json) returns json language sql stable as $$
  select (left(p_a::text, -1) || ',' || substr(p_b::text, 2))::json
$$;

-- A free JSON value as it stands in lists, timelines and streams: null above 8 KiB.
create function _cut(p_value json) returns json language sql stable as $$
  select case when octet_length(p_value::text) <= 8192 then p_value end
$$;

create function _actor(p_kind text, p_ref text) returns json language sql stable as $$
  select case when p_kind is not null then json_build_object('kind', p_kind, 'ref', p_ref) end
$$;

-- ══ 8. Settle: the one place of status, counts, queueing and offers ═════════════════════════════════════════

-- Queues one run for each row: numbers it, finds its lane, links it to its task (locked by the caller). p_asked:
-- the call wants these runs, and may be refused for them (_lanes).
create function _add_runs(p_ws text, p_now timestamptz, p_runs new_run[], p_asked boolean) returns new_event[]
language plpgsql as $$
declare
  v_events new_event[];
begin
  if _are_many(cardinality(p_runs)) then
    perform _plan_for_many();
  end if;
  -- Demands first, each distinct set once: a missing lane is made before anything is queued in it.
  with wanted as materialized (
    select x.*, coalesce(x.run_id, _new_id('run')) as new_id, t.attempts_used, n.attempt as newest_attempt,
           s.retries as source_retries, s.chain as source_chain, s.parent_run_id, s.review_id, s.review_round,
           c.continuation, _demands(t.owner_kind, t.owner_ref, x.network_channel, p.profile) as demands, t.place
      from unnest(p_runs) x
      cross join lateral (select k.*, k.ctid as place from task k
        where k.workspace_id = p_ws and k.task_id = x.task_id offset 0) t
      left join lateral (select k.attempt from run k
        where k.workspace_id = p_ws and k.run_id = t.newest_run_id offset 0) n on true
      left join lateral (select k.* from run k
        where k.workspace_id = p_ws and k.run_id = x.previous_run_id offset 0) s on true
      -- Who tries a continuation again is told what it goes on from.
      left join lateral (select k.continuation from run_body k where k.workspace_id = p_ws
        and k.run_id = x.previous_run_id and s.parent_run_id is not null offset 0) c on true
      left join lateral (select k.profile from execution_profile k
        where k.workspace_id = p_ws and k.task_id = x.task_id offset 0) p on true
  ), lanes as materialized (
    select l.demands, l.lane_id
      from _lanes(p_ws, array(select distinct w.demands from wanted w), p_asked) l
  ), queued as (
    insert into run (workspace_id, run_id, task_id, attempt, previous_run_id, retries, chain, parent_run_id,
                     review_id, review_round, origin_kind, origin_ref, idempotency_key, network_channel, lane_id,
                     first_queued_at, queued_at, available_at)
    select p_ws, w.new_id, w.task_id, coalesce(w.newest_attempt, 0) + 1, w.previous_run_id,
           coalesce(w.source_retries, 0) + w.automatic::int, coalesce(w.source_chain, 0) + 1, w.parent_run_id,
           w.review_id, w.review_round, (w.cause).origin_kind, (w.cause).origin_ref,
           w.idempotency_key, w.network_channel, l.lane_id,
           p_now, p_now, greatest(w.available_at, p_now)
      from wanted w join lanes l using (demands)
  ), bodies as (
    insert into run_body (workspace_id, run_id, metadata, continuation)
    select p_ws, w.new_id, w.metadata, w.continuation
      from wanted w where w.metadata is not null or w.continuation is not null
  ), linked as (
    update task t set newest_run_id = w.new_id, attempts_used = t.attempts_used + 1
      from wanted w where t.ctid = w.place
  )
  -- Operators' retries and recoveries have events of their own (reason null).
  select array_agg(_event(w.cause, 'task.run_enqueued', w.task_id, w.new_id, jsonb_build_object(
           'cause', w.reason, 'previous_run_id', w.previous_run_id,
           'available_at', _utc(greatest(w.available_at, p_now)), 'network_channel', w.network_channel,
           'coordination_channel_id', coalesce(w.network_channel, 'coord-' || w.new_id),
           'idempotency_key', w.idempotency_key)) order by w.task_id)
    into v_events
    from wanted w where w.reason is not null;
  return coalesce(v_events, '{}');
end $$;

-- Locks tasks, by id. One by one: before PostgreSQL 17 the order of a list of ids may be had by reading all tasks of
-- the workspace.
create function _lock_tasks(p_ws text, p_tasks text[]) returns void language plpgsql as $$
begin
  perform 1 from (select distinct x.id collate "C" as id from unnest(p_tasks) x (id) order by 1) x
    cross join lateral (select from task t
      where t.workspace_id = p_ws and t.task_id = x.id for no key update) l;
end $$;

-- How many tasks a failed dependency cancels in one transaction.
create function _cascade_limit() returns int language sql immutable as $$ select 10000 $$;

-- Cancels tasks and their subtrees, level by level: lock the level, then read its children in a new statement
-- (a child is created under a lock of its parent, so none can slip in). Terminal tasks are passed over.
-- p_roots: for each, the task that the cancel named; p_who: whose cause it is (null: there is one). What p_room
-- does not hold (null: no bound) is left in cascade_task.
create function _cancel_trees(
  p_ws text, p_tasks text[], p_roots text[], p_who int[], p_room int, p_now timestamptz, p_causes cause[],
  p_reason text, p_metadata jsonb, out tasks text[], out who int[], out events new_event[])
language plpgsql as $$
declare
  v_level text[] := p_tasks;
  v_roots text[] := p_roots;
  v_who int[] := p_who;
  v_left int;
  v_targets text[];
  v_target_roots text[];
  v_target_who int[];
  v_places jsonb;                            -- the root and the cause of each task of the level
  v_ended new_event[];
  v_canceled new_event[];
begin
  tasks := '{}';
  who := '{}';
  events := '{}';
  while cardinality(v_level) > 0 loop
    v_left := p_room - cardinality(tasks);
    if cardinality(v_level) > v_left then
      insert into cascade_task (workspace_id, task_id, root_task_id)
      select p_ws, x.task_id, x.root from unnest(v_level[v_left + 1:], v_roots[v_left + 1:]) x (task_id, root);
      exit when v_left = 0;
      v_level := v_level[:v_left];
    end if;
    if _are_many(cardinality(v_level)) then
      perform _plan_for_many();
    end if;
    perform _lock_tasks(p_ws, v_level);
    perform 1 from run r join task t on t.workspace_id = p_ws and t.newest_run_id = r.run_id
      where r.workspace_id = p_ws and t.task_id = any (v_level) order by r.run_id for no key update of r;

    -- What was canceled before has nothing open below it.
    select array_agg(x.task_id), jsonb_object_agg(x.task_id, jsonb_build_array(x.root, x.who)),
           array_agg(x.task_id) filter (where t.status not in ('completed', 'failed')),
           array_agg(x.root) filter (where t.status not in ('completed', 'failed')),
           array_agg(x.who) filter (where t.status not in ('completed', 'failed'))
      into v_level, v_places, v_targets, v_target_roots, v_target_who
      from unnest(v_level, v_roots, v_who) x (task_id, root, who)
      cross join lateral (select k.status, k.canceled from task k
        where k.workspace_id = p_ws and k.task_id = x.task_id offset 0) t
     where not t.canceled;

    with ended as (
      update run r set status = 'canceled', ended_at = p_now, due_at = null
        from task t, run was
       where t.workspace_id = p_ws and t.task_id = any (v_targets) and r.workspace_id = p_ws
         and r.run_id = t.newest_run_id and _is_open(r.status)
         and was.workspace_id = p_ws and was.run_id = r.run_id
      returning r.run_id, r.task_id, r.fence, was.status as previous_status
    ), freed as (
      update lease l set ended_at = p_now, ended_how = 'cancel', ended_reason = p_reason
        from ended e
       where l.workspace_id = p_ws and l.run_id = e.run_id and l.fence = e.fence
         and _is_leased(e.previous_status)
      returning l.run_id, l.session_id
    ), marked as (
      update task t set canceled = true, version = t.version + 1, updated_at = p_now
       where t.workspace_id = p_ws and t.task_id = any (v_targets)
    ), forgotten as (
      update task_body b set checkpoint = null
       where b.workspace_id = p_ws and b.task_id = any (v_targets) and b.checkpoint is not null
    )
    select array_agg(_event(p_causes[coalesce(x.who, 1)], 'task.run_canceled', e.task_id, e.run_id,
             jsonb_build_object('previous_status', e.previous_status, 'reason', p_reason,
               'metadata', p_metadata, 'session_id', f.session_id,
               'propagated_from_task_id', nullif(x.root, e.task_id))) order by e.task_id)
             filter (where e.run_id is not null),
           array_agg(_event(p_causes[coalesce(x.who, 1)], 'task.canceled', x.task_id, null,
             jsonb_build_object('reason', p_reason, 'metadata', p_metadata,
               'propagated_from_task_id', nullif(x.root, x.task_id),
               'canceled_run_ids', case when e.run_id is null then '[]'
                                        else jsonb_build_array(e.run_id) end)) order by x.task_id)
      into v_ended, v_canceled
      from unnest(v_targets, v_target_roots, v_target_who) x (task_id, root, who)
      left join ended e using (task_id) left join freed f using (run_id);

    tasks := tasks || v_targets;
    who := who || v_target_who;
    events := events || coalesce(v_ended, '{}')
      || _cancel_reviews(p_ws, p_now, v_targets, null, p_causes, v_target_who, 'task_canceled')
      || coalesce(v_canceled, '{}');
    select array_agg(c.task_id order by c.task_id),
           array_agg(v_places -> c.parent_task_id ->> 0 order by c.task_id),
           array_agg((v_places -> c.parent_task_id ->> 1)::int order by c.task_id)
      into v_level, v_roots, v_who
      from task c where c.workspace_id = p_ws and c.parent_task_id = any (v_level);
  end loop;
end $$;

-- Derives the status of the given tasks (locked by the caller) from what the transition changed, counts again
-- for the tasks that wait for them, queues what became runnable, and makes the offers true. p_causes has one
-- cause for all tasks or one for each; p_event is the type of the causing event. Goes round while statuses that
-- others wait for keep changing; p_room: how many tasks may be canceled on the way, in 50 rounds at most. The events
-- leave out a status change of the given tasks themselves: the caller's own event tells that. Answers how many more
-- tasks are open.
create function _settle(
  p_ws text, p_tasks text[], p_now timestamptz, p_causes cause[], p_event text,
  p_room int default _cascade_limit(), out events new_event[], out offers int, out opened int)
language plpgsql as $$
declare
  v_front text[] := p_tasks;                 -- tasks whose inputs changed in this round,
  v_by text[];                               -- for each, the other task that changed them, if one did,
  v_who int[];                               -- and whose cause it is
  v_all text[] := p_tasks;
  v_changed text[];                          -- tasks whose status changed to or from a terminal one,
  v_opened int;                              -- how many more from than to,
  v_new boolean;                             -- some have no run yet
  v_queued boolean := p_event <> all ('{task.run_completed,task.run_failed}');
                                             -- some may have, or may have had, an offer
  v_waiting_ids text[];
  v_runnable new_run[];
  v_more new_event[];
  v_waiting record;
  v_trees record;
  v_rounds int := 0;
begin
  opened := 0;
  v_who := array_fill(1, array[coalesce(cardinality(p_tasks), 0)]);
  if cardinality(p_causes) > 1 then
    v_who := array(select i from generate_subscripts(p_tasks, 1) i);
  end if;
  events := '{}';
  loop
    if _are_many(cardinality(v_front)) then
      perform _plan_for_many();
    end if;
    -- The status of a task, first rule that matches.
    with derived as (
      select t.task_id, t.status as was, f.by, f.who, _is_leased(r.status) as leased,
             case when t.canceled then 'canceled'
                  when t.draft then 'draft'
                  when _is_leased(r.status) then 'in_progress'
                  when r.status = 'needs_attention' or r.review = 'blocked' then 'blocked'
                  when r.review = 'open' then 'pending'
                  when r.status in ('completed', 'failed') then r.status
                  -- A gate is closed (without an approval the second half is null).
                  when t.dependencies_waiting > 0 or t.approval_state <> 'approved' then 'blocked'
                  else 'ready' end as status,
             r.run_id is null as new,
             r.status is not distinct from 'queued' or t.concurrency_key is not null as queued, t.place
        from unnest(v_front, v_by, v_who) f (task_id, by, who)
        cross join lateral (select k.*, k.ctid as place from task k
          where k.workspace_id = p_ws and k.task_id = f.task_id offset 0) t
        left join lateral (select k.run_id, k.status, k.review from run k
          where k.workspace_id = p_ws and k.run_id = t.newest_run_id offset 0) r on true
    ), moved as (
      update task t
         set status = d.status, updated_at = p_now,
             current_run_id = case when d.leased then t.newest_run_id end,
             ready_at = case when d.status = 'ready' and d.was <> 'ready' then p_now else t.ready_at end,
             closed_at = case when d.status not in ('completed', 'failed', 'canceled') then null
                              else coalesce(t.closed_at, p_now) end
        from derived d
       where t.ctid = d.place
         and (d.status <> d.was or (t.current_run_id is not null) <> d.leased)
      returning t.task_id, d.was, t.status, d.by, d.who, t.dependencies_waiting
    )
    select array_agg(m.task_id) filter (where _has_ended(m.was) or _has_ended(m.status)),
           coalesce(sum(_has_ended(m.was)::int - _has_ended(m.status)::int), 0),
           array_agg(_event(p_causes[m.who], 'task.status_changed', m.task_id, null, jsonb_build_object(
             'previous_status', m.was, 'cause', p_event, 'cause_task_id', m.by,
             'dependencies_waiting', m.dependencies_waiting)) order by m.task_id)
             filter (where m.by is not null and m.was <> m.status),
           (select bool_or(d.new) from derived d), v_queued or (select bool_or(d.queued) from derived d)
      into v_changed, v_opened, v_more, v_new, v_queued
      from moved m;
    opened := opened + v_opened;
    events := events || coalesce(v_more, '{}');

    -- Runnable for the first time and to be queued without being asked.
    if v_new then
      v_queued := true;
      select array_agg(row(t.task_id, null, t.network_channel, null, null, t.available_at, 'auto', false,
                           null, p_causes[f.who])::new_run order by t.task_id)
        into v_runnable
        from unnest(v_front, v_who) f (task_id, who)
        cross join lateral (select k.* from task k
          where k.workspace_id = p_ws and k.task_id = f.task_id offset 0) t
       where t.status = 'ready' and t.auto_enqueue_on_ready and t.newest_run_id is null
         and t.paused_by_task_id is null and t.attempts_used < t.max_attempts;
      if v_runnable is not null then
        events := events || _add_runs(p_ws, p_now, v_runnable, p_event = 'task.created');
      end if;
    end if;

    exit when v_changed is null;
    -- Who waits for those. Whoever adds an edge holds the depended-on task, so none can appear behind the
    -- caller's locks.
    v_waiting_ids := array(select d.task_id from dependency d
      where d.workspace_id = p_ws and d.depends_on_task_id = any (v_changed));
    exit when cardinality(v_waiting_ids) = 0;
    -- Lock them, then read the edges in a new statement.
    perform _lock_tasks(p_ws, v_waiting_ids);
    -- on_dependency_failure = cancel: found before the counts move on, canceled below.
    select array_agg(w.task_id order by w.task_id) as tasks, array_agg(w.who order by w.task_id) as who
      into v_waiting
      from (select w.task_id, min(f.who) as who
              from unnest(v_front, v_who) f (task_id, who)
              join dependency d on d.workspace_id = p_ws and d.depends_on_task_id = f.task_id
              join task a on a.workspace_id = p_ws and a.task_id = f.task_id
              join task w on w.workspace_id = p_ws and w.task_id = d.task_id
             where f.task_id = any (v_changed) and a.status in ('failed', 'canceled')
               and w.on_dependency_failure = 'cancel' and not w.canceled
               and w.status not in ('completed', 'failed')
             group by w.task_id) w;
    with flipped as (
      update dependency d set satisfied = not d.satisfied
        from task waiting, task awaited
       where d.workspace_id = p_ws and d.depends_on_task_id = any (v_changed)
         and waiting.workspace_id = p_ws and waiting.task_id = d.task_id
         and awaited.workspace_id = p_ws and awaited.task_id = d.depends_on_task_id
         and d.satisfied <> _satisfies(awaited.status, waiting.on_dependency_failure)
      returning d.task_id, d.depends_on_task_id, d.satisfied
    ), counted as (
      -- Grouped: two dependencies that end in one batch count twice.
      update task t set dependencies_waiting = t.dependencies_waiting + f.more
        from (select task_id, min(depends_on_task_id) as by,
                     sum(case when satisfied then -1 else 1 end)::int as more
                from flipped group by task_id) f
       where t.workspace_id = p_ws and t.task_id = f.task_id
      returning t.task_id, f.by
    )
    select array_agg(c.task_id order by c.task_id), array_agg(c.by order by c.task_id),
           array_agg(f.who order by c.task_id)
      into v_front, v_by, v_who
      from counted c join unnest(v_front, v_who) f (task_id, who) on f.task_id = c.by;

    if v_waiting.tasks is not null then
      v_rounds := v_rounds + 1;
      v_trees := _cancel_trees(p_ws, v_waiting.tasks, v_waiting.tasks, v_waiting.who,
        case when v_rounds <= 50 then p_room else 0 end, p_now, p_causes, 'dependency_failed', null);
      p_room := p_room - cardinality(v_trees.tasks);
      events := events || v_trees.events;
      v_queued := true;                      -- runs below them may have had offers
      -- Looked at in the next round; their own event tells the change, so nobody else is its cause.
      select array_agg(x.task_id), array_agg(x.by), array_agg(x.who) into v_front, v_by, v_who
        from (select f.* from unnest(v_front, v_by, v_who) f (task_id, by, who)
                left join unnest(v_trees.tasks) c (task_id) using (task_id) where c.task_id is null
              union all select c.task_id, null, c.who from unnest(v_trees.tasks, v_trees.who) c (task_id, who)) x;
    end if;
    exit when v_front is null;
    v_all := v_all || v_front;
  end loop;
  if v_rounds > 0 then                       -- a task that two others free in two rounds is there twice
    v_all := array(select distinct x from unnest(v_all) x);
  end if;
  offers := case when v_queued then _offer(p_ws, v_all, p_now) else 0 end;
end $$;

-- Makes the offers of these tasks true: a queued run of a ready task that nothing pauses and whose budget is not
-- spent has one when its time has come, with the run's lane and the task's priority; with a concurrency key it
-- contends for one (_contend). One without says in due_at whether time alone will bring it. Returns how many were
-- made.
create function _offer(p_ws text, p_tasks text[], p_now timestamptz) returns int language plpgsql as $$
declare
  v_made int := 0;
  v_queued boolean;
  v_keys text[];
begin
  with newest as (
    select r.run_id, r.available_at, r.lane_id, r.status, t.priority, t.concurrency_key,
           _is_free(t::task, r::run) and t.concurrency_key is null as free
      from unnest(p_tasks) x (task_id)
      cross join lateral (select k.* from task k
        where k.workspace_id = p_ws and k.task_id = x.task_id offset 0) t
      cross join lateral (select k.* from run k
        where k.workspace_id = p_ws and k.run_id = t.newest_run_id offset 0) r
  ), withdrawn as (
    delete from offer o
     using newest n
     cross join lateral (select k.ctid, k.lane_id, k.priority, k.available_at from offer k
       where k.workspace_id = p_ws and k.run_id = n.run_id and k.concurrency_key is null offset 0) k
     where o.ctid = k.ctid
       and (not n.free or n.available_at > p_now
            or (k.lane_id, k.priority, k.available_at) <> (n.lane_id, n.priority, n.available_at))
  )
  select bool_or(n.status = 'queued'),
         array_agg(distinct n.concurrency_key) filter (where n.concurrency_key is not null)
    into v_queued, v_keys from newest n;

  if v_queued then
    with queued as (
      select r.*, r.ctid as place, t.priority, t.ready_at,
             case when not _is_free(t::task, r.run) then 'infinity'
                  when r.available_at > p_now then r.available_at
                  when t.concurrency_key is not null then 'infinity' end as due_at_now
        from unnest(p_tasks) x (task_id)
        cross join lateral (select k.* from task k
          where k.workspace_id = p_ws and k.task_id = x.task_id offset 0) t
        cross join lateral (select k.*, k.ctid, k as run from run k
          where k.workspace_id = p_ws and k.run_id = t.newest_run_id and k.status = 'queued' offset 0) r
    ), due as (
      update run r set due_at = q.due_at_now
        from queued q where r.ctid = q.place and r.due_at is distinct from q.due_at_now
    )
    insert into offer (workspace_id, lane_id, priority, rank_at, run_id, task_id, available_at, waiting_since)
    select p_ws, q.lane_id, q.priority,
           q.available_at - make_interval(secs => _head_start(w.settings, q.priority)),
           q.run_id, q.task_id, q.available_at, greatest(q.available_at, q.ready_at)
      from queued q join workspace w on w.workspace_id = p_ws
     where q.due_at_now is null
    on conflict (workspace_id, run_id) do nothing;
    get diagnostics v_made = row_count;
  end if;
  if v_keys is not null then
    v_made := v_made + _contend(p_ws, p_tasks, v_keys, p_now);
  end if;
  return v_made;
end $$;

-- The end of a transition of one cause: settles its tasks, and logs its own events before those that follow from
-- them. Returns how many runs came into the queue.
create function _settle_and_log(
  p_ws text, p_tasks text[], p_now timestamptz, p_cause cause, p_event text, p_events new_event[]) returns int
language plpgsql as $$
declare
  v_settled record;
begin
  v_settled := _settle(p_ws, p_tasks, p_now, array[p_cause], p_event);
  perform _log(p_ws, p_now, p_events || v_settled.events, v_settled.opened);
  return v_settled.offers;
end $$;

-- ══ 9. Creating tasks ══════════════════════════════════════════════════════════════════════════════════════

-- The first use of an Idempotency-Key takes it; a repeat gets back what the first use kept. Never a wait.
create function _take_key(p_ws text, p_cause cause, p_key text, p_hash text) returns idempotency_key
language plpgsql as $$
declare
  v_kept idempotency_key;
begin
  if p_key is null then
    return null;
  end if;
  if not pg_try_advisory_xact_lock(hashtextextended(p_ws || ' ' || p_cause.key_id || ' ' || p_key, 1)) then
    perform _refuse('idempotency_in_progress');
  end if;
  select * into v_kept from idempotency_key k
   where k.workspace_id = p_ws and k.key_id = p_cause.key_id and k.key = p_key
     and k.created_at > lease_now() - interval '24 hours';
  if v_kept.key is not null and v_kept.request_hash <> decode(p_hash, 'hex') then
    perform _refuse('idempotency_key_reused');
  end if;
  return v_kept;
end $$;

create function _keep_key(p_ws text, p_cause cause, p_key text, p_hash text, p_status int, p_ids jsonb)
returns void language sql as $$
  insert into idempotency_key (workspace_id, key_id, key, request_hash, status, ids)
  select p_ws, p_cause.key_id, p_key, decode(p_hash, 'hex'), p_status, p_ids where p_key is not null
  on conflict (workspace_id, key_id, key) do update
    set request_hash = excluded.request_hash, status = excluded.status, ids = excluded.ids,
        created_at = lease_now()
$$;

-- A task to make, as the server decoded it (ids known, references resolved); what it leaves out has a default.
create type task_input as (
  n int, ref text, id text, identifier text, scope text, parent_task_id text, network_channel text, title text,
  description text, priority text, max_attempts smallint, auto_enqueue_on_ready boolean, owner jsonb,
  metadata json, payload json, available_at timestamptz, retry jsonb, on_dependency_failure text,
  max_lease_expiries smallint, deadline_seconds int, tags text[], depends_on text[], execution_profile jsonb,
  draft boolean, approval_policy text, approval_timeout_seconds int, on_approval_timeout text,
  review_policy text, review_max_rounds smallint, review_timeout_seconds int,
  concurrency_key text, concurrency_limit int, budget jsonb);

create function _task_inputs(p_tasks json, p_bulk boolean) returns task_input[] language plpgsql as $$
begin
  return array(select x from json_populate_recordset(jsonb_populate_record(null::task_input, jsonb_build_object(
    'scope', 'workspace', 'priority', 'medium', 'max_attempts', 3, 'auto_enqueue_on_ready', p_bulk,
    'retry', jsonb_build_object('strategy', 'exponential_jitter', 'base_seconds', 10, 'max_seconds', 3600),
    'on_dependency_failure', 'block', 'max_lease_expiries', 3, 'tags', '[]'::jsonb, 'depends_on', '[]'::jsonb,
    'draft', false, 'approval_policy', 'none', 'on_approval_timeout', 'wait', 'review_policy', 'none',
    'review_max_rounds', 3, 'review_timeout_seconds', 86400)), p_tasks) x);
end $$;

create function _weight(p_priority text) returns smallint language sql stable as $$
  select case p_priority when 'low' then 10 when 'medium' then 20 when 'high' then 30 else 40 end::smallint
$$;

-- The place of each new task in its tree: its root, its depth and what pauses it, through parents old and new.
create function _place_tasks(p_ws text, p_tasks task_input[])
returns table (id text, root_task_id text, depth int, paused_by_task_id text) language plpgsql as $$
begin
  return query with recursive placed (id, root_task_id, depth, paused_by_task_id) as (
    select x.id, coalesce(p.root_task_id, x.id), coalesce(p.depth, 0) + 1, p.paused_by_task_id::text
      from unnest(p_tasks) x
      left join task p on p.workspace_id = p_ws and p.task_id = x.parent_task_id
     where x.parent_task_id is null or p.task_id is not null
    union all
    select x.id, p.root_task_id, p.depth + 1, p.paused_by_task_id
      from placed p join unnest(p_tasks) x on x.parent_task_id = p.id
     where p.depth <= 32
  ) select * from placed;
end $$;

-- Refuses what may not be created. Parents and dependencies outside the request are locked by the caller.
create function _check_tasks(p_ws text, p_tasks task_input[]) returns void language plpgsql as $$
declare
  v_ids text[] := array(select x.id from unnest(p_tasks) x);
  v_bad record;
begin
  select x.n, x.id into v_bad
    from unnest(p_tasks) x
    left join lateral (select k.task_id from task k
      where k.workspace_id = p_ws and k.task_id = x.id offset 0) t on true
    left join lateral (select k.task_id from deleted_task k
      where k.workspace_id = p_ws and k.task_id = x.id offset 0) d on true
   where t.task_id is not null or d.task_id is not null
   order by x.n limit 1;
  if found then
    perform _refuse('task_exists', jsonb_build_object('id', v_bad.id, 'index', v_bad.n));
  end if;

  select x.n, w.id into v_bad
    from unnest(p_tasks) x
    cross join lateral unnest(x.parent_task_id || x.depends_on) w (id)
    left join lateral (select k.task_id from task k
      where k.workspace_id = p_ws and k.task_id = w.id offset 0) t on true
   -- Its own id: nobody is its own parent (edges to itself were refused before).
   where w.id is not null and (w.id <> all (v_ids) or w.id = x.id) and t.task_id is null
   order by x.n limit 1;
  if found then
    perform _refuse('task_not_found', jsonb_build_object('id', v_bad.id, 'index', v_bad.n));
  end if;
end $$;

-- What a parent allows, and the limits of trees: depth, direct children, descendants of one root.
create function _check_trees(p_ws text, p_tasks task_input[]) returns void language plpgsql as $$
declare
  v_bad record;
begin
  select x.n, t.closed_at into v_bad
    from unnest(p_tasks) x
    join task t on t.workspace_id = p_ws and t.task_id = x.parent_task_id
   where t.canceled order by x.n limit 1;
  if found then
    perform _refuse('task_canceled', jsonb_build_object('closed_at', _utc(v_bad.closed_at), 'index', v_bad.n));
  end if;

  select x.n into v_bad
    from unnest(p_tasks) x
    join task t on t.workspace_id = p_ws and t.task_id = x.parent_task_id
   where t.scope = 'workspace' and x.scope = 'global' order by x.n limit 1;
  if found then
    perform _refuse('validation_failed', jsonb_build_object('index', v_bad.n, 'errors', jsonb_build_array(
      jsonb_build_object('field', 'scope', 'rule', 'scope', 'message', 'must be that of the parent'))));
  end if;

  select p.depth into v_bad from _place_tasks(p_ws, p_tasks) p where p.depth > 32 limit 1;
  if found then
    perform _refuse('depth_limit', jsonb_build_object('limit', 32, 'count', v_bad.depth));
  end if;
  select x.n + c.n as n into v_bad
    from (select parent_task_id, count(*) as n from unnest(p_tasks) group by 1) x
    cross join lateral (select count(*) as n from (select from task t
      where t.workspace_id = p_ws and t.parent_task_id = x.parent_task_id limit 10001) y) c
   where x.parent_task_id is not null and x.n + c.n > 10000 limit 1;
  if found then
    perform _refuse('children_limit', jsonb_build_object('limit', 10000, 'count', v_bad.n));
  end if;
  select x.n + c.n as n into v_bad
    from (select root_task_id, count(*) as n from _place_tasks(p_ws, p_tasks) p
           where p.depth > 1 group by 1) x
    cross join lateral (select count(*) as n from (select from task t
      where t.workspace_id = p_ws and t.root_task_id = x.root_task_id and t.parent_task_id is not null
      limit 100001) y) c
   where x.n + c.n > 100000 limit 1;
  if found then
    perform _refuse('subtree_limit', jsonb_build_object('limit', 100000, 'count', v_bad.n));
  end if;
end $$;

-- The quota of open tasks. Counted under the log lock, which two creates cannot hold at once.
create function _check_quota(p_ws text, p_open int) returns void language plpgsql as $$
declare
  v_limit int := (select _setting(w.settings, 'max_open_tasks', 1000000) from workspace w
                   where w.workspace_id = p_ws);
begin
  if p_open > v_limit then
    perform _refuse('quota_exceeded', jsonb_build_object('limit', v_limit, 'count', p_open));
  end if;
end $$;

create function _bulk_answer(p_ws text, p_ids jsonb) returns text language sql as $$
  select json_build_object(
    'ids', coalesce(json_object_agg(i.x ->> 'ref', i.x ->> 'id' order by i.n)
                      filter (where i.x ->> 'ref' is not null), '{}'),
    'tasks', json_agg(json_build_object('ref', i.x -> 'ref', 'id', i.x -> 'id', 'status', t.status,
                                        'run_id', t.newest_run_id) order by i.n),
    'count', count(*))::text
    from jsonb_array_elements(p_ids) with ordinality i (x, n)
    left join task t on t.workspace_id = p_ws and t.task_id = i.x ->> 'id'
$$;

-- Locks the parents and dependencies of new tasks that were there before: neither may change status or vanish
-- meanwhile. Not FOR SHARE: one creator after the other would keep a completion or a cancel of theirs waiting.
create function _hold_others(p_ws text, p_tasks task_input[]) returns void language plpgsql as $$
begin
  perform _lock_tasks(p_ws, array(select w.id from unnest(p_tasks) t
    cross join lateral unnest(t.parent_task_id || t.depends_on) w (id)));
end $$;

-- Makes the edges of new tasks. The event of a creation names 2,000 dependencies at most: those beyond have their own.
create function _bind_tasks(p_ws text, p_tasks task_input[], p_now timestamptz, p_cause cause) returns new_event[]
language plpgsql as $$
begin
  insert into dependency (workspace_id, task_id, depends_on_task_id, satisfied, created_at)
  select p_ws, x.id, w.id, _satisfies(t.status, x.on_dependency_failure), p_now
    from unnest(p_tasks) x
    cross join lateral unnest(x.depends_on) w (id)
    cross join lateral (select k.status from task k
      where k.workspace_id = p_ws and k.task_id = w.id offset 0) t;
  return array(
    select _event(p_cause, 'task.child_created', x.parent_task_id, null, jsonb_build_object(
             'child_task_id', x.id, 'child_scope', x.scope))
      from unnest(p_tasks) x where x.parent_task_id is not null order by x.n)
    || array(
    select _event(p_cause, 'task.dependency_added', x.id, null, jsonb_build_object(
             'depends_on_task_id', d.depends_on_task_id, 'kind', 'blocks', 'satisfied', d.satisfied,
             'dependencies_waiting', t.dependencies_waiting, 'cause', 'create'))
      from unnest(p_tasks) x
      cross join lateral unnest(x.depends_on[2001:]) w (id)
      cross join lateral (select k.dependencies_waiting from task k
        where k.workspace_id = p_ws and k.task_id = x.id offset 0) t
      cross join lateral (select k.depends_on_task_id, k.satisfied from dependency k
        where k.workspace_id = p_ws and k.task_id = x.id and k.depends_on_task_id = w.id offset 0) d);
end $$;

-- Makes tasks with their edges and profiles, all or nothing, and queues those that are runnable.
create function create_tasks(
  p_workspace_id text, p_cause jsonb, p_tasks json, p_guard json, p_bulk boolean, p_key text, p_hash text,
  out body text, out version int, out replayed boolean, out offers int)
language plpgsql as $$
declare
  v_now timestamptz;
  v_cause cause := _cause(p_cause);
  v_tasks task_input[];
  v_ids jsonb;
  v_bound int;                               -- to how many others they are bound
  v_parented boolean;
  v_profiled boolean;
  v_gated text[];
  v_kept idempotency_key;
  v_run_id text;
  v_made int;
  v_events new_event[];
  v_settled record;
  v_trees record;
  v_opened int;
  v_roots text[];
  v_root text;
begin
  v_kept := _take_key(p_workspace_id, v_cause, p_key, p_hash);
  replayed := v_kept.key is not null;
  offers := 0;
  if not replayed then
    v_tasks := _task_inputs(p_tasks, p_bulk);
    select sum(cardinality(x.depends_on) + (x.parent_task_id is not null)::int),
           bool_or(x.parent_task_id is not null), bool_or(x.execution_profile is not null),
           array_agg(x.id order by x.n) filter (where x.approval_policy = 'manual'),
           jsonb_agg(jsonb_build_object('id', x.id, 'ref', x.ref) order by x.n)
      into v_bound, v_parented, v_profiled, v_gated, v_ids from unnest(v_tasks) x;
    if _are_many(cardinality(v_tasks) + v_bound) then
      perform _plan_for_many();
    end if;
    if v_bound > 0 then
      perform _hold_others(p_workspace_id, v_tasks);
    end if;
    v_run_id := _guard(p_workspace_id, p_guard);
    v_now := lease_now();
    perform _check_tasks(p_workspace_id, v_tasks);
    if v_parented then
      perform _check_trees(p_workspace_id, v_tasks);
    end if;

    insert into task (workspace_id, task_id, root_task_id, parent_task_id, depth, identifier, scope, title,
        network_channel, priority, max_attempts, auto_enqueue_on_ready, owner_kind, owner_ref, created_by_kind,
        created_by_ref, origin_kind, origin_ref, created_by_agent, created_by_run_id, created_at, updated_at,
        available_at, retry_strategy, retry_base_seconds, retry_max_seconds, on_dependency_failure,
        max_lease_expiries, deadline_seconds, review_policy, tags, draft, approval_state, paused_by_task_id,
        dependencies_waiting, concurrency_key, concurrency_limit, max_total_tokens, max_cost)
    select p_workspace_id, x.id, p.root_task_id, x.parent_task_id, p.depth, x.identifier, x.scope, x.title,
           x.network_channel, _weight(x.priority), x.max_attempts, x.auto_enqueue_on_ready, x.owner ->> 'kind',
           x.owner ->> 'ref', v_cause.actor_kind, v_cause.actor_ref, v_cause.origin_kind, v_cause.origin_ref,
           v_cause.agent_name, v_run_id, v_now, v_now, x.available_at, x.retry ->> 'strategy',
           (x.retry ->> 'base_seconds')::int, (x.retry ->> 'max_seconds')::int, x.on_dependency_failure,
           x.max_lease_expiries, x.deadline_seconds, x.review_policy, x.tags, x.draft,
           case x.approval_policy when 'manual' then 'pending' end, p.paused_by_task_id, coalesce(w.waiting, 0),
           x.concurrency_key, x.concurrency_limit, (x.budget ->> 'max_total_tokens')::bigint,
           (x.budget ->> 'max_cost')::numeric
      from unnest(v_tasks) x
      join _place_tasks(p_workspace_id, v_tasks) p on p.id = x.id
      left join (select y.id, count(*) as waiting
                   from unnest(v_tasks) y
                   cross join lateral unnest(y.depends_on) d (id)
                   left join lateral (select k.task_id, k.status from task k
                     where k.workspace_id = p_workspace_id and k.task_id = d.id offset 0) t on true
                  where t.task_id is null or not _satisfies(t.status, y.on_dependency_failure)
                  group by y.id) w on w.id = x.id
    on conflict (workspace_id, task_id) do nothing;
    get diagnostics v_made = row_count;
    if v_made < cardinality(v_tasks) then
      perform _refuse('task_exists');        -- somebody else made one of the ids this moment
    end if;
    insert into task_body (workspace_id, task_id, description, metadata, payload, approval_timeout_seconds,
                           on_approval_timeout, review_max_rounds, review_timeout_seconds)
    select p_workspace_id, x.id, x.description, x.metadata, x.payload, x.approval_timeout_seconds,
           x.on_approval_timeout, x.review_max_rounds, x.review_timeout_seconds from unnest(v_tasks) x;
    if v_profiled then
      insert into execution_profile (workspace_id, task_id, profile, created_at, updated_at)
      select p_workspace_id, x.id, x.execution_profile - array['task_id', 'created_at', 'updated_at'], v_now, v_now
        from unnest(v_tasks) x where x.execution_profile is not null;
    end if;
    select array_agg(_event(v_cause, 'task.created', x.id, null, to_jsonb(x)
             - array['n', 'ref', 'description', 'payload', 'execution_profile']
             || jsonb_build_object('payload_bytes', octet_length(x.payload::text),
                  'available_at', _utc(x.available_at),
                  'depends_on', to_jsonb(coalesce(x.depends_on[1:2000], '{}')))) order by x.n)
      into v_events from unnest(v_tasks) x;
    if v_bound > 0 then
      v_events := v_events || _bind_tasks(p_workspace_id, v_tasks, v_now, v_cause);
    end if;
    if v_gated is not null then
      v_events := v_events || _ask_approvals(p_workspace_id, v_now, v_cause, v_gated);
    end if;
    v_settled := _settle(p_workspace_id, array(select x.id from unnest(v_tasks) x), v_now, array[v_cause],
                         'task.created');
    v_events := v_events || v_settled.events;
    offers := v_settled.offers;

    v_opened := cardinality(v_tasks) + v_settled.opened;

    -- Made to wait for what failed already, under the policy `cancel`.
    if v_bound > 0 then
      v_roots := array(select distinct x.id from unnest(v_tasks) x
          cross join lateral unnest(x.depends_on) w (id)
          join task t on t.workspace_id = p_workspace_id and t.task_id = w.id
         where x.on_dependency_failure = 'cancel' and t.status in ('failed', 'canceled'));
    end if;
    if cardinality(v_roots) > 0 then
      v_trees := _cancel_trees(p_workspace_id, v_roots, v_roots, null, null, v_now, array[v_cause],
                               'dependency_failed', null);
      v_settled := _settle(p_workspace_id, v_trees.tasks, v_now, array[v_cause], 'task.canceled');
      v_events := v_events || v_trees.events || v_settled.events;
      v_opened := v_opened + v_settled.opened;
    end if;

    if p_key is not null then
      perform _keep_key(p_workspace_id, v_cause, p_key, p_hash, 201, v_ids);
    end if;
    v_opened := _log(p_workspace_id, v_now, v_events, v_opened);
    perform _check_quota(p_workspace_id, v_opened);
  end if;

  v_ids := coalesce(v_kept.ids, v_ids);
  if p_bulk then
    select i.x ->> 'id' into v_root from jsonb_array_elements(v_ids) i (x)
     where replayed and not exists (select from task t
       where t.workspace_id = p_workspace_id and t.task_id = i.x ->> 'id') limit 1;
    if found then
      perform _refuse('task_not_found', jsonb_build_object('id', v_root));
    end if;
    body := _bulk_answer(p_workspace_id, v_ids);
  else
    select json_build_object('task', w.body)::text, w.version into body, version
      from task_wire w where w.workspace_id = p_workspace_id and w.task_id = v_ids -> 0 ->> 'id';
    if not found then
      perform _refuse('task_not_found', jsonb_build_object('id', v_ids -> 0 -> 'id'));
    end if;
  end if;
end $$;

-- ══ 10. Changing and driving tasks ══════════════════════════════════════════════════════════════════════════

-- Locks one task and returns it; an unknown one is refused.
create function _lock_task(p_ws text, p_task_id text) returns task language plpgsql as $$
declare
  v_task task;
begin
  select * into v_task from task t where t.workspace_id = p_ws and t.task_id = p_task_id for no key update;
  if not found then
    perform _refuse('task_not_found', jsonb_build_object('id', p_task_id));
  end if;
  return v_task;
end $$;

-- Locks a task whose status may change with the tasks that wait for it: one sorted statement, so that two
-- transitions meet in order. Edges added meanwhile are met by _settle().
create function _lock_with_waiting(p_ws text, p_task_id text) returns task language plpgsql as $$
begin
  perform _lock_tasks(p_ws, p_task_id || array(select d.task_id::text from dependency d
                                                where d.workspace_id = p_ws and d.depends_on_task_id = p_task_id));
  return _lock_task(p_ws, p_task_id);
end $$;

create function _task_answer(p_ws text, p_task_id text, out body text, out version int) language plpgsql as $$
begin
  select json_build_object('task', w.body)::text, w.version into body, version
    from task_wire w where w.workspace_id = p_ws and w.task_id = p_task_id;
end $$;

create function _detail_answer(p_ws text, p_task_id text, out body text, out version int) language plpgsql as $$
begin
  select w.body::text, w.version into body, version
    from task_detail_wire w where w.workspace_id = p_ws and w.task_id = p_task_id;
end $$;

-- An agent drives its own tasks only (and those whose lease it holds, where p_holder says so).
create function _check_own(p_ws text, p_cause cause, p_role text, p_task task, p_holder boolean) returns void
language plpgsql as $$
begin
  if p_role = 'agent' and p_task.created_by_agent is distinct from p_cause.agent_name
     and not (p_holder and exists (
       select from lease l where l.workspace_id = p_ws and l.run_id = p_task.current_run_id
          and l.ended_at is null and l.session_id = p_cause.session_id and l.agent_name = p_cause.agent_name)) then
    perform _refuse('forbidden', jsonb_build_object('role', p_role, 'action', p_cause.origin_ref));
  end if;
end $$;

-- A path of edges from one task up to another, both ends included: ids in the order they wait; null: there is none.
create function _path(p_ws text, p_from text, p_to text) returns text[] language plpgsql as $$
declare
  v_above text[];
  v_by jsonb;                                -- for each of them a task that waits for it and is one, too
  v_path text[] := '{}';
begin
  v_above := array(with recursive above (id) as (
      select p_from collate "C"
      union
      select d.depends_on_task_id::text from above a
        cross join lateral (select k.depends_on_task_id from dependency k
          where k.workspace_id = p_ws and k.task_id = a.id offset 0) d)
    select a.id from above a);
  if p_to <> all (v_above) then
    return null;
  end if;
  select jsonb_object_agg(d.depends_on_task_id, a.id) into v_by from unnest(v_above) a (id)
    cross join lateral (select k.depends_on_task_id from dependency k
      where k.workspace_id = p_ws and k.task_id = a.id offset 0) d;
  while p_to is not null loop                -- no cycle stands yet, so this ends, where it began
    v_path := v_path || p_to;
    p_to := v_by ->> p_to;
  end loop;
  return array(select x.id from unnest(v_path) with ordinality x (id, n) order by x.n desc);
end $$;

-- Makes a task wait for another. The edge lock keeps two additions from closing a cycle together.
create function add_dependency(
  p_workspace_id text, p_cause jsonb, p_role text, p_task_id text, p_depends_on text, p_guard json,
  out body text, out version int, out offers int)
language plpgsql as $$
declare
  v_now timestamptz;
  v_cause cause := _cause(p_cause);
  v_task task;
  v_satisfied boolean;
  v_path text[];
  v_events new_event[];
  v_trees record;
  v_settled record;
begin
  perform 1 from workspace_lock where workspace_id = p_workspace_id and name = 'edge' for no key update;
  -- The awaited task is only read, but its status must not move.
  perform _lock_tasks(p_workspace_id, array[p_task_id, p_depends_on]);
  v_task := _lock_task(p_workspace_id, p_task_id);
  perform _guard(p_workspace_id, p_guard);
  v_now := lease_now();
  perform _check_own(p_workspace_id, v_cause, p_role, v_task, true);
  if p_depends_on = p_task_id then
    perform _refuse('dependency_self', jsonb_build_object('task_id', p_task_id));
  end if;
  select _satisfies(t.status, v_task.on_dependency_failure) into v_satisfied
    from task t where t.workspace_id = p_workspace_id and t.task_id = p_depends_on;
  if not found then
    perform _refuse('task_not_found', jsonb_build_object('id', p_depends_on));
  end if;
  if exists (select from dependency d where d.workspace_id = p_workspace_id and d.task_id = p_task_id
                and d.depends_on_task_id = p_depends_on) then
    perform _refuse('dependency_exists', jsonb_build_object('id', p_depends_on));
  end if;
  if (select count(*) from dependency d
       where d.workspace_id = p_workspace_id and d.task_id = p_task_id) >= 10000 then
    perform _refuse('dependency_limit', jsonb_build_object('limit', 10000, 'count', 10001));
  end if;
  v_path := _path(p_workspace_id, p_depends_on, p_task_id);
  if v_path is not null then
    perform _refuse('dependency_cycle', jsonb_build_object('path', p_task_id || v_path));
  end if;

  insert into dependency values (p_workspace_id, p_task_id, p_depends_on, v_satisfied, v_now);
  update task set dependencies_waiting = dependencies_waiting + (not v_satisfied)::int, updated_at = v_now
    where workspace_id = p_workspace_id and task_id = p_task_id
    returning * into v_task;
  v_events := array[_event(v_cause, 'task.dependency_added', p_task_id, null, jsonb_build_object(
    'depends_on_task_id', p_depends_on, 'kind', 'blocks', 'satisfied', v_satisfied,
    'dependencies_waiting', v_task.dependencies_waiting, 'cause', 'call'))];
  if v_task.on_dependency_failure = 'cancel' and v_task.status not in ('completed', 'failed', 'canceled')
     and exists (select from task t where t.workspace_id = p_workspace_id and t.task_id = p_depends_on
                    and t.status in ('failed', 'canceled')) then
    v_trees := _cancel_trees(p_workspace_id, array[p_task_id], array[p_task_id], null, _cascade_limit(), v_now,
                             array[v_cause], 'dependency_failed', null);
    v_settled := _settle(p_workspace_id, v_trees.tasks, v_now, array[v_cause], 'task.canceled',
                         _cascade_limit() - cardinality(v_trees.tasks));
    v_events := v_events || v_trees.events;
  else
    v_settled := _settle(p_workspace_id, array[p_task_id], v_now, array[v_cause], 'task.dependency_added');
  end if;
  offers := v_settled.offers;
  perform _log(p_workspace_id, v_now, v_events || v_settled.events, v_settled.opened);
  select * into body, version from _detail_answer(p_workspace_id, p_task_id);
end $$;

create function remove_dependency(
  p_workspace_id text, p_cause jsonb, p_role text, p_task_id text, p_depends_on text,
  out body text, out version int, out offers int)
language plpgsql as $$
declare
  v_now timestamptz;
  v_cause cause := _cause(p_cause);
  v_task task;
  v_satisfied boolean;
begin
  perform 1 from workspace_lock where workspace_id = p_workspace_id and name = 'edge' for no key update;
  v_task := _lock_task(p_workspace_id, p_task_id);
  v_now := lease_now();
  perform _check_own(p_workspace_id, v_cause, p_role, v_task, false);
  delete from dependency d where d.workspace_id = p_workspace_id and d.task_id = p_task_id
    and d.depends_on_task_id = p_depends_on returning d.satisfied into v_satisfied;
  if not found then
    perform _refuse('dependency_not_found', jsonb_build_object('id', p_depends_on));
  end if;
  update task set dependencies_waiting = dependencies_waiting - (not v_satisfied)::int, updated_at = v_now
    where workspace_id = p_workspace_id and task_id = p_task_id
    returning * into v_task;
  offers := _settle_and_log(p_workspace_id, array[p_task_id], v_now, v_cause, 'task.dependency_removed',
    array[_event(v_cause, 'task.dependency_removed', p_task_id, null, jsonb_build_object(
      'depends_on_task_id', p_depends_on, 'kind', 'blocks', 'satisfied', v_satisfied,
      'dependencies_waiting', v_task.dependencies_waiting, 'cause', 'call'))]);
  select * into body, version from _detail_answer(p_workspace_id, p_task_id);
end $$;

-- Changes the fields that p_changes names; null clears. A patch that changes nothing leaves no trace.
create function patch_task(
  p_workspace_id text, p_cause jsonb, p_task_id text, p_changes jsonb, p_version int,
  out body text, out version int, out offers int)
language plpgsql as $$
declare
  v_now timestamptz;
  v_cause cause := _cause(p_cause);
  v_task task;
  v_given jsonb := p_changes;
  v_stored jsonb;
  v_changes jsonb;
  v_asked new_event[];
  v_settled record;
begin
  if p_changes ->> 'available_at' is not null then
    v_given := p_changes || jsonb_build_object('available_at', _utc((p_changes ->> 'available_at')::timestamptz));
  end if;
  v_task := _lock_task(p_workspace_id, p_task_id);
  v_now := lease_now();
  if v_given ?| '{concurrency_key,concurrency_limit}' then
    v_given := _given_slots(v_task, v_given);
  end if;
  if p_version <> v_task.version then
    perform _refuse('version_mismatch', jsonb_build_object('version', v_task.version));
  end if;
  offers := 0;
  select w.body::jsonb into v_stored from task_wire w
   where w.workspace_id = p_workspace_id and w.task_id = p_task_id;
  select jsonb_object_agg(c.key, c.value) into v_changes
    from jsonb_each(v_given) c where c.value <> v_stored -> c.key;
  if v_changes is not null then
    update task t set
        title = case when v_changes ? 'title' then v_changes ->> 'title' else t.title end,
        identifier = case when v_changes ? 'identifier' then v_changes ->> 'identifier' else t.identifier end,
        network_channel = case when v_changes ? 'network_channel' then v_changes ->> 'network_channel'
                               else t.network_channel end,
        priority = case when v_changes ? 'priority' then _weight(v_changes ->> 'priority')
                        else t.priority end,
        max_attempts = coalesce((v_changes ->> 'max_attempts')::smallint, t.max_attempts),
        auto_enqueue_on_ready = coalesce((v_changes ->> 'auto_enqueue_on_ready')::boolean,
                                         t.auto_enqueue_on_ready),
        owner_kind = case when v_changes ? 'owner' then v_changes -> 'owner' ->> 'kind' else t.owner_kind end,
        owner_ref = case when v_changes ? 'owner' then v_changes -> 'owner' ->> 'ref' else t.owner_ref end,
        available_at = case when v_changes ? 'available_at' then (v_changes ->> 'available_at')::timestamptz
                            else t.available_at end,
        retry_strategy = coalesce(v_changes -> 'retry' ->> 'strategy', t.retry_strategy),
        retry_base_seconds = coalesce((v_changes -> 'retry' ->> 'base_seconds')::int, t.retry_base_seconds),
        retry_max_seconds = coalesce((v_changes -> 'retry' ->> 'max_seconds')::int, t.retry_max_seconds),
        on_dependency_failure = coalesce(v_changes ->> 'on_dependency_failure', t.on_dependency_failure),
        max_lease_expiries = coalesce((v_changes ->> 'max_lease_expiries')::smallint, t.max_lease_expiries),
        deadline_seconds = case when v_changes ? 'deadline_seconds'
                                then (v_changes ->> 'deadline_seconds')::int else t.deadline_seconds end,
        review_policy = coalesce(v_changes ->> 'review_policy', t.review_policy),
        approval_state = case v_changes ->> 'approval_policy' when 'manual' then 'pending' when 'none' then null
                         else t.approval_state end,
        concurrency_key = case when v_changes ? 'concurrency_key' then v_changes ->> 'concurrency_key'
                               else t.concurrency_key end,
        concurrency_limit = case when v_changes ? 'concurrency_limit'
                                 then (v_changes ->> 'concurrency_limit')::int else t.concurrency_limit end,
        max_total_tokens = case when v_changes ? 'budget'
                                then (v_changes -> 'budget' ->> 'max_total_tokens')::bigint
                                else t.max_total_tokens end,
        max_cost = case when v_changes ? 'budget' then (v_changes -> 'budget' ->> 'max_cost')::numeric
                        else t.max_cost end,
        tags = case when v_changes ? 'tags'
                    then array(select jsonb_array_elements_text(v_changes -> 'tags')) else t.tags end,
        version = t.version + 1, updated_at = v_now
     where t.workspace_id = p_workspace_id and t.task_id = p_task_id
    returning * into v_task;
    update task_body b set
        description = case when v_changes ? 'description' then v_changes ->> 'description'
                           else b.description end,
        metadata = case when v_changes ? 'metadata' then nullif(v_changes -> 'metadata', 'null')::json
                        else b.metadata end,
        payload = case when v_changes ? 'payload' then nullif(v_changes -> 'payload', 'null')::json
                       else b.payload end,
        approval_timeout_seconds = case when v_changes ? 'approval_timeout_seconds'
                                        then (v_changes ->> 'approval_timeout_seconds')::int
                                        else b.approval_timeout_seconds end,
        on_approval_timeout = coalesce(v_changes ->> 'on_approval_timeout', b.on_approval_timeout),
        review_max_rounds = coalesce((v_changes ->> 'review_max_rounds')::smallint, b.review_max_rounds),
        review_timeout_seconds = coalesce((v_changes ->> 'review_timeout_seconds')::int,
                                          b.review_timeout_seconds)
     where b.workspace_id = p_workspace_id and b.task_id = p_task_id;
    perform _follow_patch(p_workspace_id, v_task, v_changes, v_now);
    v_asked := _patch_approval(p_workspace_id, v_now, v_cause, p_task_id, v_changes);
    if v_changes ? 'concurrency_key' then
      offers := _move_slot(p_workspace_id, v_task, v_stored ->> 'concurrency_key');
    end if;
    v_settled := _settle(p_workspace_id, array[p_task_id], v_now, array[v_cause], 'task.updated');
    offers := offers + v_settled.offers;
    perform _log(p_workspace_id, v_now, _event(v_cause, 'task.updated', p_task_id, null, jsonb_build_object(
      'changed_fields', (select jsonb_agg(k order by k) from jsonb_object_keys(v_changes) k),
      'changes', v_changes - array['description', 'payload'], 'version', v_task.version))
      || v_asked || v_settled.events, v_settled.opened);
  end if;
  select * into body, version from _task_answer(p_workspace_id, p_task_id);
end $$;

-- What a patch means for the edges and the queued run of its task.
create function _follow_patch(p_ws text, p_task task, p_changes jsonb, p_now timestamptz) returns void
language plpgsql as $$
begin
  if p_changes ? 'on_dependency_failure' then
    update dependency d set satisfied = not d.satisfied
      from task a
     where d.workspace_id = p_ws and d.task_id = p_task.task_id
       and a.workspace_id = p_ws and a.task_id = d.depends_on_task_id
       and d.satisfied <> _satisfies(a.status, p_task.on_dependency_failure);
    update task t set dependencies_waiting = (select count(*) from dependency d
        where d.workspace_id = p_ws and d.task_id = p_task.task_id and not d.satisfied)
     where t.workspace_id = p_ws and t.task_id = p_task.task_id;
  end if;
  if p_changes ? 'owner' then
    perform _move_lane(p_ws, p_task, false);
  end if;
  if p_changes ? 'available_at' then
    update run r set available_at = greatest(p_now, p_task.available_at)
     where r.workspace_id = p_ws and r.run_id = p_task.newest_run_id and r.status = 'queued';
  end if;
end $$;

-- Moves a run that is or may come back in the queue to the lane of what its task demands now; p_asked as for
-- _lanes. settle() brings its offer after it.
create function _move_lane(p_ws text, p_task task, p_asked boolean) returns void language plpgsql as $$
declare
  v_run run;
  v_lane bigint;
begin
  select * into v_run from run r
   where r.workspace_id = p_ws and r.run_id = p_task.newest_run_id for no key update;
  if v_run.status = 'queued' or _is_leased(v_run.status) then
    select l.lane_id into v_lane from _lanes(p_ws, array[_demands(p_task.owner_kind, p_task.owner_ref,
      v_run.network_channel, (select x.profile from execution_profile x
        where x.workspace_id = p_ws and x.task_id = p_task.task_id))], p_asked) l;
    update run r set lane_id = v_lane
     where r.workspace_id = p_ws and r.run_id = v_run.run_id and r.lane_id <> v_lane;
  end if;
end $$;

-- Removes a task with its runs, reviews and edges. Its events stay; its id is not free again.
create function delete_task(p_workspace_id text, p_cause jsonb, p_task_id text, out offers int)
language plpgsql as $$
declare
  v_now timestamptz;
  v_cause cause := _cause(p_cause);
  v_task task;
  v_status text;
  v_children bigint;
  v_waiting text[];
  v_events new_event[];
  v_canceled new_event[];
  v_settled record;
begin
  perform 1 from workspace_lock where workspace_id = p_workspace_id and name = 'edge' for no key update;
  v_task := _lock_with_waiting(p_workspace_id, p_task_id);
  v_now := lease_now();
  select count(*) into v_children from task
   where workspace_id = p_workspace_id and parent_task_id = p_task_id;
  if v_children > 0 then
    perform _refuse('task_has_children', jsonb_build_object('child_count', v_children));
  end if;
  select status into v_status from run r
   where r.workspace_id = p_workspace_id and r.run_id = v_task.newest_run_id;
  if _is_open(v_status) then
    perform _refuse('open_run_exists', jsonb_build_object('run_id', v_task.newest_run_id,
                                                          'run_status', v_status));
  end if;

  with gone as (
    delete from dependency d where d.workspace_id = p_workspace_id and d.depends_on_task_id = p_task_id
    returning d.task_id, d.satisfied
  ), counted as (
    update task t set dependencies_waiting = t.dependencies_waiting - (not g.satisfied)::int,
                      updated_at = v_now
      from gone g where t.workspace_id = p_workspace_id and t.task_id = g.task_id
    returning t.task_id, g.satisfied, t.dependencies_waiting
  )
  select array_agg(c.task_id), array_agg(_event(v_cause, 'task.dependency_removed', c.task_id, null,
           jsonb_build_object('depends_on_task_id', p_task_id, 'kind', 'blocks', 'satisfied', c.satisfied,
             'dependencies_waiting', c.dependencies_waiting, 'cause', 'dependency_deleted'))
           order by c.task_id)
    into v_waiting, v_events from counted c;

  v_canceled := _cancel_reviews(p_workspace_id, v_now, array[p_task_id], null, array[v_cause], null,
                                'task_deleted');
  delete from lease l using run r
   where r.workspace_id = p_workspace_id and r.task_id = p_task_id
     and l.workspace_id = p_workspace_id and l.run_id = r.run_id;
  delete from run_body b using run r
   where r.workspace_id = p_workspace_id and r.task_id = p_task_id
     and b.workspace_id = p_workspace_id and b.run_id = r.run_id;
  insert into deleted_task
    values (p_workspace_id, p_task_id, v_task.parent_task_id, v_task.root_task_id);
  delete from task where workspace_id = p_workspace_id and task_id = p_task_id;
  v_settled := _settle(p_workspace_id, coalesce(v_waiting, '{}'), v_now, array[v_cause], 'task.deleted');
  offers := v_settled.offers;
  perform _log(p_workspace_id, v_now, v_canceled || _event(v_cause, 'task.deleted', p_task_id, null, jsonb_build_object(
    'title', v_task.title, 'identifier', v_task.identifier, 'task_status', v_task.status))
    || coalesce(v_events, '{}') || v_settled.events,
    v_settled.opened - (not _has_ended(v_task.status))::int);
  delete from task_activity where workspace_id = p_workspace_id and task_id = p_task_id;
end $$;

-- Refuses a further run where one may not be queued.
create function _check_start(p_ws text, p_task task) returns void language plpgsql as $$
declare
  v_status text;
begin
  if p_task.status = 'draft' then
    perform _refuse('task_draft', jsonb_build_object('status', p_task.status));
  elsif p_task.canceled then
    perform _refuse('task_canceled', jsonb_build_object('closed_at', _utc(p_task.closed_at)));
  end if;
  select status into v_status from run r where r.workspace_id = p_ws and r.run_id = p_task.newest_run_id;
  if _is_open(v_status) then
    perform _refuse('open_run_exists', jsonb_build_object('run_id', p_task.newest_run_id,
                                                          'run_status', v_status));
  end if;
end $$;

-- A task and a run of it (null: none); a task that is gone is refused.
create function _task_run_answer(
  p_ws text, p_task_id text, p_run_id text, out task_body text, out run_body text, out version int)
language plpgsql as $$
begin
  select w.body::text, w.version into task_body, version from task_wire w
   where w.workspace_id = p_ws and w.task_id = p_task_id;
  if not found then
    perform _refuse('task_not_found', jsonb_build_object('id', p_task_id));
  end if;
  run_body := (select w.body::text from run_wire w where w.workspace_id = p_ws and w.run_id = p_run_id);
end $$;

-- Queues a run by hand: `start` (refused while a gate is closed) and `runs` (the run then waits).
create function start_task(
  p_workspace_id text, p_cause jsonb, p_role text, p_task_id text, p_reason text, p_channel text,
  p_metadata json, p_key text, p_hash text,
  out task_body text, out run_body text, out version int, out replayed boolean, out offers int)
language plpgsql as $$
declare
  v_now timestamptz;
  v_cause cause := _cause(p_cause);
  v_task task;
  v_kept idempotency_key;
  v_run_id text := _new_id('run');
  v_events new_event[];
begin
  v_kept := _take_key(p_workspace_id, v_cause, p_key, p_hash);
  replayed := v_kept.key is not null;
  offers := 0;
  if replayed then
    v_run_id := v_kept.ids ->> 'run_id';
  else
    v_task := _lock_with_waiting(p_workspace_id, p_task_id);
    v_now := lease_now();
    perform _check_own(p_workspace_id, v_cause, p_role, v_task, false);
    perform _check_start(p_workspace_id, v_task);
    perform _check_review(p_workspace_id, v_task, p_reason);
    if v_task.attempts_used >= v_task.max_attempts then
      perform _refuse('attempts_exhausted', jsonb_build_object('attempts_used', v_task.attempts_used,
                                                               'max_attempts', v_task.max_attempts));
    end if;
    if p_reason = 'start' then
      perform _check_gates(v_task);
    end if;
    v_events := _add_runs(p_workspace_id, v_now, array[row(p_task_id, null,
      coalesce(p_channel, v_task.network_channel), p_metadata, p_key, v_task.available_at, p_reason, false,
      v_run_id, v_cause)::new_run], true);
    perform _keep_key(p_workspace_id, v_cause, p_key, p_hash, 201, jsonb_build_object('run_id', v_run_id));
    offers := _settle_and_log(p_workspace_id, array[p_task_id], v_now, v_cause, 'task.run_enqueued', v_events);
  end if;
  select * into task_body, run_body, version from _task_run_answer(p_workspace_id, p_task_id, v_run_id);
end $$;

-- Cancels a task and its subtree. A repeat changes nothing.
create function cancel_task(
  p_workspace_id text, p_cause jsonb, p_role text, p_task_id text, p_reason text, p_metadata jsonb,
  out body text, out version int, out offers int)
language plpgsql as $$
declare
  v_now timestamptz;
  v_cause cause := _cause(p_cause);
  v_task task;
  v_trees record;
begin
  v_task := _lock_with_waiting(p_workspace_id, p_task_id);
  v_now := lease_now();
  perform _check_own(p_workspace_id, v_cause, p_role, v_task, false);
  offers := 0;
  if v_task.status in ('completed', 'failed') then
    perform _refuse('task_already_terminal', jsonb_build_object('status', v_task.status));
  elsif not v_task.canceled then
    v_trees := _cancel_trees(p_workspace_id, array[p_task_id], array[p_task_id], null, null, v_now,
                             array[v_cause], p_reason, p_metadata);
    offers := _settle_and_log(p_workspace_id, v_trees.tasks, v_now, v_cause, 'task.canceled', v_trees.events);
  end if;
  select * into body, version from _task_answer(p_workspace_id, p_task_id);
end $$;

-- Goes on with what a transaction left in cascade_task; how many tasks it canceled.
create function continue_cascade(p_workspace_id text, out canceled int, out offers int) language plpgsql as $$
declare
  v_now timestamptz;
  v_cause cause := row('daemon', 'cascade', 'daemon', 'daemon.cascade', null, null, null)::cause;
  v_tasks text[];
  v_roots text[];
  v_trees record;
  v_settled record;
begin
  canceled := 0;
  offers := 0;
  with taken as (
    delete from cascade_task c where c.ctid = any (array(select k.ctid from cascade_task k
      where k.workspace_id = p_workspace_id order by k.step limit _cascade_limit() for update skip locked))
    returning c.task_id, c.root_task_id
  )
  select array_agg(x.task_id order by x.task_id), array_agg(x.root_task_id order by x.task_id)
    into v_tasks, v_roots from (select distinct on (t.task_id) t.* from taken t order by t.task_id) x;
  perform _lock_tasks(p_workspace_id, v_tasks);
  v_now := lease_now();
  v_trees := _cancel_trees(p_workspace_id, v_tasks, v_roots, null, _cascade_limit(), v_now, array[v_cause],
                           'dependency_failed', null);
  if cardinality(v_trees.tasks) > 0 then
    v_settled := _settle(p_workspace_id, v_trees.tasks, v_now, array[v_cause], 'task.canceled',
                         _cascade_limit() - cardinality(v_trees.tasks));
    canceled := -v_settled.opened;
    offers := v_settled.offers;
    perform _log(p_workspace_id, v_now, v_trees.events || v_settled.events, v_settled.opened);
  end if;
end $$;

-- Locks a run behind its task (whose id never changes), as _hold(), and returns it; an unknown one is refused.
create function _lock_run(p_ws text, p_run_id text, p_ending boolean) returns run language plpgsql as $$
declare
  v_run run;
begin
  perform _hold(p_ws, array[p_run_id], p_ending);
  select * into v_run from run r where r.workspace_id = p_ws and r.run_id = p_run_id for no key update;
  if not found then
    perform _refuse('run_not_found', jsonb_build_object('id', p_run_id));
  end if;
  return v_run;
end $$;

-- Refuses what an ended run no longer allows.
create function _check_open(p_run run) returns void language plpgsql as $$
begin
  if not _is_open(p_run.status) then
    perform _refuse('task_run_already_terminal', jsonb_build_object('run_status', p_run.status,
      'ended_at', _utc(p_run.ended_at), 'failure_kind', p_run.failure_kind));
  end if;
end $$;

create function _run_answer(p_ws text, p_run_id text) returns text language plpgsql as $$
begin
  return (select json_build_object('run', w.body)::text from run_wire w
           where w.workspace_id = p_ws and w.run_id = p_run_id);
end $$;

-- Cancels one run; its task stays, without a run.
create function cancel_run(
  p_workspace_id text, p_cause jsonb, p_run_id text, p_reason text, p_metadata jsonb,
  out body text, out offers int)
language plpgsql as $$
declare
  v_now timestamptz;
  v_cause cause := _cause(p_cause);
  v_run run;
  v_session text;
begin
  v_run := _lock_run(p_workspace_id, p_run_id, true);
  v_now := lease_now();
  perform _check_open(v_run);
  update run r set status = 'canceled', ended_at = v_now, due_at = null
   where r.workspace_id = p_workspace_id and r.run_id = p_run_id;
  update lease l set ended_at = v_now, ended_how = 'cancel', ended_reason = p_reason
   where l.workspace_id = p_workspace_id and l.run_id = p_run_id and l.fence = v_run.fence
     and _is_leased(v_run.status) returning l.session_id into v_session;
  offers := _settle_and_log(p_workspace_id, array[v_run.task_id], v_now, v_cause, 'task.run_canceled',
    array[_event(v_cause, 'task.run_canceled', v_run.task_id, p_run_id, jsonb_build_object(
      'previous_status', v_run.status, 'reason', p_reason, 'metadata', p_metadata, 'session_id', v_session,
      'propagated_from_task_id', null))]);
  body := _run_answer(p_workspace_id, p_run_id);
end $$;

-- An operator's further attempt: of a failed run (retry), or of one in needs_attention, which fails (recover).
-- p_bulk: the key is that of a call for many runs, of which each keeps its own answer; no key of a caller's has a
-- space in it.
create function retry_run(
  p_workspace_id text, p_cause jsonb, p_run_id text, p_recover boolean, p_reason text, p_metadata json,
  p_delay_seconds int, p_key text, p_hash text, p_bulk boolean, out body text, out replayed boolean,
  out offers int)
language plpgsql as $$
declare
  v_now timestamptz;
  v_cause cause := _cause(p_cause);
  v_key text := p_key || case when p_bulk then ' ' || p_run_id else '' end;
  v_kept idempotency_key;
  v_run run;
  v_task task;
  v_next text := _new_id('run');
  v_events new_event[];
begin
  v_kept := _take_key(p_workspace_id, v_cause, v_key, p_hash);
  replayed := v_kept.key is not null;
  offers := 0;
  if replayed then
    v_next := v_kept.ids ->> 'run_id';
  else
    v_run := _lock_run(p_workspace_id, p_run_id, true);
    select * into v_task from task t where t.workspace_id = p_workspace_id and t.task_id = v_run.task_id;
    v_now := lease_now();
    perform _check_retry(p_workspace_id, v_task, v_run, p_recover);
    if p_recover then
      update run r set status = 'failed', failure_kind = 'operator_forced', retryable = false, ended_at = v_now
       where r.workspace_id = p_workspace_id and r.run_id = p_run_id;
      insert into run_body as b (workspace_id, run_id, error) values (p_workspace_id, p_run_id, p_reason)
        on conflict (workspace_id, run_id) do update set error = coalesce(excluded.error, b.error);
    end if;
    perform _add_runs(p_workspace_id, v_now, array[row(v_run.task_id, p_run_id,
      v_run.network_channel, coalesce(p_metadata, (select b.metadata from run_body b
        where b.workspace_id = p_workspace_id and b.run_id = p_run_id)), p_key,
      greatest(v_now + make_interval(secs => p_delay_seconds), v_task.available_at), null, false,
      v_next, v_cause)::new_run], true);
    v_events := array[_event(v_cause, case when p_recover then 'task.run_recovered_from_attention'
        else 'task.run_operator_retry' end, v_run.task_id, v_next, jsonb_build_object('manual', true,
      'actor_kind', v_cause.actor_kind, 'actor_id', v_cause.actor_ref, 'source_run_id', p_run_id,
      'new_run_id', v_next, 'reason', p_reason, 'metadata', p_metadata))];
    v_events := v_events || _cancel_reviews(p_workspace_id, v_now, array[v_run.task_id], p_run_id, array[v_cause],
                                            null, 'retry');
    perform _keep_key(p_workspace_id, v_cause, v_key, p_hash, 201, jsonb_build_object('run_id', v_next));
    offers := _settle_and_log(p_workspace_id, array[v_run.task_id], v_now, v_cause, v_events[1].event_type,
                              v_events);
  end if;
  select json_build_object('previous_run', p.body, 'run', w.body)::text into body
    from run_wire w, run_wire p
   where w.workspace_id = p_workspace_id and w.run_id = v_next
     and p.workspace_id = p_workspace_id and p.run_id = p_run_id;
  if not found then
    perform _refuse('run_not_found', jsonb_build_object('id', p_run_id));
  end if;
end $$;

create function _check_retry(p_ws text, p_task task, p_run run, p_recover boolean) returns void
language plpgsql as $$
declare
  v_next text;
begin
  if p_recover and p_run.status <> 'needs_attention' then
    perform _refuse('task_run_not_recoverable', jsonb_build_object('run_status', p_run.status));
  elsif not p_recover and _is_open(p_run.status) then
    perform _refuse('task_run_still_active', jsonb_build_object('run_status', p_run.status));
  elsif not p_recover and p_run.status <> 'failed' then
    perform _refuse('task_run_already_terminal', jsonb_build_object('run_status', p_run.status,
      'ended_at', _utc(p_run.ended_at), 'failure_kind', p_run.failure_kind));
  end if;
  if not p_recover then
    select r.run_id into v_next from run r
     where r.workspace_id = p_ws and r.task_id = p_run.task_id and r.previous_run_id = p_run.run_id;
    if found then
      perform _refuse('run_already_retried', jsonb_build_object('newest_run_id', p_task.newest_run_id));
    elsif p_task.newest_run_id <> p_run.run_id then
      perform _refuse('run_superseded', jsonb_build_object('newest_run_id', p_task.newest_run_id));
    end if;
    perform _check_start(p_ws, p_task);
  elsif p_task.canceled then
    perform _refuse('task_canceled', jsonb_build_object('closed_at', _utc(p_task.closed_at)));
  end if;
  if p_run.chain >= 100 then
    perform _refuse('retry_chain_too_deep', jsonb_build_object('run_id', p_run.run_id, 'depth', p_run.chain));
  end if;
end $$;

-- ══ 11. Proving a lease ═════════════════════════════════════════════════════════════════════════════════════

create function _calls(p_calls json) returns lease_call[] language plpgsql as $$
begin
  return array(select x from json_populate_recordset(null::lease_call, p_calls) x);
end $$;

-- A run found by its key, whatever the statistics say (docs/decisions/004).
create function _run(p_ws text, p_run_id text) returns setof run language sql stable as $$
  select k.* from run k where k.workspace_id = p_ws and k.run_id = p_run_id offset 0
$$;

-- Locks runs, by id. Answers the time by which they are held.
create function _lock_runs(p_ws text, p_runs text[]) returns timestamptz language plpgsql as $$
begin
  perform 1
     from (select distinct x.run_id collate "C" as run_id from unnest(p_runs) x (run_id) order by 1) x
     cross join lateral (select from run r
       where r.workspace_id = p_ws and r.run_id = x.run_id for no key update) l;
  return lease_now();
end $$;

-- Locks runs behind their tasks, and if these may end the tasks that wait for them: one sorted statement, so that two
-- batches meet in order (as _lock_tasks(), which would cost each completion a statement more). Edges added meanwhile
-- are met by _settle(). Answers the time by which they are held.
create function _hold(p_ws text, p_runs text[], p_ending boolean) returns timestamptz language plpgsql as $$
begin
  perform 1
     from (select r.task_id from unnest(p_runs) x (run_id) cross join lateral _run(p_ws, x.run_id) r
           union
           select d.task_id from unnest(p_runs) x (run_id) cross join lateral _run(p_ws, x.run_id) r
             cross join lateral (select k.task_id from dependency k
               where k.workspace_id = p_ws and k.depends_on_task_id = r.task_id offset 0) d
            where p_ending
           order by 1) x
     cross join lateral (select from task t
       where t.workspace_id = p_ws and t.task_id = x.task_id for no key update) l;
  return _lock_runs(p_ws, p_runs);
end $$;

-- A currency other than this one in which the work on a task was counted before.
create function _other_currency(p_ws text, p_task_id text, p_currency text) returns text language plpgsql as $$
begin
  return (select l.cost_currency
            from (select k.run_id from run k
                   where k.workspace_id = p_ws and k.task_id = p_task_id offset 0) r
            cross join lateral (select k.cost_currency from lease k
              where k.workspace_id = p_ws and k.run_id = r.run_id offset 0) l
           where l.cost_currency <> p_currency limit 1);
end $$;

-- What a call under a lease meets, rule by rule in the order in which they are promised; the runs are locked.
-- code null: the lease is live and the caller holds it. 'replay': this very operation was done already.
create function _judge(p_ws text, p_calls lease_call[], p_operation text) returns call_answer[]
language plpgsql as $$
begin
  return array(select row(c.n, v.code,
         case when v.code is null or v.code = 'replay' then '{}'
              when v.code = 'run_not_found' then jsonb_build_object('id', c.run_id)
              when v.code = 'stale_fence' then jsonb_build_object('run_id', c.run_id,
                'fence', coalesce(nullif(c.token_fence, r.fence), c.fence), 'current_fence', r.fence)
              when v.code = 'no_active_lease' then jsonb_build_object('run_id', c.run_id,
                'run_status', r.status)
              when v.code = 'run_canceled' then jsonb_build_object('run_id', c.run_id,
                -- Of a run that had left its lease before, only the log says why.
                'reason', case when l.ended_how = 'cancel' then l.ended_reason else (
                  select e.payload ->> 'reason' from event e
                   where e.workspace_id = p_ws and e.task_id = r.task_id and e.run_id = r.run_id
                     and e.event_type = 'task.run_canceled' order by e.sequence desc limit 1) end,
                'ended_at', _utc(r.ended_at))
              when v.code = 'task_run_already_terminal' then jsonb_build_object('run_id', c.run_id,
                'run_status', r.status, 'ended_at', _utc(r.ended_at), 'failure_kind', r.failure_kind)
              when v.code in ('lease_released', 'lease_revoked') then jsonb_build_object('run_id', c.run_id,
                'run_status', r.status, 'reason', l.ended_reason)
              when v.code = 'lease_expired' then jsonb_build_object('run_id', c.run_id,
                'run_status', r.status, 'lease_until', _utc(l.lease_until),
                'deadline_at', _utc(l.deadline_at))
              when v.code = 'currency_mismatch' then jsonb_build_object('run_id', c.run_id,
                'expected', _other_currency(p_ws, r.task_id, c.usage ->> 'cost_currency'))
              else jsonb_build_object('run_id', c.run_id) end, coalesce(v.code = 'replay', false), null,
         0)::call_answer
    from unnest(p_calls) c
    -- Each looked up by its key, call by call, whatever the statistics say (offset 0).
    left join lateral (select x.* from run x
      where x.workspace_id = p_ws and x.run_id = c.run_id offset 0) r on true
    left join lateral (select x.* from lease x
      where x.workspace_id = p_ws and x.run_id = c.run_id and x.fence = r.fence offset 0) l on true
    -- The lease that the token was made for: the stored hash alone proves it.
    left join lateral (select x.* from lease x
      where x.workspace_id = p_ws and x.run_id = c.run_id and x.fence = c.token_fence
        and x.token_hash = decode(c.token_hash, 'hex') offset 0) k on true
    left join lateral (select x.result, x.error from run_body x
      where x.workspace_id = p_ws and x.run_id = c.run_id and r.status in ('completed', 'failed') offset 0) b on true
    cross join lateral (select case
      when r.run_id is null then 'run_not_found'
      when c.token_hash is not null and k.run_id is null and not c.genuine then 'invalid_claim_token'
      when c.token_hash is not null and k.run_id is null then 'stale_fence'
      when c.token_hash is not null and (k.session_id, k.agent_name) is distinct from
           (c.session_id, c.agent_name) then 'foreign_run'
      when c.token_hash is null and _is_live(l::lease) and (l.session_id, l.agent_name) is distinct from
           (c.session_id, c.agent_name) then 'foreign_run'
      when c.token_hash is null and l.session_id = c.session_id
           and (r.claim_count > 1 or (select (w.settings ->> 'require_claim_token')::boolean
                                        from workspace w where w.workspace_id = p_ws))
        then 'claim_token_required'
      when c.token_hash is null and (l.session_id, l.agent_name) is distinct from (c.session_id, c.agent_name)
        then 'no_active_lease'
      when k.fence < r.fence and k.ended_how = 'release' and p_operation = 'release' then 'replay'
      when coalesce(k.fence, r.fence) < r.fence or c.fence <> r.fence then 'stale_fence'
      when r.status = 'canceled' then 'run_canceled'
      when r.status in ('completed', 'failed') and l.ended_how = p_operation and case p_operation
             when 'complete' then b.result::jsonb is not distinct from nullif(c.result::jsonb, 'null')
             when 'fail' then (b.error, r.failure_kind) = (c.error, c.failure_kind) end then 'replay'
      when r.status in ('completed', 'failed') then 'task_run_already_terminal'
      when l.ended_how = 'release' and p_operation = 'release' then 'replay'
      when l.ended_how = 'release' then 'lease_released'
      when l.ended_how in ('revoke', 'client_gone') then 'lease_revoked'
      when l.ended_at is not null then 'lease_expired'
      when c.usage ->> 'cost_currency' is not null
           and _other_currency(p_ws, r.task_id, c.usage ->> 'cost_currency') is not null
        then 'currency_mismatch' end as code) v
    order by c.n);
end $$;

-- The calls that were judged to be in order, by run.
create function _passed(p_calls lease_call[], p_verdicts call_answer[]) returns lease_call[]
language plpgsql as $$
begin
  return array(select c from unnest(p_calls) c
                where (p_verdicts[c.n + 1]).code is null order by c.run_id);
end $$;

-- A lease guard (X-Run-ID, X-Claim-Token): the call is done only while that lease is live, under the run's lock.
create function _guard(p_ws text, p_guard json) returns text language plpgsql as $$
declare
  v_call lease_call;
  v_verdict call_answer;
begin
  if p_guard is null then
    return null;
  end if;
  v_call := json_populate_record(null::lease_call, p_guard);
  perform _lock_runs(p_ws, array[v_call.run_id]);
  v_verdict := (_judge(p_ws, array[v_call], 'guard'))[1];
  if v_verdict.code is not null then
    perform _refuse(v_verdict.code, v_verdict.evidence);
  end if;
  return v_call.run_id;
end $$;

-- ══ 12. Claim ═══════════════════════════════════════════════════════════════════════════════════════════════

-- One claimer's request. `lanes`: what it may take; `run_ref`: only this run (channel coord-<run id>).
create type claim_call as (
  n int, team int, session_id text, agent_name text, max_runs int, lease_seconds int, key text, hash text,
  cause cause, kind text);                   -- null: an agent's

-- Claimers that may take the same runs: their lanes and least priority, or the one run they ask for. And where the
-- queue begins for them, if the caller knows (queue_heads): when it was `seen`, no other lane and priority had an
-- offer, nor had these one before their heads.
create type claim_team as (
  team int, lanes bigint[], priority_min int, run_ref text,
  seen pg_snapshot, head_lanes bigint[], head_priorities smallint[], head_ranks timestamptz[], head_runs text[]);

-- What was claimed, by which call, and where its locked offer and task lie.
create type claimed_run as (n int, run_id text, task_id text, offer_place tid, task_place tid);

-- A claim token, derived so that a repeat can derive it again: HMAC-SHA256 with the key's two padded forms.
create function _claim_token(p_ws text, p_run_id text, p_fence bigint, p_outer bytea, p_inner bytea) returns text
language sql stable as $$
  select 'wlt_' || p_fence || '_' || rtrim(translate(encode(sha256(p_outer || sha256(p_inner
    || convert_to(p_ws, 'UTF8') || '\x00' || convert_to(p_run_id, 'UTF8') || '\x00'
    || convert_to(p_fence::text, 'UTF8'))), 'base64'), '+/', '-_'), '=')
$$;

-- The token of a lease, derived again under the secret, present or previous, that its stored hash tells.
create function _token_again(
  p_ws text, p_run_id text, p_fence bigint, p_hash bytea, p_outer bytea, p_inner bytea, p_outer_previous bytea,
  p_inner_previous bytea) returns text language plpgsql stable as $$
declare
  v_token text := _claim_token(p_ws, p_run_id, p_fence, p_outer, p_inner);
begin
  if sha256(convert_to(v_token, 'UTF8')) <> p_hash then
    v_token := _claim_token(p_ws, p_run_id, p_fence, p_outer_previous, p_inner_previous);
  end if;
  return v_token;
end $$;

-- Moves due runs of one workspace to the queue; whoever looks first does it. Skips tasks that are locked.
create function promote_runs(p_workspace_id text, p_limit int) returns int language plpgsql as $$
declare
  v_now timestamptz := lease_now();
  v_tasks text[];
begin
  if (select r.due_at from run r where r.workspace_id = p_workspace_id and r.due_at <= v_now
       order by r.due_at limit 1) is null then
    return 0;
  end if;
  select array_agg(x.task_id) into v_tasks from (
    select t.task_id from run r join task t on t.workspace_id = p_workspace_id and t.task_id = r.task_id
     where r.workspace_id = p_workspace_id and r.due_at <= v_now
     order by r.due_at limit p_limit for no key update of t skip locked) x;
  if v_tasks is null then
    return 0;
  end if;
  return _offer(p_workspace_id, v_tasks, lease_now());
end $$;

-- Where the lanes and priorities of a team begin: the first offer of each that has one. Claimed offers stay in the
-- index until no snapshot is old enough to see them, which may be hours: a team that knows the heads does not
-- walk through what lies before them.
create function _first_offers(p_ws text, p_team claim_team)
returns table (lane_id bigint, priority smallint, rank_at timestamptz, run_id word) language sql stable as $$
  select b.lane_id, b.priority, o.rank_at, o.run_id
    from (select l.lane_id, p.priority, '-infinity'::timestamptz as rank_at, '' as run_id
            from unnest(p_team.lanes) l (lane_id)
            cross join unnest('{10,20,30,40}'::smallint[]) p (priority)
           where p_team.seen is null and p.priority >= p_team.priority_min
          union all
          select h.lane_id, h.priority, h.rank_at, h.run_id
            from unnest(p_team.head_lanes, p_team.head_priorities, p_team.head_ranks, p_team.head_runs)
              h (lane_id, priority, rank_at, run_id)) b
    cross join lateral (select o.rank_at, o.run_id from offer o
      where o.workspace_id = p_ws and o.lane_id = b.lane_id and o.priority = b.priority
        and (o.rank_at, o.run_id) >= (b.rank_at, b.run_id)
      order by o.rank_at, o.run_id limit 1) o
   where p_team.run_ref is null
$$;

-- What else a team may take that knows the heads: offers before them, made by transactions whose work was not seen
-- then; there is nothing besides, for what was there and seen lies behind the heads. So many at most of what one
-- transaction made in one lane and priority: each of these is looked up, whatever lies between them is not read.
create function _offers_since(p_ws text, p_team claim_team, p_depth int)
returns table (lane_id bigint, priority smallint, rank_at timestamptz, run_id word, concurrency_key word)
language sql stable as $$
  with recursive part as (
    select s.last, o.* from (
      select pg_snapshot_xmax(p_team.seen) as first, '18446744073709551615'::xid8 as last
      union all
      select x, x from pg_snapshot_xip(p_team.seen) x) s
    cross join lateral (select o.made, o.lane_id, o.priority, o.rank_at, o.run_id from offer o
      where o.workspace_id = p_ws and o.made >= s.first and o.made <= s.last
      order by o.made, o.lane_id, o.priority, o.rank_at, o.run_id limit 1) o
    union all
    select p.last, o.* from part p
    cross join lateral (select o.made, o.lane_id, o.priority, o.rank_at, o.run_id from offer o
      where o.workspace_id = p_ws and (o.made, o.lane_id, o.priority) > (p.made, p.lane_id, p.priority)
        and o.made <= p.last
      order by o.made, o.lane_id, o.priority, o.rank_at, o.run_id limit 1) o
  )
  select o.lane_id, o.priority, o.rank_at, o.run_id, o.concurrency_key
    from part p
    left join unnest(p_team.head_lanes, p_team.head_priorities, p_team.head_ranks, p_team.head_runs)
      h (lane_id, priority, rank_at, run_id) on h.lane_id = p.lane_id and h.priority = p.priority
    cross join lateral (select o.* from offer o
      where o.workspace_id = p_ws and o.made = p.made and o.lane_id = p.lane_id and o.priority = p.priority
        and (o.rank_at, o.run_id) < (coalesce(h.rank_at, 'infinity'), coalesce(h.run_id, ''))
      order by o.rank_at, o.run_id limit p_depth) o
   where p_team.run_ref is null and p_team.lanes @> array[p.lane_id] and p.priority >= p_team.priority_min
     and (h.lane_id is null or (p.rank_at, p.run_id) < (h.rank_at, h.run_id))
$$;

-- The first offers that a team may take, in the order of the queue. The heads of each lane and priority, merged: only
-- the branches with the earliest first offers can hold them, and each branch is one ordered index read, so what
-- lies behind the heads costs nothing.
create function _queue_of(p_ws text, p_team claim_team, p_depth int)
returns table (rank_at timestamptz, run_id word, concurrency_key word) language sql stable as $$
  select o.rank_at, o.run_id, o.concurrency_key
    from (select * from _first_offers(p_ws, p_team) f order by f.rank_at, f.run_id limit p_depth) b
    cross join lateral (select o.rank_at, o.run_id, o.concurrency_key from offer o
      where o.workspace_id = p_ws and o.lane_id = b.lane_id and o.priority = b.priority
        and (o.rank_at, o.run_id) >= (b.rank_at, b.run_id)
      order by o.rank_at, o.run_id limit p_depth) o
  union all
  select s.rank_at, s.run_id, s.concurrency_key from _offers_since(p_ws, p_team, p_depth) s
  union all
  select o.rank_at, o.run_id, o.concurrency_key from offer o
   where o.workspace_id = p_ws and o.run_id = p_team.run_ref
   order by rank_at, run_id limit p_depth
$$;

-- Where the queue begins for a team, to be given with its next claims: a claim_team's last members.
create function queue_heads(p_workspace_id text, p_team json) returns json language plpgsql stable as $$
declare
  v_team claim_team := json_populate_record(null::claim_team, p_team);
begin
  return (
    select json_build_object('seen', pg_current_snapshot(), 'head_lanes', coalesce(json_agg(h.lane_id), '[]'),
             'head_priorities', coalesce(json_agg(h.priority), '[]'),
             'head_ranks', coalesce(json_agg(h.rank_at), '[]'), 'head_runs', coalesce(json_agg(h.run_id), '[]'))
      from (select distinct on (b.lane_id, b.priority) b.*
              from (select f.* from _first_offers(p_workspace_id, v_team) f
                    union all
                    select s.lane_id, s.priority, s.rank_at, s.run_id from _offers_since(p_workspace_id, v_team, 1) s) b
             order by b.lane_id, b.priority, b.rank_at, b.run_id) h);
end $$;

-- The first runs, in the order of the queue, that a team may take, each with its offer and task locked, and the
-- slot of its concurrency key, if it has one (keyed: some have). What another transaction holds is skipped, so a
-- claim never waits. Reads a few more heads than wanted, since some may be held; asks deeper while it comes out
-- short. p_before: what the same claim took before, which its own locks do not hide.
create function _take_offers(
  p_ws text, p_team claim_team, p_wanted int, p_before claimed_run[], out claimed claimed_run[], out keyed boolean)
language plpgsql as $$
declare
  v_depth int := p_wanted + 8;
  v_seen int;
  v_more claimed_run[];
  v_keyed boolean;
  v_full text[] := '{}';                     -- runs whose slots are all taken
begin
  claimed := '{}';
  keyed := false;
  loop
    -- Each head's offer and its task, both without waiting. Who changes an offer holds its task: with both in hand
    -- it is true.
    select array_agg(row(null, x.run_id, x.task_id, x.offer_place, x.task_place)::claimed_run
                     order by x.rank_at, x.run_id), bool_or(x.concurrency_key is not null)
      into v_more, v_keyed from (
      select h.rank_at, h.run_id, h.concurrency_key, o.task_id, o.ctid as offer_place, t.ctid as task_place
        from _queue_of(p_ws, p_team, v_depth) h
        left join lateral (select true as mine from slot k
          where k.workspace_id = p_ws and k.concurrency_key = h.concurrency_key
            for no key update skip locked) s on true
        cross join lateral (select k.task_id, k.ctid from offer k
          where k.workspace_id = p_ws and k.run_id = h.run_id and (h.concurrency_key is null or s.mine)
            and p_team.lanes @> array[k.lane_id] and k.priority >= p_team.priority_min
            for no key update skip locked) o
        cross join lateral (select k.ctid from task k
          where k.workspace_id = p_ws and k.task_id = o.task_id for no key update skip locked) t
       where h.run_id <> all (array(select c.run_id from unnest(p_before || claimed) c)) and h.run_id <> all (v_full)
       limit p_wanted - cardinality(claimed)) x;
    if v_keyed then
      keyed := true;
      select f.taken, v_full || f.over into v_more, v_full from _fit_slots(p_ws, p_before || claimed, v_more) f;
    end if;
    claimed := claimed || v_more;
    exit when cardinality(claimed) >= p_wanted or p_team.run_ref is not null;
    continue when v_keyed;                   -- slots may be full: what stands behind was not looked at
    v_seen := (select count(*) from _queue_of(p_ws, p_team, v_depth) h);
    exit when v_seen < v_depth;
    v_depth := v_depth * 4;
  end loop;
end $$;

-- What earlier claims under the same keys left: the live leases to answer again, or the code that refuses.
create function _repeat_claims(p_ws text, p_calls claim_call[], out verdicts call_answer[], out again claimed_run[])
language plpgsql as $$
begin
  verdicts := '{}';
  again := '{}';
  -- One claim at a time per key, and never a wait for the other.
  select array_agg(row(c.n, 'idempotency_in_progress', '{}', false, null, 0)::call_answer)
         filter (where not c.mine)
    into verdicts
    from (select c.n, pg_try_advisory_xact_lock(hashtextextended(
                   p_ws || ' ' || c.session_id || ' ' || c.key, 2)) as mine
            from unnest(p_calls) c where c.key is not null order by c.key) c;
  verdicts := coalesce(verdicts, '{}');
  if not exists (select from unnest(p_calls) c cross join lateral (select from lease l
        where l.workspace_id = p_ws and l.session_id = c.session_id and l.claim_key = c.key limit 1) x) then
    return;
  end if;
  with earlier as (
    select c.n, l.run_id, l.task_id, l.ended_at is null as live, l.claim_hash = decode(c.hash, 'hex') as same,
           r.fence = l.fence as newest, l.claimed_at = max(l.claimed_at) over (partition by c.n) as last
      from unnest(p_calls) c
      join lease l on l.workspace_id = p_ws and l.session_id = c.session_id and l.claim_key = c.key
      join run r on r.workspace_id = p_ws and r.run_id = l.run_id
     where c.key is not null and l.claimed_at > lease_now() - interval '24 hours'
  ), judged as (
    -- A key whose runs were all claimed again is new.
    select e.n, bool_and(e.same) as same, bool_or(e.live) as live,
           jsonb_agg(e.run_id order by e.run_id) as run_ids
      from earlier e where e.last group by e.n having bool_or(e.newest)
  )
  select verdicts || coalesce(array_agg(row(j.n,
           case when not j.same then 'idempotency_key_reused' when not j.live then 'claim_key_spent' end,
           case when j.same then jsonb_build_object('run_ids', j.run_ids) else '{}' end,
           true, null, 0)::call_answer), '{}')
    into verdicts from judged j where j.n <> all (array(select v.n from unnest(verdicts) v));
  select coalesce(array_agg(row(c.n, l.run_id, l.task_id, null, null)::claimed_run
                             order by r.available_at, r.run_id), '{}')
    into again
    from unnest(p_calls) c
    join lease l on l.workspace_id = p_ws and l.session_id = c.session_id and l.claim_key = c.key
    join run r on r.workspace_id = p_ws and r.run_id = l.run_id
    join unnest(verdicts) v on v.n = c.n and v.code is null
   where l.ended_at is null;
end $$;

-- Claims for many callers of one workspace at once: each gets up to max_runs, who asked first first. Answers a
-- row a claimed run; callers without a row found nothing. A lane that the caller does not know of yet is
-- answered by one row n = -1, lanes_changed, and nothing is done.
create function claim_runs(
  p_workspace_id text, p_teams json, p_calls json, p_newest_lane bigint, p_outer bytea, p_inner bytea,
  p_outer_previous bytea, p_inner_previous bytea)
returns setof call_answer language plpgsql as $$
declare
  v_now timestamptz := lease_now();
  v_calls claim_call[] := array(select x from json_populate_recordset(null::claim_call, p_calls) x);
  v_team claim_team;
  v_wanted int;
  v_repeats record;
  v_taken record;
  v_claimed claimed_run[] := '{}';
  v_keyed boolean := false;
  v_unknown boolean;
  v_due boolean;
  v_paused boolean;
begin
  -- What is due in the order of the index, and to now only, so that what waits for something else than time is not
  -- read even where statistics say that a sort of it is as good.
  select (select l.lane_id from lane l where l.workspace_id = p_workspace_id
           order by l.lane_id desc limit 1) > p_newest_lane,
         (select r.due_at from run r where r.workspace_id = p_workspace_id and r.due_at <= v_now
           order by r.due_at limit 1) is not null,
         exists (select from scheduler s where s.workspace_id in (p_workspace_id, '*') and s.paused_at is not null)
    into v_unknown, v_due, v_paused;
  if v_unknown then
    return next row(-1, 'lanes_changed', null, false, null, 0)::call_answer;
    return;
  end if;
  v_repeats := _repeat_claims(p_workspace_id, v_calls);
  if cardinality(v_repeats.verdicts) > 0 then
    v_calls := array(select c from unnest(v_calls) c
                      where c.n <> all (array(select v.n from unnest(v_repeats.verdicts) v)));
    return query select * from unnest(v_repeats.verdicts) v where v.code is not null;
    return query select * from _repeated_claims(p_workspace_id, array(
        select x from json_populate_recordset(null::claim_call, p_calls) x), v_repeats.again, p_outer, p_inner,
      p_outer_previous, p_inner_previous);
  end if;
  if v_paused then
    return;
  elsif v_due then
    perform promote_runs(p_workspace_id, 200);
  end if;

  for v_team in select x.* from json_populate_recordset(null::claim_team, p_teams) x loop
    v_wanted := (select sum(c.max_runs) from unnest(v_calls) c where c.team = v_team.team);
    continue when v_wanted is null;          -- all its callers were answered above
    v_taken := _take_offers(p_workspace_id, v_team, v_wanted, v_claimed);
    if v_team.run_ref is not null and cardinality(v_taken.claimed) = 0
       and _offer_ahead(p_workspace_id, v_team.run_ref, v_team.lanes, v_team.priority_min) then
      v_taken := _take_offers(p_workspace_id, v_team, v_wanted, v_claimed);
    end if;
    continue when cardinality(v_taken.claimed) = 0;
    v_keyed := v_keyed or v_taken.keyed;
    v_claimed := v_claimed || array(
      select row(c.n, x.run_id, x.task_id, x.offer_place, x.task_place)::claimed_run
        from unnest(v_taken.claimed) with ordinality x (n, run_id, task_id, offer_place, task_place, place)
        join (select c.n, c.max_runs, sum(c.max_runs) over (order by c.n) as upto
                from unnest(v_calls) c where c.team = v_team.team) c
          on x.place > c.upto - c.max_runs and x.place <= c.upto
       order by x.place);
  end loop;
  if cardinality(v_claimed) > 0 then
    return query select * from _lease_out(p_workspace_id, v_calls, v_claimed, p_outer, p_inner);
    if v_keyed then                          -- who skipped these slots meanwhile is to look again
      return next row(-1, null, null, true, null, _leave_contest(p_workspace_id, v_claimed, found))::call_answer;
    end if;
  end if;
end $$;

-- Makes runs and leases the agents': the fence rises, the token is derived, the task is in progress. Offers and
-- tasks are locked. Nothing is done if the scheduler is paused. No _settle(), since a claimed run makes its task
-- in_progress and nothing else; and its event is written and its answer made here, of the rows in hand.
create function _lease_out(
  p_ws text, p_calls claim_call[], p_claimed claimed_run[], p_outer bytea, p_inner bytea)
returns setof call_answer language plpgsql as $$
declare
  v_now timestamptz := lease_now();
  v_newest record;
begin
  perform 1 from workspace_lock l where l.workspace_id = p_ws and l.name = 'log' for no key update;
  -- A pause commits under this lock: no claim commits behind its back.
  select e.sequence, e.open_tasks, exists (select from scheduler s
           where s.workspace_id in (p_ws, '*') and s.paused_at is not null) as paused
    into v_newest from event e where e.workspace_id = p_ws order by e.sequence desc limit 1;
  if v_newest.paused then
    return;
  end if;
  return query
  with gone as (
    delete from offer o where o.ctid = any (array(select x.offer_place from unnest(p_claimed) x))
  ), fenced as (
    update task t set fence = t.fence + 1, status = 'in_progress', current_run_id = x.run_id, updated_at = v_now
      from unnest(p_claimed) with ordinality x (n, run_id, task_id, offer_place, task_place, place)
     where t.ctid = x.task_place
    returning x.n, x.run_id, t.task_id, t.root_task_id, t.fence, t.deadline_seconds, t.max_attempts, t.priority,
              coalesce(t.identifier, t.title) as title, v_newest.sequence + x.place as sequence,
              _task_reference_json(t, v_newest.sequence + x.place) as task, t.concurrency_key,
              _budget_left(t) as budget_left
  ), called as (
    -- Each with its call, and what that asks for.
    select f.*, c.cause, k.token, row(p_ws, f.run_id, f.fence, f.task_id, c.session_id, c.agent_name,
               (c.cause).actor_kind, (c.cause).actor_ref, coalesce(c.kind, 'agent'), c.key, decode(c.hash, 'hex'),
               sha256(convert_to(k.token, 'UTF8')),
               v_now, s.seconds, s.until, v_now, s.deadline, s.until, null, null, null, null, null, null, null,
               null, null, f.concurrency_key)::lease as lease
      from fenced f
      cross join workspace w
      cross join lateral (select c.* from unnest(p_calls) c where c.n = f.n offset 0) c
      cross join lateral (select _claim_token(p_ws, f.run_id, f.fence, p_outer, p_inner) as token offset 0) k
      cross join lateral (select x.seconds, x.deadline,
               least(v_now + make_interval(secs => x.seconds), x.deadline) as until
          from (select coalesce(c.lease_seconds, _setting(w.settings, 'default_lease_seconds', 300)) as seconds,
                       v_now + make_interval(secs => f.deadline_seconds) as deadline) x offset 0) s
     where w.workspace_id = p_ws
  ), leased as (
    insert into lease select (c.lease).* from called c
  ), claimed as (
    -- Nobody else changes a queued run: its task is ours.
    update run r set status = 'claimed', fence = c.fence, claim_count = r.claim_count + 1, due_at = null
      from called c
      cross join lateral (select k.ctid, k.network_channel from run k
        where k.workspace_id = p_ws and k.run_id = c.run_id offset 0) k
      left join lateral (select k.* from run_body k
        where k.workspace_id = p_ws and k.run_id = c.run_id offset 0) b on true
      cross join lateral (select _channel_json(p_ws, c.task_id, c.run_id, k.network_channel, c.title, b.metadata,
                                               v_now) as body offset 0) h
      cross join lateral _run_usage(p_ws, c.run_id) u
     where r.ctid = k.ctid
    returning c.n, c.task_id, c.root_task_id, c.run_id, c.sequence, c.task, c.token, c.cause, c.lease, c.budget_left,
              r.attempt, r.previous_run_id, r.available_at, c.priority,
              _run_json(r, c.max_attempts, c.priority, c.lease, b::run_body, u.body, h.body) as run,
              _lease_json(r, c.lease, h.body) as lease_told, h.body as channel
  ), logged as (
    insert into event (workspace_id, sequence, task_id, root_task_id, run_id, event_type, actor_kind, actor_ref,
                       origin_kind, origin_ref, payload, at, open_tasks)
    select p_ws, c.sequence, c.task_id, c.root_task_id, c.run_id, 'task.run_claimed', (c.cause).actor_kind,
           (c.cause).actor_ref, (c.cause).origin_kind, (c.cause).origin_ref, jsonb_build_object(
             'claimed_by', _actor((c.cause).actor_kind, (c.cause).actor_ref), 'agent_name', (c.lease).agent_name,
             'session_id', (c.lease).session_id, 'claim_kind', (c.lease).claim_kind,
             'claim_token_hash', 'sha256:' || encode((c.lease).token_hash, 'hex'),
             'lease_until', _utc((c.lease).lease_until), 'deadline_at', _utc((c.lease).deadline_at),
             'task_status', 'in_progress', 'status', 'claimed', 'attempt', c.attempt,
             'fence', (c.lease).fence), v_now, v_newest.open_tasks
      from claimed c
  ), active as (
    insert into task_activity (workspace_id, task_id, sequence, at)
    select p_ws, c.task_id, c.sequence, v_now from claimed c
    on conflict (workspace_id, task_id) do update set sequence = excluded.sequence, at = excluded.at
  )
  select c.n, null::text, jsonb_build_object('priority', _priority_name(c.priority),
           'seconds', extract(epoch from v_now - c.available_at)),
         false, _claim_json(c.task, c.run, c.lease_told, c.channel, i::task_body,
           (select p.error from run_body p
             where p.workspace_id = p_ws and p.run_id = c.previous_run_id),
           (select p.body from profile_wire p where p.workspace_id = p_ws and p.task_id = c.task_id), c.budget_left,
           c.token), 0
    from claimed c
    left join lateral (select k.* from task_body k
      where k.workspace_id = p_ws and k.task_id = c.task_id offset 0) i on true
   order by c.sequence;                      -- of each caller in the order of the queue
end $$;

-- The answers to claims that were repeated, of leases that still live.
create function _repeated_claims(
  p_ws text, p_calls claim_call[], p_again claimed_run[], p_outer bytea, p_inner bytea, p_outer_previous bytea,
  p_inner_previous bytea)
returns setof call_answer language plpgsql as $$
begin
  -- Nobody holds these runs for us: what ended since it was judged, or is another's now, is left out.
  return query
  with shown as (
    select c.n, c.place, c.run_id, l.mine is not null as mine,
           case when l.mine then _claim_json(w.task, w.claimed_body, w.lease, w.coordination_channel, i::task_body,
             (select p.error from run_body p
               where p.workspace_id = p_ws and p.run_id = w.previous_run_id),
             (select p.body from profile_wire p where p.workspace_id = p_ws and p.task_id = c.task_id),
             w.budget_left, _token_again(p_ws, c.run_id, w.fence, w.token_hash, p_outer, p_inner,
                                         p_outer_previous, p_inner_previous)) end as body
      from unnest(p_again) with ordinality c (n, run_id, task_id, offer_place, task_place, place)
      join unnest(p_calls) k on k.n = c.n
      cross join lateral (select w.* from run_wire w
        where w.workspace_id = p_ws and w.run_id = c.run_id offset 0) w
      left join lateral (select true as mine from lease l
        where l.workspace_id = p_ws and l.run_id = c.run_id and l.fence = w.fence and l.ended_at is null
          and l.session_id = k.session_id and l.claim_key = k.key offset 0) l on true
      left join lateral (select k.* from task_body k
        where k.workspace_id = p_ws and k.task_id = c.task_id offset 0) i on true
  )
  (select s.n, null::text, null::jsonb, true, s.body, 0 from shown s where s.mine order by s.n, s.place)
  union all
  select s.n, 'claim_key_spent', jsonb_build_object('run_ids', jsonb_agg(s.run_id order by s.run_id)), true, null, 0
    from shown s group by s.n having not bool_or(s.mine);
end $$;

-- ══ 13. Heartbeat ═══════════════════════════════════════════════════════════════════════════════════════════

-- Never shorter than it was, never past the deadline.
create function _longer(p_until timestamptz, p_now timestamptz, p_seconds int, p_deadline timestamptz)
returns timestamptz language sql stable as $$
  select least(greatest(p_until, p_now + make_interval(secs => p_seconds)), p_deadline)
$$;

-- Where the current lease of a run (locked by the caller) lies, found by its key whatever the statistics say.
create function _live_lease(p_ws text, p_run_id text) returns table (place tid, run_status word)
language sql stable as $$
  select l.ctid, r.status
    from (select k.status, k.fence from run k
           where k.workspace_id = p_ws and k.run_id = p_run_id offset 0) r
    cross join lateral (select k.ctid from lease k
      where k.workspace_id = p_ws and k.run_id = p_run_id and k.fence = r.fence offset 0) l
$$;

-- Plain heartbeats: run rows locked, leases renewed, no event. A call that has something to tell (the first of
-- its lease, or with progress, checkpoint or usage) is answered `loud` and belongs to report_runs().
create function heartbeat_runs(p_workspace_id text, p_calls json) returns setof call_answer
language plpgsql as $$
declare
  v_now timestamptz;
  v_calls lease_call[] := _calls(p_calls);
  v_runs text[];
  v_verdicts call_answer[];
begin
  v_runs := array(select c.run_id from unnest(v_calls) c);
  v_now := _lock_runs(p_workspace_id, v_runs);
  v_verdicts := _judge(p_workspace_id, v_calls, 'heartbeat');
  v_calls := _passed(v_calls, v_verdicts);
  update lease l
     set heartbeat_at = v_now, lease_until =
           _longer(l.lease_until, v_now, coalesce(c.lease_seconds, l.lease_seconds), l.deadline_at)
    from unnest(v_calls) c
    cross join lateral _live_lease(p_workspace_id, c.run_id) k
   where l.ctid = k.place and k.run_status = 'running';
  return query select * from unnest(v_verdicts) v where v.code <> 'replay';
  return query
    select c.n, case when r.status <> 'running' then 'loud' end, null::jsonb, false,
           (select h.body::text from heartbeat_wire h
             where h.workspace_id = p_workspace_id and h.run_id = c.run_id), 0
      from unnest(v_calls) c
      cross join lateral (select k.status from run k
        where k.workspace_id = p_workspace_id and k.run_id = c.run_id offset 0) r;
end $$;

-- Stores what a call tells besides its purpose: usage (the greatest value of this lease counts) and checkpoint.
create function _report(p_ws text, p_calls lease_call[]) returns void language plpgsql as $$
begin
  if not exists (select from unnest(p_calls) c where c.usage is not null or c.checkpoint is not null) then
    return;
  end if;
  update lease l set
      input_tokens = greatest(l.input_tokens, (c.usage ->> 'input_tokens')::bigint),
      output_tokens = greatest(l.output_tokens, (c.usage ->> 'output_tokens')::bigint),
      total_cost = greatest(l.total_cost, (c.usage ->> 'total_cost')::numeric),
      cost_currency = coalesce(c.usage ->> 'cost_currency', l.cost_currency),
      tool_calls = greatest(l.tool_calls, (c.usage ->> 'tool_calls')::bigint),
      turns = greatest(l.turns, (c.usage ->> 'turns')::bigint)
    from unnest(p_calls) c
    cross join lateral _live_lease(p_ws, c.run_id) k
   where l.ctid = k.place and c.usage is not null;
  with stored as (
    update task_body b set checkpoint = c.checkpoint
      from unnest(p_calls) c
      cross join lateral _run(p_ws, c.run_id) r
      cross join lateral (select k.ctid from task_body k
        where k.workspace_id = p_ws and k.task_id = r.task_id offset 0) k
     where b.ctid = k.ctid and c.checkpoint is not null
       and b.checkpoint::jsonb is distinct from c.checkpoint::jsonb
    returning r.run_id
  )
  -- A new checkpoint is progress: the count of expiries that end in quarantine starts again.
  update run r set lapses = 0
    from stored s
    cross join lateral (select k.ctid from run k
      where k.workspace_id = p_ws and k.run_id = s.run_id and k.lapses > 0 offset 0) k
   where r.ctid = k.ctid;
end $$;

-- Heartbeats that tell something: the run starts, its progress, checkpoint or usage is stored and logged.
create function report_runs(p_workspace_id text, p_calls json) returns setof call_answer language plpgsql as $$
declare
  v_now timestamptz;
  v_calls lease_call[] := _calls(p_calls);
  v_runs text[];
  v_verdicts call_answer[];
  v_started new_event[];
  v_events new_event[];
begin
  -- A checkpoint is the task's, and so is its lock. A queued run (the call is late) may be in the hands of a claim
  -- that has the log lock already, and comes to the run behind it: never wait for the log with such a run locked.
  perform _lock_tasks(p_workspace_id, array(select r.task_id::text from unnest(v_calls) c
    cross join lateral _run(p_workspace_id, c.run_id) r where c.checkpoint is not null or r.status = 'queued'));
  v_runs := array(select c.run_id from unnest(v_calls) c);
  v_now := _lock_runs(p_workspace_id, v_runs);
  v_verdicts := _judge(p_workspace_id, v_calls, 'heartbeat');
  v_calls := _passed(v_calls, v_verdicts);

  with started as (
    update run r set status = 'running', started_at = v_now
      from unnest(v_calls) c
      cross join lateral (select k.ctid from run k where k.workspace_id = p_workspace_id
        and k.run_id = c.run_id and k.status in ('claimed', 'starting') offset 0) k
     where r.ctid = k.ctid
    returning r.task_id, r.run_id, c.session_id, c.cause
  )
  select array_agg(_event(s.cause, 'task.run_started', s.task_id, s.run_id,
                          jsonb_build_object('session_id', s.session_id)) order by s.run_id)
    into v_started from started s;

  -- Only what differs from what is stored is an event.
  select array_agg(_event(c.cause, 'task.run_progress', r.task_id, r.run_id, jsonb_build_object(
           'progress', nullif(c.progress::jsonb, 'null'), 'usage', nullif(c.usage::jsonb, 'null'),
           'checkpoint_bytes', octet_length(c.checkpoint::text),
           'checkpoint_sha256', encode(sha256(convert_to(c.checkpoint::text, 'UTF8')), 'hex')))
           order by r.run_id)
    into v_events
    from unnest(v_calls) c
    cross join lateral _run(p_workspace_id, c.run_id) r
    cross join lateral (select k.* from lease k where k.workspace_id = p_workspace_id
      and k.run_id = r.run_id and k.fence = r.fence offset 0) l
    left join lateral (select k.checkpoint from task_body k
      where k.workspace_id = p_workspace_id and k.task_id = r.task_id offset 0) t on true
    left join lateral (select k.* from run_body k
      where k.workspace_id = p_workspace_id and k.run_id = r.run_id offset 0) b on true
   where (c.progress is not null and (b.progress_at is null
          or (b.progress_percent, b.progress_message) is distinct from
             ((c.progress ->> 'percent')::float8, c.progress ->> 'message')))
      or (c.checkpoint is not null and t.checkpoint::jsonb is distinct from c.checkpoint::jsonb)
      or (c.usage ->> 'input_tokens')::bigint > coalesce(l.input_tokens, -1)
      or (c.usage ->> 'output_tokens')::bigint > coalesce(l.output_tokens, -1)
      or (c.usage ->> 'total_cost')::numeric > coalesce(l.total_cost, -1)
      or c.usage ->> 'cost_currency' <> coalesce(l.cost_currency, '')
      or (c.usage ->> 'tool_calls')::bigint > coalesce(l.tool_calls, -1)
      or (c.usage ->> 'turns')::bigint > coalesce(l.turns, -1);
  perform _report(p_workspace_id, v_calls);
  insert into run_body (workspace_id, run_id, progress_percent, progress_message, progress_at)
  select p_workspace_id, c.run_id, (c.progress ->> 'percent')::float8, c.progress ->> 'message', v_now
    from unnest(v_calls) c where c.progress is not null
  on conflict (workspace_id, run_id) do update set progress_percent = excluded.progress_percent,
    progress_message = excluded.progress_message, progress_at = excluded.progress_at;
  update lease l
     set heartbeat_at = v_now, lease_until =
           _longer(l.lease_until, v_now, coalesce(c.lease_seconds, l.lease_seconds), l.deadline_at)
    from unnest(v_calls) c
    cross join lateral _live_lease(p_workspace_id, c.run_id) k
   where l.ctid = k.place;
  if v_started is not null or v_events is not null then
    perform _log(p_workspace_id, v_now, coalesce(v_started, '{}') || coalesce(v_events, '{}'));
  end if;
  return query select * from unnest(v_verdicts) v where v.code <> 'replay';
  return query
    select c.n, null::text, null::jsonb, false, (select h.body::text from heartbeat_wire h
             where h.workspace_id = p_workspace_id and h.run_id = c.run_id), 0
      from unnest(v_calls) c;
end $$;

-- ══ 14. Complete, fail, release ═════════════════════════════════════════════════════════════════════════════

-- The answers of an operation that ends leases: refusals, repeats, and what was done now.
create function _ended_answers(p_ws text, p_calls lease_call[], p_verdicts call_answer[], p_offers int)
returns setof call_answer language plpgsql as $$
begin
  return query select v.* from unnest(p_verdicts) v where v.code <> 'replay';
  return query
  select v.n, null::text, jsonb_build_object('seconds', extract(epoch from lease_now() - w.claimed_at)), v.replayed,
         json_build_object('lease', _lease_json(r::run, l::lease, w.coordination_channel))::text, p_offers
    from unnest(p_verdicts) v
    cross join lateral (select (p_calls[v.n + 1]).* offset 0) c
    left join lateral (select w.coordination_channel, w.claimed_at, w.fence from run_wire w
      where w.workspace_id = p_ws and w.run_id = c.run_id offset 0) w on true
    -- The caller's own lease: after a release the run may be somebody else's already.
    left join lateral (select k.* from run k
      where k.workspace_id = p_ws and k.run_id = c.run_id offset 0) r on true
    left join lateral (select k.* from lease k where k.workspace_id = p_ws and k.run_id = c.run_id
      and k.fence = coalesce(c.token_fence, c.fence, w.fence) offset 0) l on true
   where v.code is null or v.code = 'replay';
end $$;

create function complete_runs(p_workspace_id text, p_calls json) returns setof call_answer
language plpgsql as $$
declare
  v_now timestamptz;
  v_calls lease_call[] := _calls(p_calls);
  v_runs text[];
  v_passed lease_call[];
  v_verdicts call_answer[];
  v_events new_event[];
  v_tasks text[];
  v_more new_event[];
  v_offers int := 0;
  v_opened int;
  v_reviews review_wish[];
  v_answers call_answer[];
begin
  v_runs := array(select c.run_id from unnest(v_calls) c);
  v_now := _hold(p_workspace_id, v_runs, true);
  v_verdicts := _judge(p_workspace_id, v_calls, 'complete');
  v_passed := _passed(v_calls, v_verdicts);
  if cardinality(v_passed) > 0 then
    perform _report(p_workspace_id, v_passed);
    with stored as (
      insert into run_body (workspace_id, run_id, result)
      select p_workspace_id, c.run_id, c.result from unnest(v_passed) c where c.result is not null
      on conflict (workspace_id, run_id) do update set result = excluded.result
    ), freed as (
      update lease l set ended_at = v_now, ended_how = 'complete'
        from unnest(v_passed) c
        cross join lateral _live_lease(p_workspace_id, c.run_id) k
       where l.ctid = k.place
      returning c.n, c.run_id, c.result, c.cause, l as lease
    ), ended as (
      update run r set status = 'completed', ended_at = v_now, started_at = coalesce(r.started_at, v_now),
                       review = case when t.review_id is not null then 'open' end
        from freed f
        cross join lateral (select k.ctid, k.task_id, k.network_channel from run k
          where k.workspace_id = p_workspace_id and k.run_id = f.run_id offset 0) k
        cross join lateral (select coalesce(t.identifier, t.title) as title,
            case when t.review_policy in ('on_success', 'always') then _new_id('rev') end as review_id from task t
          where t.workspace_id = p_workspace_id and t.task_id = k.task_id offset 0) t
        left join lateral (select b.metadata from run_body b
          where b.workspace_id = p_workspace_id and b.run_id = f.run_id offset 0) b on true
        cross join lateral (select _channel_json(p_workspace_id, k.task_id, f.run_id, k.network_channel, t.title,
                                                 b.metadata, v_now) as body offset 0) h
       where r.ctid = k.ctid
      returning f.n, r.run_id, r.task_id, f.result, f.cause, (f.lease).token_hash, (f.lease).claimed_at, t.review_id,
                _lease_json(r, f.lease, h.body) as lease
    ), forgotten as (
      update task_body b set checkpoint = null
        from ended e
        cross join lateral (select k.ctid from task_body k where k.workspace_id = p_workspace_id
          and k.task_id = e.task_id and k.checkpoint is not null offset 0) k
       where b.ctid = k.ctid and e.review_id is null
    )
    select array_agg(_event(e.cause, 'task.run_completed', e.task_id, e.run_id, jsonb_build_object(
             'result', e.result, 'usage', u.body,
             'claim_token_hash', 'sha256:' || encode(e.token_hash, 'hex'), 'review_id', e.review_id))
             order by e.run_id),
           array_agg(e.task_id order by e.run_id),
           array_agg(row(e.review_id, e.run_id, null, e.cause)::review_wish order by e.run_id)
             filter (where e.review_id is not null),
           array_agg(row(e.n, null, jsonb_build_object('seconds', extract(epoch from v_now - e.claimed_at)), false,
             json_build_object('lease', e.lease)::text, 0)::call_answer)
      into v_events, v_tasks, v_reviews, v_answers
      from ended e
      cross join lateral _run_usage(p_workspace_id, e.run_id) u;
    if v_reviews is not null then
      v_events := v_events || _ask_reviews(p_workspace_id, v_now, v_reviews);
    end if;
    select x.events, x.offers, x.opened into v_more, v_offers, v_opened
      from _settle(p_workspace_id, v_tasks, v_now, array(select c.cause from unnest(v_passed) c),
                   'task.run_completed') x;
    v_opened := _log(p_workspace_id, v_now, v_events || v_more, v_opened);
    return query select a.n, a.code, a.evidence, a.replayed, a.body, v_offers from unnest(v_answers) a;
  end if;
  if cardinality(v_passed) < cardinality(v_calls) then
    return query select * from _ended_answers(p_workspace_id, v_calls,
      array(select v from unnest(v_verdicts) v where v.code is not null), v_offers);
  end if;
end $$;

-- A run about to fail: told by its holder, or by the sweep at its deadline (`how`).
create type failure as (
  run_id text, error text, failure_kind text, retryable boolean, retry_after_seconds int, metadata json,
  how text, cause cause);

-- Fails runs (tasks and runs are locked), and queues the next attempt of each that has one left; of the others
-- those are reviewed whose task asks for it.
create function _fail(p_ws text, p_now timestamptz, p_failures failure[], out tasks text[], out events new_event[])
language plpgsql as $$
declare
  v_next new_run[];
  v_enqueued new_event[];
  v_reviews review_wish[];
begin
  -- The back-off counts the automatic retries in the chain.
  select array_agg(row(r.task_id, r.run_id, r.network_channel, b.metadata, null,
           greatest(t.available_at, p_now + coalesce(make_interval(secs => f.retry_after_seconds),
             _back_off(t.retry_strategy, t.retry_base_seconds, t.retry_max_seconds, r.retries + 1))),
           'retry', true, _new_id('run'), f.cause)::new_run order by r.run_id)
    into v_next
    from unnest(p_failures) f
    cross join lateral _run(p_ws, f.run_id) r
    cross join lateral (select k.* from task k
      where k.workspace_id = p_ws and k.task_id = r.task_id offset 0) t
    left join lateral (select k.metadata from run_body k
      where k.workspace_id = p_ws and k.run_id = r.run_id offset 0) b on true
   where f.retryable and t.attempts_used < t.max_attempts and not t.canceled and r.chain < 100;

  insert into run_body (workspace_id, run_id, error)
  select p_ws, f.run_id, f.error from unnest(p_failures) f
  on conflict (workspace_id, run_id) do update set error = excluded.error;
  with ended as (
    update run r set status = 'failed', ended_at = p_now, failure_kind = f.failure_kind,
                     retryable = f.retryable, review = case when t.review_id is not null then 'open' end
      from unnest(p_failures) f
      cross join lateral (select k.ctid, k.task_id from run k
        where k.workspace_id = p_ws and k.run_id = f.run_id offset 0) k
      cross join lateral (select case when t.review_policy in ('on_failure', 'always') and not exists (
            select from unnest(v_next) n where n.previous_run_id = f.run_id) then _new_id('rev') end as review_id
          from task t where t.workspace_id = p_ws and t.task_id = k.task_id offset 0) t
     where r.ctid = k.ctid
    returning r.run_id, r.task_id, r.fence, f.error, f.failure_kind, f.retryable, f.metadata, f.how, f.cause,
              t.review_id
  ), freed as (
    update lease l set ended_at = p_now, ended_how = e.how
      from ended e
      cross join lateral (select k.ctid from lease k
        where k.workspace_id = p_ws and k.run_id = e.run_id and k.fence = e.fence offset 0) k
     where l.ctid = k.ctid
    returning l.run_id, l.token_hash
  )
  select array_agg(e.task_id order by e.run_id),
         array_agg(_event(e.cause, 'task.run_failed', e.task_id, e.run_id, jsonb_build_object(
           'error', e.error, 'failure_kind', e.failure_kind, 'retryable', e.retryable,
           'metadata', e.metadata, 'usage', u.body,
           'claim_token_hash', 'sha256:' || encode(x.token_hash, 'hex'), 'next_run_id', n.run_id,
           'next_available_at', _utc(n.available_at), 'review_id', e.review_id)) order by e.run_id),
         array_agg(row(e.review_id, e.run_id, null, e.cause)::review_wish order by e.run_id)
           filter (where e.review_id is not null)
    into tasks, events, v_reviews
    from ended e join freed x using (run_id)
    cross join lateral _run_usage(p_ws, e.run_id) u
    left join unnest(v_next) n on n.previous_run_id = e.run_id;
  if v_next is not null then
    v_enqueued := _add_runs(p_ws, p_now, v_next, false);
    events := events || v_enqueued;
  end if;
  if v_reviews is not null then
    events := events || _ask_reviews(p_ws, p_now, v_reviews);
  end if;
end $$;

create function fail_runs(p_workspace_id text, p_calls json) returns setof call_answer language plpgsql as $$
declare
  v_now timestamptz;
  v_calls lease_call[] := _calls(p_calls);
  v_runs text[];
  v_passed lease_call[];
  v_verdicts call_answer[];
  v_failed record;
  v_more new_event[];
  v_offers int := 0;
  v_opened int;
begin
  v_runs := array(select c.run_id from unnest(v_calls) c);
  v_now := _hold(p_workspace_id, v_runs, true);
  v_verdicts := _judge(p_workspace_id, v_calls, 'fail');
  v_passed := _passed(v_calls, v_verdicts);
  if cardinality(v_passed) > 0 then
    perform _report(p_workspace_id, v_passed);
    v_failed := _fail(p_workspace_id, v_now, array(
      select row(c.run_id, c.error, c.failure_kind, c.retryable, c.retry_after_seconds, c.metadata, 'fail',
                 c.cause)::failure from unnest(v_passed) c));
    select x.events, x.offers, x.opened into v_more, v_offers, v_opened
      from _settle(p_workspace_id, v_failed.tasks, v_now, array(select c.cause from unnest(v_passed) c),
                   'task.run_failed') x;
    v_opened := _log(p_workspace_id, v_now, v_failed.events || v_more, v_opened);
  end if;
  return query
    select v.n, v.code, v.evidence, v.replayed, case when v.body is not null then _merge(v.body::json,
             json_build_object('next_run', (select w.body from run_wire w
               where w.workspace_id = p_workspace_id and w.run_id = (select x.run_id
                 from _run(p_workspace_id, (v_calls[v.n + 1]).run_id) f
                 cross join lateral (select k.run_id from run k
                   where k.workspace_id = p_workspace_id and k.task_id = f.task_id
                     and k.previous_run_id = f.run_id offset 0) x))))::text end, v.offers
      from _ended_answers(p_workspace_id, v_calls, v_verdicts, v_offers) v;
end $$;

-- Gives runs back: queued again at once, no attempt burned. p_undo takes back a claim whose caller had gone
-- before the answer: the run returns to its old place.
create function release_runs(p_workspace_id text, p_calls json, p_undo boolean) returns setof call_answer
language plpgsql as $$
declare
  v_now timestamptz;
  v_calls lease_call[] := _calls(p_calls);
  v_runs text[];
  v_passed lease_call[];
  v_verdicts call_answer[];
  v_events new_event[];
  v_tasks text[];
  v_more new_event[];
  v_offers int := 0;
  v_opened int;
begin
  v_runs := array(select c.run_id from unnest(v_calls) c);
  v_now := _hold(p_workspace_id, v_runs, false);
  v_verdicts := _judge(p_workspace_id, v_calls, 'release');
  v_passed := _passed(v_calls, v_verdicts);
  if cardinality(v_passed) > 0 then
    perform _report(p_workspace_id, v_passed);
    update task_body b set note = c.note
      from unnest(v_passed) c
      cross join lateral _run(p_workspace_id, c.run_id) r
      cross join lateral (select k.ctid from task_body k
        where k.workspace_id = p_workspace_id and k.task_id = r.task_id offset 0) k
     where b.ctid = k.ctid and c.note is not null;
    insert into run_body (workspace_id, run_id, note)
    select p_workspace_id, c.run_id, c.note from unnest(v_passed) c where c.note is not null
    on conflict (workspace_id, run_id) do update set note = excluded.note;
    with released as (
      update run r set status = 'queued', started_at = null,
             queued_at = case when p_undo then r.queued_at else v_now end,
             available_at = case when p_undo then r.available_at else greatest(t.available_at,
               v_now + make_interval(secs => coalesce(c.delay_seconds, 0))) end
        from unnest(v_passed) c
        cross join lateral (select k.ctid, k.status, k.task_id from run k
          where k.workspace_id = p_workspace_id and k.run_id = c.run_id offset 0) was
        cross join lateral (select k.available_at from task k
          where k.workspace_id = p_workspace_id and k.task_id = was.task_id offset 0) t
       where r.ctid = was.ctid
      returning r.run_id, r.task_id, r.fence, r.available_at, was.status as previous_status, c.reason, c.note,
                c.cause
    ), freed as (
      update lease l set ended_at = v_now, ended_reason = e.reason,
                         ended_how = case when p_undo then 'client_gone' else 'release' end
        from released e
        cross join lateral (select k.ctid from lease k where k.workspace_id = p_workspace_id
          and k.run_id = e.run_id and k.fence = e.fence offset 0) k
       where l.ctid = k.ctid
      returning l.run_id, l.session_id
    )
    select array_agg(_event(e.cause, 'task.run_released', e.task_id, e.run_id, jsonb_build_object(
             'manual', false, 'reason', e.reason, 'note', e.note, 'previous_status', e.previous_status,
             'session_id', f.session_id, 'usage', u.body, 'available_at', _utc(e.available_at))) order by e.run_id),
           array_agg(e.task_id order by e.run_id)
      into v_events, v_tasks
      from released e join freed f using (run_id)
      cross join lateral _run_usage(p_workspace_id, e.run_id) u;
    select x.events, x.offers, x.opened into v_more, v_offers, v_opened
      from _settle(p_workspace_id, v_tasks, v_now, array(select c.cause from unnest(v_passed) c),
                   'task.run_released') x;
    v_opened := _log(p_workspace_id, v_now, v_events || v_more, v_opened);
  end if;
  return query select * from _ended_answers(p_workspace_id, v_calls, v_verdicts, v_offers);
end $$;

-- ══ 15. The sweep ═══════════════════════════════════════════════════════════════════════════════════════════

-- The real time since a service of this name last looked, on any server; from now on it looked now.
create function _since_last(p_name text) returns interval language plpgsql as $$
declare
  v_gap interval;
begin
  insert into beat values (p_name, clock_timestamp()) on conflict (name) do nothing;
  select clock_timestamp() - b.at into v_gap from beat b where b.name = p_name for update;
  update beat b set at = clock_timestamp() where b.name = p_name;
  return v_gap;
end $$;

create type run_place as (workspace_id text, run_id text);

-- The runs whose lease lapsed, by workspace, oldest first, but for workspaces that are held up; leases that
-- were renewed meanwhile are looked at again when they end. The time between sweeps is real time: a gap over
-- 30 s was an outage, in which nobody could heartbeat, so what lapsed in it is renewed and nothing is returned.
create function sweep_leases(p_limit int, p_without text[]) returns table (workspace_id text, runs text[])
language plpgsql as $$
declare
  v_now timestamptz;
  v_gap interval;
  v_outage boolean;
  v_renewed run_place[];
begin
  v_gap := _since_last('sweep');
  v_now := lease_now();
  v_outage := v_gap > interval '30 seconds';
  -- The run is the lock of its leases. One that somebody holds now is looked at in the next pass.
  v_renewed := array(select row(r.workspace_id, r.run_id)::run_place
    from (select l.workspace_id, l.run_id from lease l
           where l.ended_at is null and l.check_at <= v_now
             and (l.lease_until > v_now or v_outage and l.lease_until >= v_now - v_gap)
           order by l.check_at) x
    cross join lateral (select k.workspace_id, k.run_id from run k
      where k.workspace_id = x.workspace_id and k.run_id = x.run_id for no key update skip locked) r
   limit case when not v_outage then p_limit end);
  update lease l set lease_until = k.until, check_at = k.until
    from unnest(v_renewed) x
    cross join lateral (select k.ctid, case when k.lease_until > v_now then k.lease_until
          else _longer(v_now, v_now, k.lease_seconds, k.deadline_at) end as until from lease k
      where k.workspace_id = x.workspace_id and k.run_id = x.run_id and k.ended_at is null offset 0) k
   where l.ctid = k.ctid;
  if v_outage then
    return;
  end if;
  return query
    select x.workspace_id::text, array_agg(x.run_id::text order by x.run_id)
      from (select l.workspace_id, l.run_id from lease l
             where l.ended_at is null and l.check_at <= v_now and l.lease_until <= v_now
               and l.workspace_id <> all (p_without)
             order by l.check_at limit p_limit) x
     group by x.workspace_id;
end $$;

-- Puts a run that could not be expired aside for a minute, so that it does not hold up the others.
create function set_aside(p_workspace_id text, p_run_id text) returns void language sql as $$
  select _lock_runs(p_workspace_id, array[p_run_id]);
  update lease l set check_at = lease_now() + interval '1 minute'
   where l.workspace_id = p_workspace_id and l.run_id = p_run_id and l.ended_at is null
$$;

-- Ends the lapsed leases among these runs, judged again under their locks; tasks that are busy are left for the
-- next pass. A run past its deadline fails; the others wait their back-off in the queue, or stop in
-- needs_attention when they lapsed too often without a new checkpoint. Returns how many ended, how many stopped.
create function expire_runs(p_workspace_id text, p_runs text[], out expired int, out quarantined int, out offers int)
language plpgsql as $$
declare
  v_now timestamptz;
  v_cause cause := row('daemon', 'expiry', 'daemon', 'daemon.expiry', null, null, null)::cause;
  v_tasks text[];
  v_lapsed text[];
  v_late text[];
  v_failed record;
  v_events new_event[] := '{}';
  v_stopped new_event[];
  v_more new_event[];
  v_opened int;
begin
  select array_agg(x.task_id) into v_tasks from (
    select t.task_id from task t
     where t.workspace_id = p_workspace_id and t.task_id = any (array(select r.task_id from run r
       where r.workspace_id = p_workspace_id and r.run_id = any (p_runs)))
     for no key update skip locked) x;
  perform _lock_runs(p_workspace_id, array(select r.run_id from run r
    where r.workspace_id = p_workspace_id and r.run_id = any (p_runs) and r.task_id = any (v_tasks)));
  v_now := lease_now();
  select array_agg(r.run_id order by r.run_id) filter (where l.deadline_at > v_now or l.deadline_at is null),
         array_agg(r.run_id order by r.run_id) filter (where l.deadline_at <= v_now)
    into v_lapsed, v_late
    from run r join lease l on l.workspace_id = p_workspace_id and l.run_id = r.run_id and l.fence = r.fence
   where r.workspace_id = p_workspace_id and r.run_id = any (p_runs) and r.task_id = any (v_tasks)
     and l.ended_at is null and l.lease_until <= v_now;
  expired := coalesce(cardinality(v_lapsed), 0) + coalesce(cardinality(v_late), 0);
  quarantined := 0;
  offers := 0;
  if expired = 0 then
    return;
  end if;
  v_tasks := '{}';

  if v_late is not null then
    v_failed := _fail(p_workspace_id, v_now, array(
      select row(x, 'the deadline of the run has passed', 'deadline_exceeded', true, null, null, 'deadline',
                 v_cause)::failure from unnest(v_late) x));
    v_events := v_failed.events;
    v_tasks := v_failed.tasks;
  end if;
  if v_lapsed is not null then
    select v_tasks || array_agg(r.task_id) into v_tasks from run r
     where r.workspace_id = p_workspace_id and r.run_id = any (v_lapsed);
    v_events := v_events || _lapse(p_workspace_id, v_now, v_cause, v_lapsed);
    select count(*) into quarantined from unnest(v_events) e
     where e.event_type = 'task.run_needs_attention';
  end if;
  select x.events, x.offers, x.opened into v_more, offers, v_opened
    from _settle(p_workspace_id, v_tasks, v_now, array[v_cause], 'task.run_lease_expired') x;
  perform _log(p_workspace_id, v_now, v_events || v_more, v_opened);
end $$;

-- Takes lapsed leases from their runs: queued again after a back-off, or needs_attention.
create function _lapse(p_ws text, p_now timestamptz, p_cause cause, p_runs text[]) returns new_event[]
language plpgsql as $$
declare
  v_expired new_event[];
  v_stopped new_event[];
begin
  with lapsed as (
    update run r
       set lease_expiries = r.lease_expiries + 1, lapses = r.lapses + 1,
           status = case when r.lapses + 1 >= t.max_lease_expiries then 'needs_attention' else 'queued' end,
           started_at = case when r.lapses + 1 >= t.max_lease_expiries then r.started_at end,
           quarantined_at = case when r.lapses + 1 >= t.max_lease_expiries then p_now else r.quarantined_at end,
           queued_at = case when r.lapses + 1 >= t.max_lease_expiries then r.queued_at else p_now end,
           available_at = case when r.lapses + 1 >= t.max_lease_expiries then r.available_at
             else greatest(t.available_at, p_now + _back_off(t.retry_strategy, t.retry_base_seconds,
                                                             t.retry_max_seconds, r.lease_expiries + 1)) end
      from task t, run was
     where r.workspace_id = p_ws and r.run_id = any (p_runs)
       and t.workspace_id = p_ws and t.task_id = r.task_id
       and was.workspace_id = p_ws and was.run_id = r.run_id
    returning r.*, was.status as previous_status
  ), freed as (
    update lease l set ended_at = p_now, ended_how = 'expiry'
      from lapsed x where l.workspace_id = p_ws and l.run_id = x.run_id and l.fence = x.fence
    returning l.run_id, l.session_id, l.lease_until
  ), told as (
    insert into run_body (workspace_id, run_id, error)
    select p_ws, x.run_id, 'the lease expired ' || x.lapses || ' times without a new checkpoint'
      from lapsed x where x.status = 'needs_attention'
    on conflict (workspace_id, run_id) do update set error = excluded.error
    returning run_id, error
  )
  select array_agg(_event(p_cause, 'task.run_lease_expired', x.task_id, x.run_id, jsonb_build_object(
           'previous_status', x.previous_status, 'session_id', f.session_id,
           'lease_until', _utc(f.lease_until), 'lease_expiries', x.lease_expiries,
           'available_at', case when x.status = 'queued' then _utc(x.available_at) end)) order by x.run_id),
         array_agg(_event(p_cause, 'task.run_needs_attention', x.task_id, x.run_id, jsonb_build_object(
           'previous_status', x.previous_status, 'lease_expiries', x.lease_expiries,
           'diagnostic', jsonb_build_object('code', 'task_run_needs_attention', 'message', b.error)))
           order by x.run_id) filter (where b.run_id is not null)
    into v_expired, v_stopped
    from lapsed x join freed f using (run_id) left join told b using (run_id);
  return v_expired || coalesce(v_stopped, '{}');
end $$;

-- ══ 16. Keys and workspaces ═════════════════════════════════════════════════════════════════════════════════

-- The keys that open something now.
create view valid_key as
select k.key_id, k.secret_hash, k.name, k.role, k.workspace_id, w.name as workspace_name, k.agent_name,
       k.actor_kind, extract(epoch from k.expires_at - lease_now())::float8 as expires_in_seconds,
       k.last_used_at is null or k.last_used_at < lease_now() - interval '1 minute' as unused_lately
  from api_key k left join workspace w on w.workspace_id = k.workspace_id
 where k.revoked_at is null and (k.expires_at is null or k.expires_at > lease_now());

-- A key as everybody may see it.
create function _key(p_key api_key) returns json language sql stable as $$
  select json_build_object('id', p_key.key_id, 'name', p_key.name, 'role', p_key.role,
    'workspace_id', p_key.workspace_id, 'agent_name', p_key.agent_name, 'actor_kind', p_key.actor_kind,
    'prefix', p_key.prefix, 'created_by', _actor(p_key.created_by_kind, p_key.created_by_ref),
    'created_at', _utc(p_key.created_at), 'expires_at', _utc(p_key.expires_at),
    'last_used_at', _utc(p_key.last_used_at), 'revoked_at', _utc(p_key.revoked_at),
    'rotated_to', p_key.rotated_to)
$$;

-- Every setting of a workspace, its own or the default.
create function _settings(p_own jsonb) returns jsonb language sql stable as $$
  select d || p_own || jsonb_build_object('head_start_seconds',
           d -> 'head_start_seconds' || coalesce(p_own -> 'head_start_seconds', '{}'))
    from (select jsonb_build_object(
      'head_start_seconds', jsonb_build_object('low', 0, 'medium', 600, 'high', 3600, 'urgent', 86400),
      'default_lease_seconds', 300, 'event_retention_days', 90, 'delivery_retention_days', 30,
      'task_retention_days', 0, 'starvation_seconds', 120, 'backlog_threshold_seconds', 600,
      'stale_after_seconds', 120, 'stranded_seconds', 300, 'require_claim_token', false,
      'max_open_tasks', 1000000, 'max_waiting_claims', 2000, 'max_streams', 1000) d) defaults
$$;

-- A workspace with every setting, its own or the default.
create function _workspace(p_workspace workspace) returns json language sql stable as $$
  select json_build_object('id', p_workspace.workspace_id, 'name', p_workspace.name,
    'display_name', coalesce(p_workspace.display_name, p_workspace.name),
    'settings', _settings(p_workspace.settings), 'created_at', _utc(p_workspace.created_at),
    'updated_at', _utc(p_workspace.updated_at), 'version', p_workspace.version)
$$;

-- The settings that differ from the defaults; head starts may not fall with rising priority.
create function _own_settings(p_settings jsonb) returns jsonb language plpgsql as $$
declare
  v_all jsonb := _settings(p_settings);
  v_head jsonb := v_all -> 'head_start_seconds';
begin
  if (v_head ->> 'low')::int > (v_head ->> 'medium')::int
     or (v_head ->> 'medium')::int > (v_head ->> 'high')::int
     or (v_head ->> 'high')::int > (v_head ->> 'urgent')::int then
    perform _refuse_field('settings.head_start_seconds', 'order', 'must not fall with rising priority');
  end if;
  return (select coalesce(jsonb_object_agg(own.key, own.value), '{}') from jsonb_each(v_all) own
           where own.value <> _settings('{}') -> own.key);
end $$;

-- A key's events stand in its workspace's log; those of a key for all workspaces in that of `default`.
create function _log_key(p_key api_key, p_type text, p_cause jsonb) returns void language sql as $$
  select _log_events(w.workspace_id, jsonb_build_array(p_cause || jsonb_build_object('type', p_type,
           'payload', jsonb_build_object('key_id', p_key.key_id, 'name', p_key.name, 'role', p_key.role))))
    from workspace w
   where w.workspace_id = p_key.workspace_id or (p_key.workspace_id is null and w.name = 'default')
$$;

create function create_workspace(
  p_workspace_id text, p_cause jsonb, p_key text, p_hash text, p_workspace jsonb,
  out body text, out version int, out replayed boolean)
language plpgsql as $$
declare
  v_kept idempotency_key := _take_key(p_workspace_id, _cause(p_cause), p_key, p_hash);
  v_made workspace;
begin
  replayed := v_kept.key is not null;
  if replayed then
    select * into v_made from workspace w where w.workspace_id = v_kept.ids ->> 'workspace_id';
  else
    -- Whoever pauses all workspaces finds this one, or is seen by its first claim.
    perform 1 from scheduler s where s.workspace_id = '*' for share;
    insert into workspace (workspace_id, name, display_name, settings)
    select p_workspace ->> 'id', p_workspace ->> 'name', p_workspace ->> 'display_name',
           _own_settings(coalesce(nullif(p_workspace -> 'settings', 'null'), '{}'))
    on conflict (name) do nothing returning * into v_made;
    if v_made.workspace_id is null then
      perform _refuse('workspace_exists', jsonb_build_object('name', p_workspace -> 'name'));
    end if;
    insert into workspace_lock (workspace_id, name)
    select v_made.workspace_id, unnest(array['log', 'edge', 'lane']);
    perform _keep_key(p_workspace_id, _cause(p_cause), p_key, p_hash, 201,
                      jsonb_build_object('workspace_id', v_made.workspace_id));
  end if;
  body := json_build_object('workspace', _workspace(v_made))::text;
  version := v_made.version;
end $$;

-- Writes what is given and differs; nothing that differs is no new version and no event.
create function patch_workspace(
  p_workspace_id text, p_cause jsonb, p_version int, p_changes jsonb, out body text, out version int)
language plpgsql as $$
declare
  v_old workspace;
  v_new workspace;
  v_changed text[];
begin
  select * into v_old from workspace w where w.workspace_id = p_workspace_id for no key update;
  if p_version is not null and p_version <> v_old.version then
    perform _refuse('version_mismatch', jsonb_build_object('version', v_old.version));
  end if;
  v_new := v_old;
  v_new.display_name := coalesce(p_changes ->> 'display_name', v_old.display_name);
  if p_changes ? 'settings' then
    v_new.settings := _own_settings(v_old.settings || (p_changes -> 'settings')
      || jsonb_build_object('head_start_seconds', coalesce(v_old.settings -> 'head_start_seconds', '{}')
           || coalesce(p_changes -> 'settings' -> 'head_start_seconds', '{}')));
  end if;
  v_changed := array_remove(array[
    case when v_new.display_name is distinct from v_old.display_name then 'display_name' end,
    case when v_new.settings <> v_old.settings then 'settings' end], null);
  if cardinality(v_changed) > 0 then
    update workspace w set display_name = v_new.display_name, settings = v_new.settings,
           version = w.version + 1, updated_at = lease_now()
     where w.workspace_id = p_workspace_id returning * into v_new;
    perform _log_events(p_workspace_id, jsonb_build_array(p_cause || jsonb_build_object('type',
      'workspace.updated', 'payload', jsonb_build_object('changed_fields', v_changed))));
  end if;
  body := json_build_object('workspace', _workspace(v_new))::text;
  version := v_new.version;
end $$;

create function create_key(
  p_workspace_id text, p_cause jsonb, p_key text, p_hash text, p_new jsonb, out body text, out replayed boolean)
language plpgsql as $$
declare
  v_kept idempotency_key := _take_key(p_workspace_id, _cause(p_cause), p_key, p_hash);
  v_made api_key;
begin
  replayed := v_kept.key is not null;
  if replayed then
    select * into v_made from api_key k where k.key_id = v_kept.ids ->> 'key_id';
  else
    v_made := _insert_key(p_new, p_cause);
    perform _keep_key(p_workspace_id, _cause(p_cause), p_key, p_hash, 201,
                      jsonb_build_object('key_id', v_made.key_id));
    perform _log_key(v_made, 'key.created', p_cause);
  end if;
  body := _key(v_made)::text;
end $$;

create function _insert_key(p_new jsonb, p_cause jsonb) returns api_key language plpgsql as $$
declare
  v_made api_key;
begin
  insert into api_key (key_id, workspace_id, name, role, agent_name, actor_kind, secret_hash, prefix,
                       created_by_kind, created_by_ref, expires_at)
  select p_new ->> 'id', p_new ->> 'workspace_id', p_new ->> 'name', p_new ->> 'role', p_new ->> 'agent_name',
         p_new ->> 'actor_kind', decode(p_new ->> 'secret_hash', 'hex'), p_new ->> 'prefix',
         p_cause ->> 'actor_kind', p_cause ->> 'actor_ref', (p_new ->> 'expires_at')::timestamptz
  on conflict do nothing returning * into v_made;
  if v_made.key_id is null then
    perform _refuse('key_exists', jsonb_build_object('name', p_new -> 'name'));
  end if;
  return v_made;
end $$;

-- A key of the caller's reach; another's is as unknown as one that never was.
create function _lock_key(p_reach text, p_key_id text) returns api_key language plpgsql as $$
declare
  v_key api_key;
begin
  select * into v_key from api_key k
   where k.key_id = p_key_id and (p_reach is null or k.workspace_id = p_reach) for update;
  if v_key.key_id is null then
    perform _refuse('key_not_found', jsonb_build_object('id', p_key_id));
  end if;
  return v_key;
end $$;

-- A second key like the first, which ends after the overlap.
create function rotate_key(
  p_workspace_id text, p_cause jsonb, p_key text, p_hash text, p_reach text, p_key_id text, p_new jsonb,
  p_overlap_seconds int, out body text, out replayed boolean)
language plpgsql as $$
declare
  v_kept idempotency_key := _take_key(p_workspace_id, _cause(p_cause), p_key, p_hash);
  v_old api_key;
  v_made api_key;
begin
  replayed := v_kept.key is not null;
  if replayed then
    select * into v_made from api_key k where k.key_id = v_kept.ids ->> 'key_id';
  else
    v_old := _lock_key(p_reach, p_key_id);
    if v_old.revoked_at is not null or v_old.rotated_to is not null then
      perform _refuse('key_revoked', jsonb_build_object('key_id', p_key_id));
    end if;
    -- The old key gives its name to the new one.
    update api_key k set rotated_to = p_new ->> 'id', expires_at = least(k.expires_at,
             lease_now() + make_interval(secs => p_overlap_seconds))
     where k.key_id = p_key_id;
    v_made := _insert_key(p_new || jsonb_strip_nulls(jsonb_build_object('workspace_id', v_old.workspace_id,
      'name', v_old.name, 'role', v_old.role, 'agent_name', v_old.agent_name, 'actor_kind', v_old.actor_kind,
      'expires_at', v_old.expires_at)), p_cause);
    perform _keep_key(p_workspace_id, _cause(p_cause), p_key, p_hash, 201,
                      jsonb_build_object('key_id', v_made.key_id));
    perform _log_key(v_old, 'key.rotated', p_cause);
  end if;
  body := _key(v_made)::text;
end $$;

create function revoke_key(p_cause jsonb, p_reach text, p_key_id text) returns void language plpgsql as $$
declare
  v_key api_key;
begin
  -- All admin keys are locked, so that two that are revoked at once cannot both be the last but one.
  perform 1 from api_key k where k.role = 'admin' and k.revoked_at is null order by k.key_id for update;
  v_key := _lock_key(p_reach, p_key_id);
  if v_key.revoked_at is not null then
    return;
  end if;
  if v_key.role = 'admin' and v_key.workspace_id is null and not exists (
       select from api_key k where k.role = 'admin' and k.workspace_id is null and k.key_id <> p_key_id
          and k.revoked_at is null and k.rotated_to is null
          and (k.expires_at is null or k.expires_at > lease_now())) then
    perform _refuse('last_admin_key', jsonb_build_object('key_id', p_key_id));
  end if;
  update api_key k set revoked_at = lease_now() where k.key_id = p_key_id;
  perform _log_key(v_key, 'key.revoked', p_cause);
end $$;

-- What a new database needs before anybody can call: the workspace `default`, an admin's and an agent's key.
-- Answers whether this was the first start; servers that start at once do it once.
create function first_start(p_cause jsonb, p_workspace jsonb, p_admin jsonb, p_agent jsonb) returns boolean
language plpgsql as $$
declare
  v_ws text;
begin
  perform pg_advisory_xact_lock(hashtextextended('first start', 1));
  if not exists (select from workspace w where w.name = 'default') then
    perform create_workspace(null, p_cause, null, null, p_workspace);
  end if;
  if exists (select from api_key) then
    return false;
  end if;
  select w.workspace_id into v_ws from workspace w where w.name = 'default';
  perform create_key(v_ws, p_cause, null, null, p_admin);
  perform create_key(v_ws, p_cause, null, null, p_agent || jsonb_build_object('workspace_id', v_ws));
  return true;
end $$;
