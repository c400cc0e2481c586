-- Starvation: runs that wait in the queue for long are told of, and stay as they are; made after scheduler.sql.

-- Tells of the runs that have waited longest, each once since it was queued: an offer says so, and the log of the
-- run whose offer was made anew. What another transaction holds is left for the next pass; claims skip the rest for
-- a moment. Answers how many offers were looked at, and of how many runs was told.
create function tell_starved(p_workspace_id text, p_limit int, out seen int, out told int) language plpgsql as $$
declare
  v_now timestamptz := lease_now();
  v_cause cause := row('daemon', 'starvation', 'daemon', 'daemon.starvation', null, null, null)::cause;
  v_since timestamptz := (select _starves_since(w.workspace_id, w.settings, v_now) from workspace w
    where w.workspace_id = p_workspace_id);
  v_runs text[];
  v_keys text[];
  v_events new_event[];
begin
  -- Who changes an offer holds its task, and its slot if it has one.
  v_runs := array(select t.newest_run_id
    from (select o.task_id from offer o
           where o.workspace_id = p_workspace_id and not o.starved and o.waiting_since <= v_since
           order by o.waiting_since limit p_limit) o
    cross join lateral (select k.newest_run_id from task k
      where k.workspace_id = p_workspace_id and k.task_id = o.task_id for no key update skip locked) t);
  v_keys := array(select s.concurrency_key from slot s
    where s.workspace_id = p_workspace_id and s.concurrency_key in (
      select o.concurrency_key from unnest(v_runs) x (run_id)
      cross join lateral (select k.concurrency_key from offer k
        where k.workspace_id = p_workspace_id and k.run_id = x.run_id offset 0) o)
    for no key update skip locked);
  seen := cardinality(v_runs);
  told := 0;
  with marked as (
    update offer o set starved = true
      from unnest(v_runs) x (run_id)
      cross join lateral (select k.ctid from offer k
        where k.workspace_id = p_workspace_id and k.run_id = x.run_id and not k.starved and k.waiting_since <= v_since
          and (k.concurrency_key is null or k.concurrency_key = any (v_keys)) for no key update skip locked) k
     where o.ctid = k.ctid
    returning o.run_id, o.task_id, o.waiting_since
  )
  select array_agg(_event(v_cause, 'task.run_starved', m.task_id, m.run_id, jsonb_build_object(
           'queued_at', _utc(r.queued_at),
           'queued_age_ms', floor(extract(epoch from v_now - r.queued_at) * 1000)::bigint))
           order by m.waiting_since, m.run_id)
    into v_events
    from marked m
    cross join lateral (select k.queued_at from run k
      where k.workspace_id = p_workspace_id and k.run_id = m.run_id offset 0) r
    left join lateral (select true as told from event e
      where e.task_id = m.task_id and e.workspace_id = p_workspace_id and e.run_id = m.run_id
        and e.event_type = 'task.run_starved' and e.at >= r.queued_at limit 1) e on true
   where e.told is null;
  if v_events is not null then
    told := cardinality(v_events);
    perform _log(p_workspace_id, v_now, v_events);
  end if;
end $$;
