-- What operators do to runs against their holders' will; made after schema.sql. Retry and recovery stand there.

-- Takes a run from its holder: queued again at once, no attempt burned.
create function force_release_run(
  p_workspace_id text, p_cause jsonb, p_run_id text, p_reason text, p_note text, p_delay_seconds int,
  p_metadata jsonb, out body text, out offers int)
language plpgsql as $$
declare
  v_now timestamptz;
  v_cause cause := _cause(p_cause);
  v_run run;
  v_lease lease;
  v_available_at timestamptz;
begin
  v_run := _lock_run(p_workspace_id, p_run_id, false);
  v_now := lease_now();
  if not _is_leased(v_run.status) then
    perform _refuse('task_run_not_releasable', jsonb_build_object('run_status', v_run.status));
  end if;
  update lease l set ended_at = v_now, ended_how = 'revoke', ended_reason = p_reason
   where l.workspace_id = p_workspace_id and l.run_id = p_run_id and l.fence = v_run.fence
  returning l.* into v_lease;
  update run r set status = 'queued', started_at = null, queued_at = v_now,
                   available_at = greatest(t.available_at, v_now + make_interval(secs => p_delay_seconds))
    from task t
   where r.workspace_id = p_workspace_id and r.run_id = p_run_id
     and t.workspace_id = p_workspace_id and t.task_id = v_run.task_id
  returning r.available_at into v_available_at;
  if p_note is not null then
    update task_body b set note = p_note where b.workspace_id = p_workspace_id and b.task_id = v_run.task_id;
    insert into run_body (workspace_id, run_id, note) values (p_workspace_id, p_run_id, p_note)
      on conflict (workspace_id, run_id) do update set note = excluded.note;
  end if;
  offers := _settle_and_log(p_workspace_id, array[v_run.task_id], v_now, v_cause, 'task.run_released',
    array[_event(v_cause, 'task.run_released', v_run.task_id, p_run_id, jsonb_build_object('manual', true,
      'reason', p_reason, 'note', p_note, 'metadata', p_metadata, 'previous_status', v_run.status,
      'session_id', v_lease.session_id, 'available_at', _utc(v_available_at),
      'actor_kind', v_cause.actor_kind, 'actor_id', v_cause.actor_ref,
      'previous_session_id', v_lease.session_id, 'previous_lease_until', _utc(v_lease.lease_until)))]);
  body := _run_answer(p_workspace_id, p_run_id);
end $$;

-- Ends a run that has not ended, held or not, as failed for good.
create function force_fail_run(
  p_workspace_id text, p_cause jsonb, p_run_id text, p_reason text, p_metadata jsonb, out body text, out offers int)
language plpgsql as $$
declare
  v_now timestamptz;
  v_cause cause := _cause(p_cause);
  v_run run;
  v_session text;
  v_review text := _new_id('rev');
  v_asked new_event[] := '{}';
begin
  v_run := _lock_run(p_workspace_id, p_run_id, true);
  v_now := lease_now();
  perform _check_open(v_run);
  update run r set status = 'failed', failure_kind = 'operator_forced', retryable = false, ended_at = v_now,
                   due_at = null
   where r.workspace_id = p_workspace_id and r.run_id = p_run_id;
  insert into run_body (workspace_id, run_id, error) values (p_workspace_id, p_run_id, p_reason)
    on conflict (workspace_id, run_id) do update set error = excluded.error;
  update lease l set ended_at = v_now, ended_how = 'force', ended_reason = p_reason
   where l.workspace_id = p_workspace_id and l.run_id = p_run_id and l.fence = v_run.fence
     and _is_leased(v_run.status) returning l.session_id into v_session;
  if exists (select from task t where t.workspace_id = p_workspace_id and t.task_id = v_run.task_id
                and t.review_policy in ('on_failure', 'always')) then
    update run r set review = 'open' where r.workspace_id = p_workspace_id and r.run_id = p_run_id;
    v_asked := _ask_reviews(p_workspace_id, v_now, array[row(v_review, p_run_id, null, v_cause)::review_wish]);
  end if;
  offers := _settle_and_log(p_workspace_id, array[v_run.task_id], v_now, v_cause, 'task.run_operator_forced_fail',
    array[_event(v_cause, 'task.run_operator_forced_fail', v_run.task_id, p_run_id, jsonb_build_object(
      'manual', true, 'actor_kind', v_cause.actor_kind, 'actor_id', v_cause.actor_ref,
      'previous_status', v_run.status, 'reason', p_reason, 'session_id', v_session,
      'metadata', p_metadata))] || v_asked);
  body := _run_answer(p_workspace_id, p_run_id);
end $$;

-- A call for many runs under one key: each run keeps its own answer in its own transaction; the key itself keeps,
-- by run, what was refused. Null: the key is new.
create function find_bulk_key(p_workspace_id text, p_cause jsonb, p_key text, p_hash text, out refusals text)
language plpgsql as $$
declare
  v_cause cause := _cause(p_cause);
  v_kept idempotency_key := _take_key(p_workspace_id, v_cause, p_key, p_hash);
begin
  -- What the one of two calls at once was refused, the other may have done: that has a key of its own.
  refusals := (v_kept.ids - array(select r.run_id from jsonb_object_keys(v_kept.ids) r (run_id)
    cross join lateral (select from idempotency_key k
      where k.workspace_id = p_workspace_id and k.key_id = v_cause.key_id and k.key = p_key || ' ' || r.run_id
        and k.created_at > lease_now() - interval '24 hours') k))::text;
end $$;

create function keep_bulk_key(p_workspace_id text, p_cause jsonb, p_key text, p_hash text, p_refusals jsonb)
returns void language sql as $$
  select _keep_key(p_workspace_id, _cause(p_cause), p_key, p_hash, 200, p_refusals)
$$;
