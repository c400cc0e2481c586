-- The dashboard's numbers: tally and digests as of the position, corrected by the tasks touched since. Every
-- function here is stable, so all its statements see the snapshot of the one call.

-- What a dashboard is narrowed to; null: not by this.
create type slice as (scope text, owner_kind text, owner_ref text, network_channel text, origin_kind text);

create function _in_slice(
  p_slice slice, p_scope text, p_owner_kind text, p_owner_ref text, p_channel text, p_origin_kind text)
returns boolean language sql immutable as $$
  select (p_slice.scope is null or p_scope = p_slice.scope)
     and (p_slice.owner_kind is null or p_owner_kind = p_slice.owner_kind)
     and (p_slice.owner_ref is null or p_owner_ref = p_slice.owner_ref)
     and (p_slice.network_channel is null or p_channel = p_slice.network_channel)
     and (p_slice.origin_kind is null or p_origin_kind = p_slice.origin_kind)
$$;

-- What was touched since the position: which tasks, their digests as they are kept, and as they are now.
create type lag as (tasks text[], old digest[], live digest[]);

create function _lag(p_ws text) returns lag language plpgsql stable as $$
declare
  v_lag lag;
  v_late timestamptz := _late(p_ws);
  v_activity bigint[];
begin
  select array_agg(x.task_id), array_agg(x.activity) into v_lag.tasks, v_activity
    from _behind(p_ws, coalesce((select p.sequence from digest_position p where p.workspace_id = p_ws), 0),
                 _newest_event(p_ws), v_late, null) x;
  v_lag.tasks := coalesce(v_lag.tasks, '{}');
  v_lag.old := array(select d from unnest(v_lag.tasks) x (task_id)
    cross join lateral (select k.* from digest k
      where k.workspace_id = p_ws and k.task_id = x.task_id offset 0) d);
  v_lag.live := array(select d from _digests(p_ws, v_lag.tasks, v_activity, v_late) d);
  return v_lag;
end $$;

-- How often each label counts.
create function _counts(p_ws text, p_slice slice, p_lag lag, p_since timestamptz) returns jsonb
language plpgsql stable as $$
begin
  return (
    with marks as (
      select y.label, y.amount from tally y
       where p_slice is null and y.workspace_id = p_ws and y.scope = ''
      union all
      select y.label, y.amount from tally y
       where not (p_slice is null) and y.workspace_id = p_ws and y.scope <> '' and y.label <> 'at'
         and _in_slice(p_slice, y.scope, y.owner_kind, y.owner_ref, y.network_channel, y.origin_kind)
      union all
      select c.label, x.amount
        from (select d.*, -1 as amount from unnest(p_lag.old) d
              union all select d.*, 1 from unnest(p_lag.live) d) x
        cross join lateral unnest(x.counted) c (label)
       where _in_slice(p_slice, x.scope, x.owner_kind, x.owner_ref, x.network_channel, x.origin_kind)
      union all
      select m.label, m.amount
        from (select k.m, -1 as sign from unnest(p_lag.tasks) x (task_id)
              cross join lateral (select k as m from moment k
                where k.workspace_id = p_ws and k.task_id = x.task_id offset 0) k
              union all select k, 1 from _moments(p_ws, p_lag.tasks, p_since) k
              -- Over a day old and not forgotten yet.
              union all select k, -1 from moment k
               where k.workspace_id = p_ws and k.at <= p_since and k.task_id <> all (p_lag.tasks)) x
        cross join lateral unnest(_marks(x.m, x.sign)) m
       where _in_slice(p_slice, m.scope, m.owner_kind, m.owner_ref, m.network_channel, m.origin_kind)
    )
    select coalesce(jsonb_object_agg(s.label, s.amount), '{}')
      from (select m.label, sum(m.amount) as amount from marks m group by m.label having sum(m.amount) <> 0) s);
end $$;

