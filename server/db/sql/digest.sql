-- The digest: what dashboards and inboxes count, kept behind the log by a loop, so that no transition pays for it.
--
-- A task's digest is its few facts that are counted or put in order; tally and moment follow from digests. Each
-- is true as of the position of its workspace: every task that no event after it concerns has the digest that
-- its rows say. A reader takes those after it anew, in its own snapshot, so its numbers are exact at any lag.

-- Up to which event of the log the digests of a workspace are true. Its row is the lock of them all.
create table digest_position (
  workspace_id word primary key references workspace,
  sequence bigint not null);

-- By scope, owner, channel and origin they are filtered; '' stands for none.
create table digest (
  workspace_id word,
  task_id word,
  scope word not null,
  owner_kind word not null,
  owner_ref word not null,
  network_channel word not null,
  origin_kind word not null,
  counted text[] not null,                   -- the labels under which the task and its runs count, one each
  priority smallint not null,
  lane word,                                 -- approvals, failed_runs, blocked; my_work: if it is somebody's
  holder_kind word not null,                 -- in my_work the owner, else ''
  holder_ref word not null,
  blocking_reason word,
  words text not null,                       -- title and identifier, to be searched
  run_id word,                               -- the open run
  run_rank smallint,                         -- 1 running, 2 starting, 3 claimed, 4 queued
  claimer_kind word,
  claimer_ref word,                          -- who holds the open run
  asked_at timestamptz,                      -- since when a review is asked for that nobody has taken
  queue_channel word,
  queue_at timestamptz,                      -- of a queued run of a ready task: its channel, when it is available
  activity bigint not null,                  -- the newest event that a reader of the task may want to see
  activity_at timestamptz not null,
  at timestamptz not null,                   -- when the newest event of all was
  primary key (workspace_id, task_id)) with (fillfactor = 80);
create index digest_lane on digest
  (workspace_id, lane, holder_ref, holder_kind, activity_at desc, priority desc, task_id)
  where lane <> 'my_work' or holder_ref <> '';
create index digest_claimer on digest (workspace_id, claimer_ref, claimer_kind) where claimer_ref is not null;
create index digest_active on digest (workspace_id, run_rank, at desc, run_id desc) where run_rank is not null;
create index digest_asked on digest (workspace_id, (lane = 'approvals'), asked_at) where asked_at is not null;
create index digest_queue on digest (workspace_id, queue_channel, queue_at) where queue_at is not null;

-- How often each label counts, by what is filtered by, and in all (scope ''). The label `at` counts nothing: it says
-- when something last happened, in microseconds.
create table tally (
  workspace_id word,
  scope word,
  owner_kind word,
  owner_ref word,
  network_channel word,
  origin_kind word,
  label text collate "C",
  amount bigint not null,
  primary key (workspace_id, scope, owner_kind, owner_ref, network_channel, origin_kind, label)
) with (fillfactor = 80);
create index tally_empty on tally (workspace_id) where amount = 0;

-- What is counted for 24 hours: claims and starts with how long they took, and forced stops.
create table moment (
  workspace_id word,
  task_id word,
  run_id word,
  kind word,                                 -- claimed, started, forced
  scope word not null,
  owner_kind word not null,
  owner_ref word not null,
  network_channel word not null,
  origin_kind word not null,
  at timestamptz not null,
  us bigint not null,                        -- microseconds
  primary key (workspace_id, task_id, run_id, kind));
create index moment_age on moment (workspace_id, at);
create index moment_longest on moment (workspace_id, kind, us);

