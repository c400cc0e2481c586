-- Triage and the inbox: what one actor is to look at, and what he has seen of it.

-- What an actor did to a task: it was read, up to the event `seen`. No event, and none of the digest's.
create table triage (
  workspace_id word,
  actor_kind word,
  actor_ref word,
  task_id word,
  archived boolean not null,
  dismissed boolean not null,
  seen bigint not null,
  seen_at timestamptz not null,
  updated_at timestamptz not null,
  primary key (workspace_id, actor_kind, actor_ref, task_id),
  foreign key (workspace_id, task_id) references task on delete cascade);
create index triage_task on triage (task_id, workspace_id);

-- Activity after what was seen makes a task unread, and brings it back if it was dismissed.
create function _is_read(p_triage triage, p_activity bigint) returns boolean language sql immutable as $$
  select coalesce(p_triage.archived or p_activity <= p_triage.seen, false)
$$;

create function _is_hidden(p_triage triage, p_activity bigint) returns boolean language sql immutable as $$
  select coalesce(p_triage.dismissed and not p_triage.archived and p_activity <= p_triage.seen, false)
$$;

create function _triage_json(
  p_task_id text, p_actor_kind text, p_actor_ref text, p_triage triage, p_activity bigint) returns json
language sql stable as $$
  select json_build_object(
    'task_id', p_task_id, 'actor', _actor(p_actor_kind, p_actor_ref), 'read', _is_read(p_triage, p_activity),
    'archived', coalesce(p_triage.archived, false), 'dismissed', _is_hidden(p_triage, p_activity),
    'last_seen_activity_at', _utc(p_triage.seen_at), 'updated_at', _utc(p_triage.updated_at))
$$;

-- The newest event of a task that counts as activity: what its digest knows, or one after that.
create function _activity(p_ws text, p_task_id text, out sequence bigint, out at timestamptz)
language sql stable as $$
  select x.sequence, x.at from (
    (select e.sequence, e.at from event e
      where e.workspace_id = p_ws and e.task_id = p_task_id
        and e.sequence > coalesce((select p.sequence from digest_position p where p.workspace_id = p_ws), 0)
        and e.event_type <> all ('{task.run_progress,task.run_lease_expired,task.run_starved}')
      order by e.sequence desc limit 1)
    union all
    select d.activity, d.activity_at from digest d where d.workspace_id = p_ws and d.task_id = p_task_id) x
   order by x.sequence desc limit 1
$$;

-- Notes what an actor did to a task: read, archive, unarchive or dismiss.
create function triage_task(
  p_workspace_id text, p_actor_kind text, p_actor_ref text, p_task_id text, p_action text) returns text
language plpgsql as $$
declare
  v_now timestamptz := lease_now();
  v_activity record;
  v_triage triage;
begin
  perform from task t where t.workspace_id = p_workspace_id and t.task_id = p_task_id for key share;
  if not found then
    perform _refuse('task_not_found', jsonb_build_object('id', p_task_id));
  end if;
  select * into v_activity from _activity(p_workspace_id, p_task_id);
  if p_action = 'unarchive' then
    update triage t
       set archived = false, dismissed = false, seen = v_activity.sequence, seen_at = v_activity.at,
           updated_at = v_now
     where t.workspace_id = p_workspace_id and t.actor_kind = p_actor_kind and t.actor_ref = p_actor_ref
       and t.task_id = p_task_id and t.archived;
  else
    insert into triage as t values (p_workspace_id, p_actor_kind, p_actor_ref, p_task_id, p_action = 'archive',
      p_action = 'dismiss', v_activity.sequence, v_activity.at, v_now)
    on conflict (workspace_id, actor_kind, actor_ref, task_id) do update
       set (archived, dismissed, seen, seen_at, updated_at)
         = (t.archived or excluded.archived, excluded.dismissed, excluded.seen, excluded.seen_at,
            excluded.updated_at);
  end if;
  select * into v_triage from triage t
   where t.workspace_id = p_workspace_id and t.actor_kind = p_actor_kind and t.actor_ref = p_actor_ref
     and t.task_id = p_task_id;
  return _triage_json(p_task_id, p_actor_kind, p_actor_ref, v_triage, v_activity.sequence)::text;
end $$;