create function _longest(p_ws text, p_slice slice, p_lag lag, p_kind text, p_since timestamptz) returns bigint
language plpgsql stable as $$
begin
  return (
    select coalesce(max(x.us), 0) from (
      (select m.us from moment m
        where m.workspace_id = p_ws and m.kind = p_kind and m.at > p_since and m.task_id <> all (p_lag.tasks)
          and _in_slice(p_slice, m.scope, m.owner_kind, m.owner_ref, m.network_channel, m.origin_kind)
        order by m.us desc limit 1)
      union all
      select m.us from _moments(p_ws, p_lag.tasks, p_since) m
       where m.kind = p_kind
         and _in_slice(p_slice, m.scope, m.owner_kind, m.owner_ref, m.network_channel, m.origin_kind)) x);
end $$;

-- Claimable runs by channel: what is queued and ready, less what waits for its time, a resume, a budget or a slot;
-- none while the scheduler is paused. A run that has a slot has an offer, and a due_at all the same.
create function _queue(p_ws text, p_slice slice, p_lag lag, p_counts jsonb, p_now timestamptz) returns jsonb
language plpgsql stable as $$
begin
  return (
    with waiting as (
      select coalesce(r.network_channel, '') as channel, count(*) as count
        from run r
        cross join lateral (select k.* from task k
          where k.workspace_id = p_ws and k.task_id = r.task_id and k.status = 'ready' offset 0) t
       where r.workspace_id = p_ws and r.due_at > p_now
       and not exists (select from offer o where o.workspace_id = p_ws and o.run_id = r.run_id)
         and _in_slice(p_slice, t.scope, coalesce(t.owner_kind, ''), coalesce(t.owner_ref, ''),
                       coalesce(t.network_channel, ''), t.origin_kind)
       group by 1
    ), depth as (
      select substr(c.key, 7) as channel, c.value::bigint - coalesce(w.count, 0) as count
        from jsonb_each_text(p_counts) c left join waiting w on w.channel = substr(c.key, 7)
       where c.key like 'queue.%' and not _scheduler_paused(p_ws)
    )
    select coalesce(jsonb_agg(jsonb_build_object('network_channel', nullif(d.channel, ''), 'count', d.count,
             'oldest_queued_at', _utc(o.at),
             'oldest_queue_age_ms', greatest(0, floor(extract(epoch from p_now - o.at) * 1000))::bigint)
             order by d.channel collate "C"), '[]')
      from depth d
      cross join lateral (select min(x.queue_at) as at from (
        (select k.queue_at from digest k
          where k.workspace_id = p_ws and k.queue_channel = d.channel and k.queue_at is not null
            and k.task_id <> all (p_lag.tasks)
            and _in_slice(p_slice, k.scope, k.owner_kind, k.owner_ref, k.network_channel, k.origin_kind)
            and not exists (select from run r
              where r.workspace_id = p_ws and r.run_id = k.run_id and r.due_at > p_now and not exists (
                select from offer o where o.workspace_id = p_ws and o.run_id = k.run_id))
          order by k.queue_at limit 1)
        union all
        select k.queue_at from unnest(p_lag.live) k
         where k.queue_channel = d.channel
           and _in_slice(p_slice, k.scope, k.owner_kind, k.owner_ref, k.network_channel, k.origin_kind)
           and not exists (select from run r
             where r.workspace_id = p_ws and r.run_id = k.run_id and r.due_at > p_now and not exists (
               select from offer o where o.workspace_id = p_ws and o.run_id = k.run_id))) x) o
     where d.count > 0);
end $$;

-- Live leases that missed a heartbeat, and those whose session is gone; p_held is how many leases there are.
create function _ailing(p_ws text, p_slice slice, p_now timestamptz, p_session_ttl float8, p_held bigint)
returns jsonb language plpgsql stable as $$
begin
  return (select jsonb_build_object(
    'stuck', count(*) filter (where p_now - l.heartbeat_at > make_interval(secs => l.lease_seconds / 2.0)),
    'orphans', count(*) filter (where l.session_id is not null
      and (s.updated_at >= p_now - make_interval(secs => p_session_ttl)) is not true))
    from lease l
    left join lateral (select k.updated_at from agent_session k
      where k.workspace_id = p_ws and k.session_id = l.session_id offset 0) s on true
    left join lateral (select k.* from task k
      where not (p_slice is null) and k.workspace_id = p_ws and k.task_id = l.task_id offset 0) t on true
   where p_held > 0 and l.workspace_id = p_ws and l.ended_at is null
     and (p_slice is null or _in_slice(p_slice, t.scope, coalesce(t.owner_kind, ''), coalesce(t.owner_ref, ''),
                                       coalesce(t.network_channel, ''), t.origin_kind)));
