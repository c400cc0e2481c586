-- Concurrency keys: of the tasks with one key only so many may be leased at once, each going by its own limit.
--
-- A run that only a slot may keep from being claimed is a contender. Of the contenders of a key with equal lane,
-- priority and limit, the first have offers, as many as slots are free for that limit: so a claim reads no others,
-- however many wait. Contenders, their offers and the leases of a key change under the lock of its slot only; who
-- has it counts the live leases in its next statement. Transitions take it when all their tasks are locked, a claim
-- takes it with SKIP LOCKED, in front of offer and task.

-- The lock of a concurrency key; it comes with the first run that needs it.
create table slot (workspace_id word, concurrency_key word, primary key (workspace_id, concurrency_key));

create table contender (
  workspace_id word,
  concurrency_key word not null,
  concurrency_limit int not null,
  lane_id bigint not null,
  priority smallint not null,
  rank_at timestamptz not null,              -- the order of the queue, as in offer
  run_id word,
  task_id word not null,
  available_at timestamptz not null,
  waiting_since timestamptz not null,        -- as in offer
  primary key (run_id, workspace_id));
create index contender_order on contender (
  workspace_id, concurrency_key, lane_id, priority, concurrency_limit, rank_at, run_id);

-- How many runs of a key are leased.
create function _active(p_ws text, p_key text) returns int language plpgsql stable as $$
begin
  return (select count(*) from lease l
           where l.workspace_id = p_ws and l.concurrency_key = p_key and l.ended_at is null);
end $$;

create function _has_slot(p_task task) returns boolean language sql stable as $$
  select p_task.concurrency_key is null
      or _active(p_task.workspace_id, p_task.concurrency_key) < p_task.concurrency_limit
$$;

-- Locks slots in order, and makes those that are missing (or went while they were waited for).
create function _lock_slots(p_ws text, p_keys text[]) returns void language plpgsql as $$
declare
  v_locked int;
begin
  loop
    perform 1 from (select distinct k collate "C" as key from unnest(p_keys) k where k is not null order by 1) k
      cross join lateral (select from slot s
        where s.workspace_id = p_ws and s.concurrency_key = k.key for no key update) s;
    get diagnostics v_locked = row_count;
    exit when v_locked = (select count(distinct k) from unnest(p_keys) k);
    insert into slot (workspace_id, concurrency_key)
    select p_ws, k from unnest(p_keys) k where k is not null order by k collate "C" on conflict do nothing;
  end loop;
end $$;

-- Gives each free slot of these keys (locked) to the first that wait for it: makes their offers, and takes back
-- those of others. A step of the index finds each lane, priority and limit. Returns how many there are: who looked
-- while the slots were locked is to look again.
create function _fill_slots(p_ws text, p_keys text[]) returns int language plpgsql as $$
declare
  v_offers int;
begin
  with recursive kind (key, lane_id, priority, concurrency_limit, active) as (
    select c.*, _active(p_ws, k.key) from unnest(p_keys) k (key) cross join lateral (
      select c.concurrency_key, c.lane_id, c.priority, c.concurrency_limit from contender c
       where c.workspace_id = p_ws and c.concurrency_key = k.key
       order by c.lane_id, c.priority, c.concurrency_limit limit 1) c
    union all
    select c.*, k.active from kind k cross join lateral (
      select c.concurrency_key, c.lane_id, c.priority, c.concurrency_limit from contender c
       where c.workspace_id = p_ws and c.concurrency_key = k.key
         and (c.lane_id, c.priority, c.concurrency_limit) > (k.lane_id, k.priority, k.concurrency_limit)
       order by c.lane_id, c.priority, c.concurrency_limit limit 1) c
  ), first as materialized (
    -- No more of a kind than one claim could ever take.
    select c.* from kind k
      cross join lateral (select c.* from contender c
        where c.workspace_id = p_ws and c.concurrency_key = k.key and c.lane_id = k.lane_id
          and c.priority = k.priority and c.concurrency_limit = k.concurrency_limit
        order by c.rank_at, c.run_id limit least(greatest(k.concurrency_limit - k.active, 0), 1000)) c
  ), withdrawn as (
    delete from offer o where o.ctid = any (array(
      select k.ctid from unnest(p_keys) x (key)
        cross join lateral (select o.ctid, o.run_id from offer o
          where o.workspace_id = p_ws and o.concurrency_key = x.key offset 0) k
       where k.run_id not in (select f.run_id from first f)))
  ), made as (
    insert into offer (workspace_id, lane_id, priority, rank_at, run_id, task_id, available_at, waiting_since,
                       concurrency_key)
    select p_ws, f.lane_id, f.priority, f.rank_at, f.run_id, f.task_id, f.available_at, f.waiting_since,
           f.concurrency_key
      from first f
    on conflict (workspace_id, run_id) do nothing
  )
  select count(*) into v_offers from first;
  return v_offers;