-- Who asks for what, and where the page begins.
create type inbox_call as (
  workspace_id text, actor_kind text, actor_ref text, scope text, owner_kind text, owner_ref text, query text,
  unread boolean, count int, after_read boolean, after_at timestamptz, after_priority smallint, after_id text);

-- Whether a digest stands in a lane, by itself and by whom it belongs to.
create function _in_lane(p_digest digest, p_lane text, p_call inbox_call) returns boolean
language sql immutable as $$
  select p_digest.lane = p_lane and (p_lane <> 'my_work'
      or (p_digest.owner_kind, p_digest.owner_ref) = (p_call.actor_kind, p_call.actor_ref)
      or coalesce((p_digest.claimer_kind, p_digest.claimer_ref) = (p_call.actor_kind, p_call.actor_ref), false))
$$;

create function _asked_for(p_digest digest, p_call inbox_call) returns boolean language sql immutable as $$
  select (p_call.scope is null or p_digest.scope = p_call.scope)
     and (p_call.owner_kind is null or p_digest.owner_kind = p_call.owner_kind)
     and (p_call.owner_ref is null or p_digest.owner_ref = p_call.owner_ref)
     and (p_call.query is null or strpos(p_digest.words, lower(p_call.query)) > 0)
$$;

-- The digests that stand in a lane as they are kept, but for what a reader takes anew: those of the lane itself or
-- of its owner, and in my_work those whose run the actor holds.
create function _stands_in(p_digest digest, p_lane text, p_call inbox_call) returns boolean
language sql immutable as $$
  select p_digest.workspace_id = p_call.workspace_id and p_digest.lane = p_lane
     and p_digest.holder_ref = case when p_lane = 'my_work' then p_call.actor_ref else '' end
     and p_digest.holder_kind = case when p_lane = 'my_work' then p_call.actor_kind else '' end
     and (p_digest.lane <> 'my_work' or p_digest.holder_ref <> '')
$$;

create function _is_held_by(p_digest digest, p_lane text, p_call inbox_call) returns boolean
language sql immutable as $$
  select p_lane = 'my_work' and p_digest.lane = 'my_work' and p_digest.workspace_id = p_call.workspace_id
     and p_digest.claimer_ref = p_call.actor_ref and p_digest.claimer_kind = p_call.actor_kind
     and (p_digest.holder_kind, p_digest.holder_ref) <> (p_call.actor_kind, p_call.actor_ref)
$$;

-- One task in an inbox, by its order; the lane is the one it has before triage.
create type inbox_entry as (
  lane text, archived boolean, hidden boolean, is_read boolean, at timestamptz, priority smallint, task_id text,
  blocking_reason text, activity bigint);

-- The tasks that the actor ever triaged.
create function _triaged(p_call inbox_call, p_lag lag) returns setof inbox_entry language plpgsql stable as $$
begin
  return query
  select case when (x.digest).lane <> 'my_work' or _in_lane(x.digest, 'my_work', p_call)
              then (x.digest).lane::text end,
         (x.triage).archived, _is_hidden(x.triage, (x.digest).activity),
         _is_read(x.triage, (x.digest).activity), (x.digest).activity_at, (x.digest).priority,
         (x.digest).task_id::text, (x.digest).blocking_reason::text, (x.digest).activity
    from (select t as triage, d.digest from triage t
            cross join lateral (select k as digest from digest k
              where k.workspace_id = p_call.workspace_id and k.task_id = t.task_id offset 0) d
           where t.workspace_id = p_call.workspace_id and t.actor_kind = p_call.actor_kind
             and t.actor_ref = p_call.actor_ref and t.task_id <> all (p_lag.tasks)
          union all
          select t, d from triage t join unnest(p_lag.live) d on d.task_id = t.task_id
           where t.workspace_id = p_call.workspace_id and t.actor_kind = p_call.actor_kind
             and t.actor_ref = p_call.actor_ref) x
   where _asked_for(x.digest, p_call);
end $$;

