-- The backlog: every queued run in the order of claims; made after slots.sql.

-- Queued runs without an offer, or with a concurrency key, with the place that they have or would have in the queue.
create function _held_runs(p_workspaces text[])
returns table (workspace_id text, run_id text, task_id text, rank_at timestamptz, paused boolean)
language plpgsql stable as $$
begin
  return query
    select r.workspace_id::text, r.run_id::text, r.task_id::text,
           coalesce(c.rank_at, r.available_at - make_interval(secs => _head_start(w.settings, t.priority))),
           t.paused_by_task_id is not null
      from workspace w
      join run r on r.workspace_id = w.workspace_id and r.due_at is not null
      cross join lateral (select k.priority, k.paused_by_task_id, k.concurrency_key from task k
        where k.workspace_id = r.workspace_id and k.task_id = r.task_id offset 0) t
      left join lateral (select k.rank_at from contender k
        where t.concurrency_key is not null and k.workspace_id = r.workspace_id
          and k.run_id = r.run_id offset 0) c on true
     where w.workspace_id = any (p_workspaces);
end $$;

-- The first runs behind a place in the queue that have an offer: heads of lanes and priorities, merged as a claim does.
create function _offered_runs(p_workspaces text[], p_after_at timestamptz, p_after_id text, p_limit int)
returns table (workspace_id text, run_id text, task_id text, rank_at timestamptz) language plpgsql stable as $$
begin
  return query
    select b.workspace_id::text, o.run_id::text, o.task_id::text, o.rank_at
      from (select l.workspace_id, l.lane_id, p.priority
              from lane l
              cross join unnest('{10,20,30,40}'::smallint[]) p (priority)
              cross join lateral (select o.rank_at, o.run_id from offer o
                where o.workspace_id = l.workspace_id and o.lane_id = l.lane_id and o.priority = p.priority
                  and o.concurrency_key is null and (o.rank_at, o.run_id) > (p_after_at, p_after_id)
                order by o.rank_at, o.run_id limit 1) h
             where l.workspace_id = any (p_workspaces)
             order by h.rank_at, h.run_id limit p_limit) b
      cross join lateral (select o.rank_at, o.run_id, o.task_id from offer o
        where o.workspace_id = b.workspace_id and o.lane_id = b.lane_id and o.priority = b.priority
          and o.concurrency_key is null and (o.rank_at, o.run_id) > (p_after_at, p_after_id)
        order by o.rank_at, o.run_id limit p_limit) o
     order by o.rank_at, o.run_id limit p_limit;
end $$;

-- A page of the backlog of a workspace or of all ('*'), each row with its place, and how many runs there are.
create function read_backlog(
  p_workspace_id text, p_include_paused boolean, p_after_at timestamptz, p_after_id text, p_limit int)
returns table (body text, rank_at timestamptz, run_id text, total bigint) language plpgsql stable as $$
declare
  v_under text[] := _under(p_workspace_id);
  v_total bigint := (select count(*) from offer o
    where o.workspace_id = any (v_under) and o.concurrency_key is null);
begin
  v_total := v_total + (select count(*) from _held_runs(v_under) h where p_include_paused or not h.paused);
  return query
    with found as (
      select f.workspace_id, f.run_id, f.task_id, f.rank_at
        from (select o.* from _offered_runs(v_under, p_after_at, p_after_id, p_limit) o
              union all
              select h.workspace_id, h.run_id, h.task_id, h.rank_at from _held_runs(v_under) h
               where (p_include_paused or not h.paused)
                 and (h.rank_at, h.run_id collate "C") > (p_after_at, p_after_id)) f
       order by f.rank_at, f.run_id collate "C" limit p_limit
    )
    select json_build_object('task', t.body, 'run', _cut_result(r.body))::text, f.rank_at, f.run_id, v_total
      from found f
      cross join lateral (select w.body from task_summary_wire w
        where w.workspace_id = f.workspace_id and w.task_id = f.task_id offset 0) t
      cross join lateral (select w.body from run_wire w
        where w.workspace_id = f.workspace_id and w.run_id = f.run_id offset 0) r
     order by f.rank_at, f.run_id collate "C";
  if not found then
    return query select null, null::timestamptz, null, v_total;
  end if;
end $$;