end $$;

-- Makes it true who of the queued runs of these tasks contends, and who of all contenders of the keys has an offer.
create function _contend(p_ws text, p_tasks text[], p_keys text[], p_now timestamptz) returns int
language plpgsql as $$
begin
  perform _lock_slots(p_ws, p_keys);
  with newest as (
    select t.concurrency_key, t.concurrency_limit, r.lane_id, t.priority, r.run_id, t.task_id, r.available_at,
           greatest(r.available_at, t.ready_at) as waiting_since,
           _is_free(t::task, r::run) and r.available_at <= p_now as waits
      from unnest(p_tasks) x (task_id)
      cross join lateral (select k.* from task k where k.workspace_id = p_ws and k.task_id = x.task_id
        and k.concurrency_key is not null offset 0) t
      cross join lateral (select k.* from run k
        where k.workspace_id = p_ws and k.run_id = t.newest_run_id offset 0) r
  ), gone as (
    delete from contender c
     using newest n
     cross join lateral (select k.ctid from contender k
       where k.run_id = n.run_id and k.workspace_id = p_ws offset 0) k
     where c.ctid = k.ctid and not n.waits
  ), moved as (
    delete from offer o
     using newest n
     cross join lateral (select k.ctid, k.lane_id, k.priority, k.available_at from offer k
       where k.workspace_id = p_ws and k.run_id = n.run_id offset 0) k
     where o.ctid = k.ctid
       and (k.lane_id, k.priority, k.available_at) <> (n.lane_id, n.priority, n.available_at)
  )
  insert into contender as c (workspace_id, concurrency_key, concurrency_limit, lane_id, priority, rank_at, run_id,
                              task_id, available_at, waiting_since)
  select p_ws, n.concurrency_key, n.concurrency_limit, n.lane_id, n.priority,
         n.available_at - make_interval(secs => _head_start(w.settings, n.priority)), n.run_id, n.task_id,
         n.available_at, n.waiting_since
    from newest n join workspace w on w.workspace_id = p_ws
   where n.waits
  on conflict (run_id, workspace_id) do update
    set concurrency_limit = excluded.concurrency_limit, lane_id = excluded.lane_id, priority = excluded.priority,
        rank_at = case when (c.priority, c.available_at) = (excluded.priority, excluded.available_at)
                       then c.rank_at else excluded.rank_at end, available_at = excluded.available_at,
        waiting_since = excluded.waiting_since;
  return _fill_slots(p_ws, p_keys);
end $$;

-- Of runs that a claim is about to take (their slots, offers and tasks are locked), those for which there is a
-- slot, and the ids of the others. p_before: what the claim took already.
create function _fit_slots(
  p_ws text, p_before claimed_run[], p_more claimed_run[], out taken claimed_run[], out over text[])
language plpgsql as $$
declare
  v_active jsonb;
  v_run record;
begin
  taken := '{}';
  over := '{}';
  select jsonb_object_agg(k.key, _active(p_ws, k.key) + (
           select count(*) from unnest(p_before) b join offer o on o.ctid = b.offer_place
            where o.concurrency_key = k.key)) into v_active
    from (select distinct o.concurrency_key as key from unnest(p_more) x join offer o on o.ctid = x.offer_place
           where o.concurrency_key is not null) k;
  for v_run in
    select row(x.n, x.run_id, x.task_id, x.offer_place, x.task_place)::claimed_run as run, x.run_id,
           o.concurrency_key as key, t.concurrency_limit as most
      from unnest(p_more) with ordinality x (n, run_id, task_id, offer_place, task_place, place)
      join offer o on o.ctid = x.offer_place
      join task t on t.ctid = x.task_place
     order by x.place
  loop
    if v_run.key is null then
      taken := taken || v_run.run;
    elsif (v_active ->> v_run.key)::int < v_run.most then
      taken := taken || v_run.run;
      v_active := v_active || jsonb_build_object(v_run.key, (v_active ->> v_run.key)::int + 1);
    else
      over := over || v_run.run_id::text;
    end if;
  end loop;
end $$;