-- The digests of tasks as their rows are now; none for a task that is not there. p_activity: for each its newest
-- event that counts as activity, null: as it was. p_late: a review asked for since then is a person's to take.
create function _digests(p_ws text, p_tasks text[], p_activity bigint[], p_late timestamptz) returns setof digest
language plpgsql stable as $$
begin
  return query select
    p_ws::word, t.task_id, t.scope, coalesce(t.owner_kind, '')::word, coalesce(t.owner_ref, '')::word,
    coalesce(t.network_channel, '')::word, t.origin_kind,
    array['task.' || t.status] || r.counted
      || case when b.reason = 'awaiting_approval' then array['awaiting_approval'] end
      || case when t.status = 'blocked' and t.dependencies_waiting > 0 then array['dependency_blocked'] end
      || case when n.status = 'queued' and t.status = 'ready'
              then array['queue.' || coalesce(n.network_channel, '')] end
      || case when l.lane <> 'my_work' then array['lane.' || l.lane] end,
    t.priority, l.lane::word, coalesce(case when l.lane = 'my_work' then t.owner_kind end, '')::word,
    coalesce(case when l.lane = 'my_work' then t.owner_ref end, '')::word, b.reason::word,
    lower(concat(t.title, chr(1), t.identifier)), case when _is_open(n.status) then n.run_id end::word,
    array_position('{running,starting,claimed,queued}', n.status::text)::smallint,
    h.claimed_by_kind, h.claimed_by_ref::word, v.requested_at,
    case when n.status = 'queued' and t.status = 'ready' then coalesce(n.network_channel, '') end::word,
    case when n.status = 'queued' and t.status = 'ready' then n.available_at end,
    coalesce(x.activity, was.activity, 0), coalesce(e.at, was.activity_at, t.created_at),
    coalesce(a.at, t.created_at)
    from unnest(p_tasks, p_activity) x (task_id, activity)
    cross join lateral (select k.* from task k
      where k.workspace_id = p_ws and k.task_id = x.task_id offset 0) t
    left join lateral (select k.run_id, k.status, k.fence, k.network_channel, k.available_at, k.review from run k
      where k.workspace_id = p_ws and k.run_id = t.newest_run_id offset 0) n on true
    left join lateral (select k.requested_at from review k
      where n.review = 'open' and t.status = 'pending' and k.run_id = n.run_id and k.workspace_id || '' = p_ws
        and k.gating and k.status = 'requested' offset 0) v on true
    -- Never by the workspace alone (|| ''), whatever the statistics say.
    cross join lateral (select array_agg('run.' || k.status order by k.attempt) as counted from run k
      where k.task_id = t.task_id and k.workspace_id || '' = p_ws) r
    left join lateral (select k.claimed_by_kind, k.claimed_by_ref from lease k
      where _is_leased(n.status) and k.workspace_id = p_ws and k.run_id = n.run_id and k.fence = n.fence
      offset 0) h on true
    left join lateral (select k.at from task_activity k
      where k.workspace_id = p_ws and k.task_id = x.task_id offset 0) a on true
    left join lateral (select k.at from event k
      where k.workspace_id = p_ws and k.sequence = x.activity offset 0) e on true
    left join lateral (select k.activity, k.activity_at from digest k
      where k.workspace_id = p_ws and k.task_id = x.task_id offset 0) was on true
    -- First match. What is blocked with a run that completed has a review that does not let it go on.
    cross join lateral (select case
        when t.status = 'blocked' and t.approval_state = 'pending' then 'awaiting_approval'
        when t.status = 'blocked' and t.approval_state = 'rejected' then 'approval_rejected'
        when t.status = 'blocked' and n.status = 'needs_attention' then 'needs_attention'
        when n.status = 'failed' then 'latest_run_failed'
        when t.status = 'pending' then 'review_pending'
        when t.status <> 'blocked' then null
        when n.status = 'completed' then 'review_blocked'
        when t.dependencies_waiting = 0 then null
        when t.on_dependency_failure = 'block' and exists (
            select from (select k.depends_on_task_id from dependency k
                where k.workspace_id = p_ws and k.task_id = t.task_id and not k.satisfied offset 0) d
            cross join lateral (select k.status from task k
                where k.workspace_id = p_ws and k.task_id = d.depends_on_task_id offset 0) w
            where w.status in ('failed', 'canceled')) then 'dependency_failed'
        else 'awaiting_dependencies' end as reason) b
    cross join lateral (select case
        when b.reason = 'awaiting_approval' or v.requested_at <= p_late then 'approvals'
        when t.status = 'failed' or n.status = 'failed' then 'failed_runs'
        when b.reason in ('needs_attention', 'review_blocked', 'approval_rejected', 'dependency_failed')
          then 'blocked'
        when t.status <> 'draft' and not _has_ended(t.status) then 'my_work' end as lane) l;
end $$;

-- The moments of the runs of tasks as their rows are now, from p_since on. A run that was queued again has none.
create function _moments(p_ws text, p_tasks text[], p_since timestamptz) returns setof moment
language plpgsql stable as $$
begin
  return query select
    p_ws::word, t.task_id, r.run_id, m.kind::word, t.scope, coalesce(t.owner_kind, '')::word,
    coalesce(t.owner_ref, '')::word, coalesce(t.network_channel, '')::word, t.origin_kind, m.at,
    greatest(0, (extract(epoch from m.at - m.since) * 1000000)::bigint)
    from unnest(p_tasks) x (task_id)
    cross join lateral (select k.* from task k
      where k.workspace_id = p_ws and k.task_id = x.task_id offset 0) t
    cross join lateral (select k.* from run k
      where k.task_id = x.task_id and k.workspace_id || '' = p_ws offset 0) r
    left join lateral (select k.claimed_at from lease k
      where k.workspace_id = p_ws and k.run_id = r.run_id and k.fence = r.fence and _is_held(k) offset 0) l
      on true
    cross join lateral (values ('claimed', l.claimed_at, r.available_at), ('started',
      case when l.claimed_at is not null then r.started_at end, l.claimed_at), ('forced',
      case when r.failure_kind = 'operator_forced' then r.ended_at end, r.ended_at)) m (kind, at, since)
   where m.at > p_since;