-- How many tasks stand in a lane before triage.
create function _lane_count(p_call inbox_call, p_lane text, p_lag lag) returns bigint
language plpgsql stable as $$
begin
  if p_call.query is null and p_lane <> 'my_work' then
    return coalesce((select sum(y.amount) from tally y
        where p_call.scope is null and p_call.owner_kind is null and p_call.owner_ref is null
          and y.workspace_id = p_call.workspace_id and y.scope = '' and y.label = 'lane.' || p_lane), 0)
      + coalesce((select sum(y.amount) from tally y
        where num_nonnulls(p_call.scope, p_call.owner_kind, p_call.owner_ref) > 0
          and y.workspace_id = p_call.workspace_id and y.scope <> '' and y.label = 'lane.' || p_lane
          and (p_call.scope is null or y.scope = p_call.scope)
          and (p_call.owner_kind is null or y.owner_kind = p_call.owner_kind)
          and (p_call.owner_ref is null or y.owner_ref = p_call.owner_ref)), 0)
      + (select count(*) from unnest(p_lag.live) d where d.lane = p_lane and _asked_for(d, p_call))
      - (select count(*) from unnest(p_lag.old) d where d.lane = p_lane and _asked_for(d, p_call));
  end if;
  return (select count(*) from digest d
      where _stands_in(d, p_lane, p_call) and d.task_id <> all (p_lag.tasks) and _asked_for(d, p_call))
    + (select count(*) from digest d
      where _is_held_by(d, p_lane, p_call) and d.task_id <> all (p_lag.tasks) and _asked_for(d, p_call))
    + (select count(*) from unnest(p_lag.live) d where _in_lane(d, p_lane, p_call) and _asked_for(d, p_call));
end $$;

-- Whether a digest comes behind the page before.
create function _comes_after(p_at timestamptz, p_priority smallint, p_task_id text, p_call inbox_call)
returns boolean language sql immutable as $$
  select p_call.after_at is null or p_at <= p_call.after_at and (p_at < p_call.after_at
      or p_priority < p_call.after_priority
      or p_priority = p_call.after_priority and p_task_id collate "C" > p_call.after_id)
$$;

-- The first unread tasks of a lane; p_limit is at most how many there are, so that none is looked for in vain. Each
-- part is read in the order of its index, past those that were read.
create function _unread(p_call inbox_call, p_lane text, p_lag lag, p_limit bigint) returns setof inbox_entry
language plpgsql stable as $$
begin
  return query
  select p_lane, false, false, false, x.activity_at, x.priority, x.task_id::text, x.blocking_reason::text,
         x.activity
    from (
      (select d.* from digest d
        where _stands_in(d, p_lane, p_call) and d.task_id <> all (p_lag.tasks) and _asked_for(d, p_call)
          and _comes_after(d.activity_at, d.priority, d.task_id, p_call)
          and not exists (select from triage t
            where t.workspace_id = p_call.workspace_id and t.actor_kind = p_call.actor_kind
              and t.actor_ref = p_call.actor_ref and t.task_id = d.task_id and (t.archived or d.activity <= t.seen))
        order by d.activity_at desc, d.priority desc, d.task_id limit p_limit)
      union all
      (select d.* from digest d
        where _is_held_by(d, p_lane, p_call) and d.task_id <> all (p_lag.tasks) and _asked_for(d, p_call)
          and _comes_after(d.activity_at, d.priority, d.task_id, p_call)
          and not exists (select from triage t
            where t.workspace_id = p_call.workspace_id and t.actor_kind = p_call.actor_kind
              and t.actor_ref = p_call.actor_ref and t.task_id = d.task_id and (t.archived or d.activity <= t.seen))
        order by d.activity_at desc, d.priority desc, d.task_id limit p_limit)
      union all
      (select d.* from unnest(p_lag.live) d
        where _in_lane(d, p_lane, p_call) and _asked_for(d, p_call)
          and _comes_after(d.activity_at, d.priority, d.task_id, p_call)
          and not exists (select from triage t
            where t.workspace_id = p_call.workspace_id and t.actor_kind = p_call.actor_kind
              and t.actor_ref = p_call.actor_ref and t.task_id = d.task_id and (t.archived or d.activity <= t.seen)))
    ) x
   order by x.activity_at desc, x.priority desc, x.task_id limit p_limit;
end $$;