-- What was claimed (its slots are locked) contends no longer; nothing was if the scheduler was paused this moment.
-- Answers how many offers its keys have then.
create function _leave_contest(p_ws text, p_claimed claimed_run[], p_leased boolean) returns int language plpgsql as $$
declare
  v_keys text[];
begin
  with claimed as (
    select k.* from unnest(p_claimed) x
      cross join lateral (select k.concurrency_key, k.ctid as place from contender k
        where k.run_id = x.run_id and k.workspace_id = p_ws offset 0) k
  ), gone as (
    delete from contender c using claimed x where c.ctid = x.place and p_leased
  )
  select array_agg(distinct x.concurrency_key) into v_keys from claimed x;
  return _fill_slots(p_ws, v_keys);
end $$;

-- Makes an offer of a contender that is asked for by its id, before its turn, if a slot is free; without waiting.
create function _offer_ahead(p_ws text, p_run_id text, p_lanes bigint[], p_priority_min int) returns boolean
language plpgsql as $$
declare
  v_key text;
begin
  select c.concurrency_key into v_key from contender c
    cross join lateral (select from slot s
      where s.workspace_id = p_ws and s.concurrency_key = c.concurrency_key for no key update skip locked) s
    cross join lateral (select from task t
      where t.workspace_id = p_ws and t.task_id = c.task_id for no key update skip locked) t
   where c.workspace_id = p_ws and c.run_id = p_run_id;
  insert into offer (workspace_id, lane_id, priority, rank_at, run_id, task_id, available_at, waiting_since,
                     concurrency_key)
  select p_ws, c.lane_id, c.priority, c.rank_at, c.run_id, c.task_id, c.available_at, c.waiting_since,
         c.concurrency_key
    from contender c
   where c.workspace_id = p_ws and c.run_id = p_run_id and c.concurrency_key = v_key
     and p_lanes @> array[c.lane_id] and c.priority >= p_priority_min
     and _active(p_ws, c.concurrency_key) < c.concurrency_limit
  on conflict (workspace_id, run_id) do nothing;
  return found;
end $$;

-- What a patch says of key and limit, whole: with a key there is a limit, 1 if none is given, and without one none.
create function _given_slots(p_task task, p_given jsonb) returns jsonb language plpgsql as $$
declare
  v_key text := case when p_given ? 'concurrency_key' then p_given ->> 'concurrency_key'
                     else p_task.concurrency_key end;
  v_limit int := case when p_given ? 'concurrency_limit' then (p_given ->> 'concurrency_limit')::int
                      else p_task.concurrency_limit end;
begin
  if v_key is null and p_given ->> 'concurrency_limit' is not null then
    perform _refuse_field('concurrency_limit', 'requires', 'requires concurrency_key');
  end if;
  return p_given || jsonb_build_object('concurrency_limit', case when v_key is not null then coalesce(v_limit, 1) end);
end $$;

-- Follows a task (locked, patched already) to its new key: its live lease counts there, and its queued run contends
-- no longer for the old one. _settle() comes after it, and fills the new one.
create function _move_slot(p_ws text, p_task task, p_from text) returns int language plpgsql as $$
begin
  perform _lock_runs(p_ws, array[p_task.newest_run_id]);
  perform _lock_slots(p_ws, array[p_from, p_task.concurrency_key]);
  update lease l set concurrency_key = p_task.concurrency_key
   where l.workspace_id = p_ws and l.run_id = p_task.current_run_id and l.ended_at is null;
  delete from contender c where c.workspace_id = p_ws and c.run_id = p_task.newest_run_id;
  return _fill_slots(p_ws, array[p_from]);
end $$;

-- Deletes slots that nobody contends for or holds, a bounded number; locked first, looked at in the next statement.
create function forget_slots(p_limit int) returns int language plpgsql as $$
declare
  v_idle tid[] := array(
    select s.ctid from slot s
     where not exists (select from contender c
             where c.workspace_id = s.workspace_id and c.concurrency_key = s.concurrency_key)
       and not exists (select from lease l where l.workspace_id = s.workspace_id
             and l.concurrency_key = s.concurrency_key and l.ended_at is null)
     limit p_limit for update skip locked);
  v_deleted int;
begin
  delete from slot s
   where s.ctid = any (v_idle)
     and not exists (select from contender c
           where c.workspace_id = s.workspace_id and c.concurrency_key = s.concurrency_key)
     and not exists (select from lease l where l.workspace_id = s.workspace_id
           and l.concurrency_key = s.concurrency_key and l.ended_at is null);
  get diagnostics v_deleted = row_count;
  return v_deleted;
end $$;