end $$;

-- The first active runs. Of each rank at most as many as there are, so that none is looked for in vain.
create function _active_runs(p_ws text, p_slice slice, p_lag lag, p_now timestamptz, p_counts jsonb) returns jsonb
language plpgsql stable as $$
begin
  return (
    with first as (
      select x.* from (
        select d.* from unnest('{running,starting,claimed,queued}'::text[]) with ordinality k (status, rank)
          cross join lateral (select d.run_rank, d.at, d.run_id, d.task_id from digest d
            where d.workspace_id = p_ws and d.run_rank = k.rank and d.task_id <> all (p_lag.tasks)
              and _in_slice(p_slice, d.scope, d.owner_kind, d.owner_ref, d.network_channel, d.origin_kind)
            order by d.at desc, d.run_id desc
            limit least(4, coalesce((p_counts ->> ('run.' || k.status))::int, 0))) d
        union all
        select d.run_rank, d.at, d.run_id, d.task_id from unnest(p_lag.live) d
         where d.run_rank is not null
           and _in_slice(p_slice, d.scope, d.owner_kind, d.owner_ref, d.network_channel, d.origin_kind)) x
       order by x.run_rank, x.at desc, x.run_id desc limit 4
    )
    select coalesce(jsonb_agg(jsonb_build_object(
        'run_id', r.run_id, 'run_status', r.status, 'attempt', r.attempt, 'max_attempts', t.max_attempts,
        'task_id', t.task_id, 'task_title', t.title, 'task_identifier', t.identifier, 'task_status', t.status,
        'task_priority', _priority_name(t.priority), 'task_owner', _actor(t.owner_kind, t.owner_ref),
        'scope', t.scope, 'workspace_id', case when t.scope = 'workspace' then p_ws end,
        'network_channel', r.network_channel, 'session_id', l.session_id, 'error', b.error,
        'last_activity_at', _utc(f.at), 'latest_event_seq', coalesce(a.sequence, 0),
        'age_ms', greatest(0, floor(extract(epoch from
           p_now - coalesce(r.started_at, l.claimed_at, r.available_at)) * 1000))::bigint,
        'stuck', _is_stuck(r.status, l::lease, p_now),
        'health_status', case when _is_stuck(r.status, l::lease, p_now) then 'warn' else 'ok' end)
        order by f.run_rank, f.at desc, f.run_id desc), '[]')
      from first f
      join task t on t.workspace_id = p_ws and t.task_id = f.task_id
      join run r on r.workspace_id = p_ws and r.run_id = f.run_id
      left join lease l on _is_leased(r.status) and l.workspace_id = p_ws and l.run_id = r.run_id
           and l.fence = r.fence
      left join run_body b on b.workspace_id = p_ws and b.run_id = r.run_id
      left join task_activity a on a.workspace_id = p_ws and a.task_id = f.task_id);
end $$;

-- When something last happened in the log, or to tasks of the slice.
create function _last_activity(p_ws text, p_slice slice, p_lag lag) returns timestamptz language plpgsql stable as $$
begin
  return (
    select case when p_slice is null then (
        select e.at from event e where e.workspace_id = p_ws order by e.sequence desc limit 1)
      else greatest((
        select to_timestamp(max(y.amount) / 1000000.0) from tally y
       where y.workspace_id = p_ws and y.scope <> '' and y.label = 'at'
         and _in_slice(p_slice, y.scope, y.owner_kind, y.owner_ref, y.network_channel, y.origin_kind)), (
      select max(d.at) from unnest(p_lag.live) d
         where _in_slice(p_slice, d.scope, d.owner_kind, d.owner_ref, d.network_channel, d.origin_kind))) end);