create function _inbox_items(p_call inbox_call, p_page inbox_entry[], p_lane text) returns text
language plpgsql stable as $$
begin
  return (select '[' || coalesce(string_agg(json_build_object(
      'lane', p_lane, 'task', _task_reference_json(t.task, a.sequence),
      'run', case when r.run_id is not null then _run_summary(_run_json(r.run, (t.task).max_attempts, (t.task).priority,
        l.lease, b.body, null)::jsonb) end,
      'triage', _triage_json(x.task_id, p_call.actor_kind, p_call.actor_ref, g, x.activity),
      'approval_policy', case when (t.task).approval_state is null then 'none' else 'manual' end,
      'approval_state', coalesce((t.task).approval_state, 'not_required'),
      'blocking_reason', x.blocking_reason, 'latest_activity_at', _utc(x.at))::text, ',' order by x.n), '') || ']'
    from unnest(p_page) with ordinality
           x (lane, archived, hidden, is_read, at, priority, task_id, blocking_reason, activity, n)
    cross join lateral (select k as task, k.newest_run_id from task k
      where k.workspace_id = p_call.workspace_id and k.task_id = x.task_id offset 0) t
    left join lateral (select k.sequence from task_activity k
      where k.workspace_id = p_call.workspace_id and k.task_id = x.task_id offset 0) a on true
    left join lateral (select k as run, k.run_id, k.fence from run k
      where k.workspace_id = p_call.workspace_id and k.run_id = t.newest_run_id offset 0) r on true
    left join lateral (select k as lease from lease k
      where k.workspace_id = p_call.workspace_id and k.run_id = r.run_id and k.fence = r.fence offset 0) l on true
    left join lateral (select k as body from run_body k
      where k.workspace_id = p_call.workspace_id and k.run_id = r.run_id offset 0) b on true
    left join triage g on g.workspace_id = p_call.workspace_id and g.actor_kind = p_call.actor_kind
         and g.actor_ref = p_call.actor_ref and g.task_id = x.task_id);
end $$;

-- How many tasks each lane has, how many of them are unread, and a page of them.
create function _inbox_lanes(p_call inbox_call, p_lanes text[])
returns table (name text, total bigint, unread_total bigint, page inbox_entry[])
language plpgsql stable
-- Planned for these arguments: filters that are not given vanish, and what was touched becomes a hash.
set plan_cache_mode = force_custom_plan set enable_hashjoin = on as $$
declare
  v_lag lag := _lag(p_call.workspace_id);
  v_triaged inbox_entry[] := array(select row(x.*)::inbox_entry from _triaged(p_call, v_lag) x);
begin
  foreach name in array p_lanes loop
    page := '{}';
    if name = 'archived' then
      select count(*), 0 into total, unread_total from unnest(v_triaged) x where x.archived;
    else
      total := _lane_count(p_call, name, v_lag);
      select total - count(*) filter (where x.archived or x.hidden),
             total - count(*) filter (where x.archived or x.hidden or x.is_read)
        into total, unread_total from unnest(v_triaged) x where x.lane = name;
      if p_call.after_read is distinct from true and p_call.unread is distinct from false then
        page := array(select row(x.*)::inbox_entry from _unread(p_call, name, v_lag,
          least(p_call.count, unread_total)) x);
      end if;
    end if;
    if cardinality(page) < p_call.count and p_call.unread is distinct from true then
      page := page || array(select x from unnest(v_triaged) x
         where case when name = 'archived' then x.archived
                    else x.lane = name and x.is_read and not x.archived and not x.hidden end
           and (p_call.after_read is distinct from true
                or _comes_after(x.at, x.priority, x.task_id, p_call))
         order by x.at desc, x.priority desc, x.task_id collate "C" limit p_call.count - cardinality(page));
    end if;
    if p_call.unread and name <> 'archived' then
      total := unread_total;
    elsif not p_call.unread then
      total := total - unread_total;
      unread_total := 0;
    end if;
    return next;
  end loop;
end $$;

-- The lanes asked for. `count` is one more than a page has: found says whether others follow. last: by what the last
-- task of the page is ordered.
create function read_inbox(p_call json, p_lanes text[])
returns table (name text, total bigint, unread_total bigint, items text, found int, last json)
language plpgsql stable as $$
declare
  v_call inbox_call := json_populate_record(null::inbox_call, p_call);
begin
  return query
  select l.name, l.total, l.unread_total, _inbox_items(v_call, p.shown, l.name), cardinality(l.page),
         (select json_build_array(x.is_read, _utc(x.at), x.priority, x.task_id)
            from unnest(p.shown[cardinality(p.shown):]) x)
    from _inbox_lanes(v_call, p_lanes) l
    cross join lateral (select l.page[:v_call.count - 1] as shown) p;
end $$;
