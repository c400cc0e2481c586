-- Retention: what a workspace keeps no longer than it says.

-- How far the look for old trees has come; behind the last task it begins again.
create table retention_walk (
  workspace_id word primary key references workspace,
  created_at timestamptz not null,
  task_id word not null);

create function _kept_since(p_settings jsonb, p_name text, p_default int) returns timestamptz
language sql volatile as $$
  select lease_now() - make_interval(days => nullif(_setting(p_settings, p_name, p_default), 0))
$$;

-- The first event that a subscriber over an enabled bridge may still have to be sent; null: none. A cursor that
-- is due and was not looked at yet counts from where it stands.
create function _held_from(p_ws text) returns bigint language sql stable as $$
  select min(h.sequence) from (
    select coalesce(c.next_sequence, c.looked_to + 1) as sequence
      from delivery_cursor c
      join bridge b on b.workspace_id = p_ws and b.bridge_id = c.bridge_id and b.enabled
     where c.workspace_id = p_ws and c.due_at is not null
    union all
    select f.position + 1 from bridge_feed f
     where f.workspace_id = p_ws and exists (select from bridge b where b.workspace_id = p_ws and b.enabled)) h
$$;

-- Deletes the oldest events of a workspace, a bounded number, and answers how many. It stops before what a
-- subscriber is still to be sent, for as long again as events are kept, and before what the digests have not come
-- to. The newest event always stays: sequence numbers and the count of open tasks go on from it.
create function forget_events(p_workspace_id text, p_limit int) returns int language plpgsql as $$
declare
  v_since timestamptz;
  v_now timestamptz := lease_now();
  v_old bigint;
  v_very_old bigint;
  v_held bigint;
  v_deleted int;
begin
  select _kept_since(w.settings, 'event_retention_days', 90) into v_since
    from workspace w where w.workspace_id = p_workspace_id;
  if v_since is null then
    return 0;
  end if;
  -- The log is whole: what goes is what is before the first event that stays.
  select coalesce(min(p.sequence) filter (where p.at >= v_since), max(p.sequence)),
         coalesce(min(p.sequence) filter (where p.at >= v_since - (v_now - v_since)), max(p.sequence))
    into v_old, v_very_old
    from (select e.sequence, e.at from event e where e.workspace_id = p_workspace_id
           order by e.sequence limit p_limit + 1) p;
  v_held := _held_from(p_workspace_id);
  v_old := greatest(least(v_old, v_held), v_very_old);
  v_old := least(v_old, 1 + coalesce((select p.sequence from digest_position p
    where p.workspace_id = p_workspace_id), 0));
  delete from event e where e.workspace_id = p_workspace_id and e.sequence < v_old;
  get diagnostics v_deleted = row_count;
  if v_held < v_old then
    update delivery_cursor c set last_error = 'events were deleted by retention before they were delivered'
     where c.workspace_id = p_workspace_id and c.due_at is not null
       and coalesce(c.next_sequence, c.looked_to + 1) < v_old;
  end if;
  return v_deleted;
end $$;

create function forget_deliveries(p_workspace_id text, p_limit int) returns int language plpgsql as $$
declare
  v_since timestamptz;
  v_deleted int;
begin
  select _kept_since(w.settings, 'delivery_retention_days', 30) into v_since
    from workspace w where w.workspace_id = p_workspace_id;
  delete from delivery d where d.ctid = any (array(select o.ctid from delivery o
    where o.workspace_id = p_workspace_id and o.created_at < v_since order by o.created_at limit p_limit));
  get diagnostics v_deleted = row_count;
  return v_deleted;
end $$;

-- Looks through the next tasks of a workspace for trees that ended long ago and that no open task depends on, and
-- answers their tasks, children first.
create function find_old_tasks(p_workspace_id text, p_limit int) returns setof text language plpgsql as $$
declare
  v_since timestamptz;
  v_walk retention_walk;
begin
  select _kept_since(w.settings, 'task_retention_days', 0) into v_since
    from workspace w where w.workspace_id = p_workspace_id;
  select * into v_walk from retention_walk r where r.workspace_id = p_workspace_id for no key update;
  return query
    with page as materialized (
      select t.task_id, t.created_at, t.parent_task_id, t.closed_at from task t
       where t.workspace_id = p_workspace_id and t.depth > 0 and t.created_at < v_since
         and (t.created_at, t.task_id) > (coalesce(v_walk.created_at, '-infinity'), coalesce(v_walk.task_id, ''))
       order by t.created_at, t.task_id limit p_limit
    ), walked as (
      insert into retention_walk as r (workspace_id, created_at, task_id)
      select p_workspace_id, p.created_at, p.task_id from page p
       order by p.created_at desc, p.task_id desc limit 1
      on conflict (workspace_id) do update set created_at = excluded.created_at, task_id = excluded.task_id
    ), again as (
      delete from retention_walk r where r.workspace_id = p_workspace_id and not exists (select from page)
    )
    select m.task_id::text from page p
      cross join lateral (
        select t.task_id, t.depth, t.status, t.closed_at from task t
         where t.workspace_id = p_workspace_id and t.task_id = p.task_id
        union all
        select t.task_id, t.depth, t.status, t.closed_at from task t
         where t.workspace_id = p_workspace_id and t.root_task_id = p.task_id and t.parent_task_id is not null
      ) m
     where p.parent_task_id is null and p.closed_at < v_since
       and not exists (select from task t
         where t.workspace_id = p_workspace_id and t.root_task_id = p.task_id and t.parent_task_id is not null
           and (t.closed_at < v_since) is not true)
       and not exists (select from (
           select p.task_id
           union all
           select t.task_id from task t where t.workspace_id = p_workspace_id
              and t.root_task_id = p.task_id and t.parent_task_id is not null) n
         cross join lateral (select d.task_id from dependency d where d.workspace_id = p_workspace_id
            and d.depends_on_task_id = n.task_id offset 0) d
         join task w on w.workspace_id = p_workspace_id and w.task_id = d.task_id and w.closed_at is null)
     order by p.created_at, p.task_id, m.depth desc, m.task_id
     limit p_limit;
end $$;

-- Deletes one of those, if it is still old and nothing that is open waits for it: whoever binds a task to it since
-- then was met at its lock. Answers how many were deleted.
create function forget_task(p_workspace_id text, p_cause jsonb, p_task_id text) returns int language plpgsql as $$
declare
  v_task task;
begin
  perform 1 from workspace_lock where workspace_id = p_workspace_id and name = 'edge' for no key update;
  v_task := _lock_with_waiting(p_workspace_id, p_task_id);
  if exists (select from workspace w where w.workspace_id = p_workspace_id
       and v_task.closed_at < _kept_since(w.settings, 'task_retention_days', 0))
     and not exists (select from dependency d
       join task t on t.workspace_id = p_workspace_id and t.task_id = d.task_id and t.closed_at is null
      where d.workspace_id = p_workspace_id and d.depends_on_task_id = p_task_id) then
    perform delete_task(p_workspace_id, p_cause, p_task_id);
    return 1;
  end if;
  return 0;
end $$;