end $$;

-- What a dashboard is made of.
create function read_dashboard(
  p_workspace_id text, p_scope text, p_owner_kind text, p_owner_ref text, p_network_channel text,
  p_origin_kind text, p_session_ttl float8) returns text language plpgsql stable
-- Planned for these arguments: filters that are not given vanish, and what was touched becomes a hash.
set plan_cache_mode = force_custom_plan set enable_seqscan = off set jit = off as $$
declare
  v_slice slice := row(p_scope, p_owner_kind, p_owner_ref, p_network_channel, p_origin_kind)::slice;
  v_now timestamptz := lease_now();
  v_since timestamptz := v_now - interval '24 hours';
  v_settings jsonb := (select w.settings from workspace w where w.workspace_id = p_workspace_id);
  v_lag lag;
  v_counts jsonb;
  v_at timestamptz;
begin
  v_lag := _lag(p_workspace_id);
  v_counts := _counts(p_workspace_id, v_slice, v_lag, v_since);
  v_at := _last_activity(p_workspace_id, v_slice, v_lag);
  return jsonb_build_object(
    'counts', v_counts,
    'claim_longest_us', _longest(p_workspace_id, v_slice, v_lag, 'claimed', v_since),
    'start_longest_us', _longest(p_workspace_id, v_slice, v_lag, 'started', v_since),
    'depth', _queue(p_workspace_id, v_slice, v_lag, v_counts, v_now),
    'ailing', _ailing(p_workspace_id, v_slice, v_now, p_session_ttl, (
      select coalesce(sum((v_counts ->> ('run.' || s))::bigint), 0)::bigint
        from unnest('{claimed,starting,running}'::text[]) s)),
    'items', _active_runs(p_workspace_id, v_slice, v_lag, v_now, v_counts),
    'observed_at', _utc(v_now), 'latest_activity_at', _utc(v_at),
    'age_ms', greatest(0, floor(extract(epoch from v_now - v_at) * 1000))::bigint,
    'backlog_threshold_ms', 1000::bigint * _setting(v_settings, 'backlog_threshold_seconds', 600),
    'stale_after_ms', 1000::bigint * _setting(v_settings, 'stale_after_seconds', 120));
end $$;

-- What there is in all workspaces, as of the digests' positions where the digests count it.
create function measure_gauges() returns table (gauge text, label text, amount float8) language sql volatile as $$
  with counted as materialized (
    select y.label, sum(y.amount)::float8 as amount
      from workspace w
      cross join lateral (select k.label, k.amount from tally k
        where k.workspace_id = w.workspace_id and k.scope = '' offset 0) y
     group by y.label
  ), queue as materialized (
    select o.priority, count(*)::float8 as depth,
           greatest(0, extract(epoch from lease_now() - min(o.available_at)))::float8 as age
      from offer o group by o.priority
  ), weights as (
    select p.weight, _priority_name(p.weight) as name from unnest('{10,20,30,40}'::smallint[]) p (weight)
  )
  select 'tasks', s.status, coalesce(c.amount, 0)
    from unnest('{draft,blocked,ready,in_progress,pending,completed,failed,canceled}'::text[]) s (status)
    left join counted c on c.label = 'task.' || s.status
  union all
  select 'runs', s.status, coalesce(c.amount, 0)
    from unnest('{queued,claimed,starting,running,completed,failed,canceled,needs_attention}'::text[]) s (status)
    left join counted c on c.label = 'run.' || s.status
  union all
  select 'queue_depth', w.name, coalesce(q.depth, 0) from weights w left join queue q on q.priority = w.weight
  union all
  select 'queue_age', w.name, coalesce(q.age, 0) from weights w left join queue q on q.priority = w.weight
  union all
  select 'stuck', '', count(*)::float8 from lease l cross join (select lease_now() as now) x
   where l.ended_at is null and x.now - l.heartbeat_at > make_interval(secs => l.lease_seconds / 2.0)
$$;