end $$;

-- The tasks whose digests the events of a stretch of the log may have changed, and the newest of these events
-- that counts as activity.
create function _touched(p_ws text, p_after bigint, p_to bigint) returns table (task_id text, activity bigint)
language plpgsql stable as $$
begin
  return query
  with own as materialized (
    select e.task_id, max(e.sequence) filter (where e.event_type <> all (
             '{task.run_progress,task.run_lease_expired,task.run_starved}')) as activity,
           -- After these the task may have ended, or not be ended any more: who waits for it sees that.
           bool_or(e.event_type like 'task.run\_review\_%' or e.event_type = any (
             '{task.run_completed,task.run_failed,task.run_operator_forced_fail,task.canceled,task.deleted,
               task.run_enqueued,task.run_operator_retry,task.run_recovered_from_attention}')) as turned
      from event e
     where e.workspace_id = p_ws and e.sequence > p_after and e.sequence <= p_to and e.task_id is not null
     group by e.task_id
  )
  select o.task_id::text, o.activity from own o
  union all
  select distinct d.task_id::text, null::bigint from own o
    cross join lateral (select k.task_id from dependency k
      where k.workspace_id = p_ws and k.depends_on_task_id = o.task_id offset 0) d
   where o.turned and not exists (select from own x where x.task_id = d.task_id);
end $$;

create function _late(p_ws text) returns timestamptz language sql volatile as $$
  select lease_now() - make_interval(secs => _setting(w.settings, 'stranded_seconds', 300))
    from workspace w where w.workspace_id = p_ws
$$;

-- The tasks whose reviews nobody has taken for so long that their lane is another now, and the other way round.
create function _stranded(p_ws text, p_late timestamptz, p_limit int) returns setof text language sql stable as $$
  (select d.task_id from digest d
    where d.workspace_id = p_ws and (d.lane = 'approvals') = false and d.asked_at <= p_late
    order by d.asked_at limit p_limit)
  union all
  (select d.task_id from digest d
    where d.workspace_id = p_ws and (d.lane = 'approvals') = true and d.asked_at > p_late
    order by d.asked_at limit p_limit)
$$;

-- The tasks whose digests are behind: for what happened, or because time went by.
create function _behind(p_ws text, p_after bigint, p_to bigint, p_late timestamptz, p_limit int)
returns table (task_id text, activity bigint) language sql stable as $$
  select x.task_id, max(x.activity) from (
    select t.task_id, t.activity from _touched(p_ws, p_after, p_to) t
    union all
    select s, null from _stranded(p_ws, p_late, p_limit) s) x
   group by x.task_id
$$;

-- How the runs ended whose ends stand in a stretch of the log, and how many each way.
create function _ends(p_ws text, p_after bigint, p_to bigint) returns json language sql stable as $$
  select json_agg(json_build_object('outcome', x.outcome, 'failure_kind', x.failure_kind, 'count', x.count))
    from (select case when e.event_type = 'task.run_completed' then 'completed'
                      when e.event_type = 'task.run_canceled' then 'canceled' else 'failed' end as outcome,
                 case when e.event_type in ('task.run_completed', 'task.run_canceled') then ''
                      when e.event_type <> 'task.run_failed' then 'operator_forced'
                      when e.payload ->> 'failure_kind' in ('error', 'deadline_exceeded')
                        then e.payload ->> 'failure_kind'
                      else 'other' end as failure_kind, count(*) as count
            from event e
           where e.workspace_id = p_ws and e.sequence > p_after and e.sequence <= p_to
             and e.event_type in ('task.run_completed', 'task.run_canceled', 'task.run_failed',
               'task.run_operator_forced_fail', 'task.run_recovered_from_attention')
           group by 1, 2) x
$$;

-- Brings the digests of a workspace a bounded number of events further; answers how many, and how runs ended by
-- them: each event passes here once. One server does it at a time. The rows may be newer than the events: what
-- comes later takes those tasks up again.
create function keep_digests(p_workspace_id text, p_limit int, out events int, out ended json) language plpgsql
-- Planned for so many rows, which are joined with each other.
set plan_cache_mode = force_custom_plan set enable_seqscan = off set jit = off as $$
declare
  v_from bigint;
  v_to bigint;
  v_late timestamptz := _late(p_workspace_id);
  v_tasks text[];
  v_activity bigint[];
begin
  -- Where the row is, an insert would wait for who holds it.
  if not exists (select from digest_position p where p.workspace_id = p_workspace_id) then
    insert into digest_position (workspace_id, sequence) values (p_workspace_id, 0) on conflict do nothing;
  end if;
  select p.sequence into v_from from digest_position p
   where p.workspace_id = p_workspace_id for no key update skip locked;
  events := 0;
  if v_from is null then
    return;
  end if;
  v_to := least(_newest_event(p_workspace_id), v_from + p_limit);
  events := v_to - v_from;
  ended := _ends(p_workspace_id, v_from, v_to);
  select array_agg(x.task_id), array_agg(x.activity) into v_tasks, v_activity
    from _behind(p_workspace_id, v_from, v_to, v_late, p_limit) x;
  if v_tasks is not null then
    perform _keep_tasks(p_workspace_id, v_tasks, v_activity, v_late);
    perform _keep_moments(p_workspace_id, v_tasks);
  end if;
  update digest_position p set sequence = v_to where p.workspace_id = p_workspace_id and p.sequence < v_to;
  perform _forget_moments(p_workspace_id, p_limit);
  with gone as (
    delete from tally y where y.workspace_id = p_workspace_id and y.amount = 0 returning y.*
  )
  delete from tally y using gone g
   where y.workspace_id = p_workspace_id and (y.scope, y.owner_kind, y.owner_ref, y.network_channel, y.origin_kind)
         = (g.scope, g.owner_kind, g.owner_ref, g.network_channel, g.origin_kind) and y.label = 'at'
     and not exists (select from tally o
       where o.workspace_id = p_workspace_id and (o.scope, o.owner_kind, o.owner_ref, o.network_channel, o.origin_kind)
             = (g.scope, g.owner_kind, g.owner_ref, g.network_channel, g.origin_kind)
         and o.label <> 'at' and o.amount <> 0);
end $$;

create type mark as (
  scope text, owner_kind text, owner_ref text, network_channel text, origin_kind text, label text, amount bigint);

create function _count(p_ws text, p_marks mark[]) returns void language sql as $$
  insert into tally (workspace_id, scope, owner_kind, owner_ref, network_channel, origin_kind, label, amount)
  select p_ws, coalesce(m.scope, ''), coalesce(m.owner_kind, ''), coalesce(m.owner_ref, ''),
         coalesce(m.network_channel, ''), coalesce(m.origin_kind, ''), m.label, sum(m.amount)
    from unnest(p_marks) m
   group by grouping sets ((m.label),
     (m.label, m.scope, m.owner_kind, m.owner_ref, m.network_channel, m.origin_kind))
  having sum(m.amount) <> 0
  on conflict (workspace_id, scope, owner_kind, owner_ref, network_channel, origin_kind, label)
  do update set amount = tally.amount + excluded.amount
$$;

create function _us(p_at timestamptz) returns bigint language sql stable as $$
  select (extract(epoch from p_at) * 1000000)::bigint
$$;

create function _keep_tasks(p_ws text, p_tasks text[], p_activity bigint[], p_late timestamptz) returns void
language plpgsql as $$
declare
  v_marks mark[];
begin
  with live as materialized (
    select d.* from _digests(p_ws, p_tasks, p_activity, p_late) d
  ), old as materialized (
    select d.* from unnest(p_tasks) x (task_id)
      cross join lateral (select k.*, k.ctid as place from digest k
        where k.workspace_id = p_ws and k.task_id = x.task_id offset 0) d
  ), gone as (
    delete from digest d using old o
     where d.ctid = o.place and not exists (select from live l where l.task_id = o.task_id)
  ), kept as (
    insert into digest select l.* from live l
    on conflict (workspace_id, task_id) do update
       set (scope, owner_kind, owner_ref, network_channel, origin_kind, counted, priority, lane, holder_kind,
            holder_ref, blocking_reason, words, run_id, run_rank, claimer_kind, claimer_ref, asked_at,
            queue_channel, queue_at, activity, activity_at, at)
         = (excluded.scope, excluded.owner_kind, excluded.owner_ref, excluded.network_channel,
            excluded.origin_kind, excluded.counted, excluded.priority, excluded.lane, excluded.holder_kind,
            excluded.holder_ref, excluded.blocking_reason, excluded.words, excluded.run_id, excluded.run_rank,
            excluded.claimer_kind, excluded.claimer_ref,
            excluded.asked_at, excluded.queue_channel, excluded.queue_at, excluded.activity, excluded.activity_at,
            excluded.at)
  ), seen as (
    insert into tally (workspace_id, scope, owner_kind, owner_ref, network_channel, origin_kind, label, amount)
    select p_ws, l.scope, l.owner_kind, l.owner_ref, l.network_channel, l.origin_kind, 'at', max(_us(l.at))
      from live l group by l.scope, l.owner_kind, l.owner_ref, l.network_channel, l.origin_kind
    on conflict (workspace_id, scope, owner_kind, owner_ref, network_channel, origin_kind, label)
    do update set amount = greatest(tally.amount, excluded.amount)
  )
  select array_agg(row(x.scope, x.owner_kind, x.owner_ref, x.network_channel, x.origin_kind, c.label,
           x.amount)::mark) into v_marks
    from (select l.scope, l.owner_kind, l.owner_ref, l.network_channel, l.origin_kind, l.counted, 1 as amount
            from live l
          union all
          select o.scope, o.owner_kind, o.owner_ref, o.network_channel, o.origin_kind, o.counted, -1 from old o) x
    cross join lateral unnest(x.counted) c (label);
  perform _count(p_ws, v_marks);
end $$;

-- What a moment adds to the tally; p_sign -1: takes from it.
create function _marks(p_moment moment, p_sign int) returns mark[] language sql stable as $$
  select array[row(p_moment.scope, p_moment.owner_kind, p_moment.owner_ref, p_moment.network_channel,
                   p_moment.origin_kind, p_moment.kind, p_sign)::mark,
               row(p_moment.scope, p_moment.owner_kind, p_moment.owner_ref, p_moment.network_channel,
                   p_moment.origin_kind, p_moment.kind || '_us', p_sign * p_moment.us)::mark]
$$;

create function _day_ago() returns timestamptz language sql volatile as $$
  select lease_now() - interval '24 hours'
$$;

create function _keep_moments(p_ws text, p_tasks text[]) returns void language plpgsql as $$
declare
  v_marks mark[];
begin
  with live as materialized (
    select m.* from _moments(p_ws, p_tasks, _day_ago()) m
  ), old as materialized (
    select m.* from unnest(p_tasks) x (task_id)
      cross join lateral (select k.*, k.ctid as place from moment k
        where k.workspace_id = p_ws and k.task_id = x.task_id offset 0) m
  ), gone as (
    delete from moment m using old o
     where m.ctid = o.place and not exists (select from live l
       where (l.task_id, l.run_id, l.kind) = (o.task_id, o.run_id, o.kind))
  ), kept as (
    insert into moment
    select l.* from live l where not exists (select from old o
       where (o.task_id, o.run_id, o.kind, o.at, o.us, o.scope, o.owner_kind, o.owner_ref, o.network_channel,
              o.origin_kind) = (l.task_id, l.run_id, l.kind, l.at, l.us, l.scope, l.owner_kind, l.owner_ref,
              l.network_channel, l.origin_kind))
    on conflict (workspace_id, task_id, run_id, kind) do update
       set (at, us, scope, owner_kind, owner_ref, network_channel, origin_kind)
         = (excluded.at, excluded.us, excluded.scope, excluded.owner_kind, excluded.owner_ref,
            excluded.network_channel, excluded.origin_kind)
  )
  select array_agg(m) into v_marks from (
    select unnest(_marks(l::moment, 1)) as m from live l
    union all
    select unnest(_marks(row(o.workspace_id, o.task_id, o.run_id, o.kind, o.scope, o.owner_kind, o.owner_ref,
             o.network_channel, o.origin_kind, o.at, o.us)::moment, -1)) from old o) x;
  perform _count(p_ws, v_marks);
end $$;

create function _forget_moments(p_ws text, p_limit int) returns void language plpgsql as $$
declare
  v_since timestamptz := _day_ago();
  v_marks mark[];
begin
  with gone as (
    delete from moment m where m.ctid = any (array(select o.ctid from moment o
      where o.workspace_id = p_ws and o.at <= v_since order by o.at limit p_limit))
    returning m.*
  )
  select array_agg(x) into v_marks from gone g cross join lateral unnest(_marks(g::moment, -1)) x;
  if v_marks is not null then
    perform _count(p_ws, v_marks);
  end if;
end $$;
