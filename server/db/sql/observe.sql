-- What operators look at, made after wire.sql.

-- At least one heartbeat at the right interval was missed.
create function _is_stuck(p_status text, p_lease lease, p_now timestamptz) returns boolean
language sql stable as $$
  select coalesce(_is_leased(p_status)
    and p_now - p_lease.heartbeat_at > make_interval(secs => p_lease.lease_seconds / 2.0), false)
$$;

create function _run_fits(
  p_run run, p_lease lease, p_status text[], p_agent_name text, p_session_id text, p_stuck boolean,
  p_now timestamptz) returns boolean language sql stable as $$
  select (p_status is null or p_run.status = any (p_status))
     and (p_agent_name is null or p_lease.agent_name = p_agent_name)
     and (p_session_id is null or _is_held(p_lease) and p_lease.session_id = p_session_id)
     and (p_stuck is null or p_stuck = _is_stuck(p_run.status, p_lease, p_now))
$$;

-- A node of a tree, p_depth below its root.
create function _tree_node(p_ws text, p_task_id text, p_depth int) returns json language sql stable as $$
  select json_build_object(
    'task', _task_reference_json(t, a.sequence), 'parent_task_id', t.parent_task_id, 'depth', p_depth,
    'child_count', (select count(*) from task c where c.workspace_id = p_ws and c.parent_task_id = p_task_id),
    'active_run', (select _run_summary(r.body::jsonb) from run_wire r
       where r.workspace_id = p_ws and r.run_id = t.newest_run_id and _is_open(r.status)),
    'last_activity_at', _utc(greatest(t.created_at, t.updated_at, a.at)))
    from task t
    left join task_activity a on a.workspace_id = p_ws and a.task_id = p_task_id
   where t.workspace_id = p_ws and t.task_id = p_task_id
$$;

-- A task and what is below it, level by level, until p_limit descendants are found; null: there is no such task.
create function read_tree(p_workspace_id text, p_task_id text, p_limit int) returns text
language plpgsql stable as $$
declare
  v_level text[] := array[p_task_id];
  v_ids text[] := '{}';
  v_depths int[] := '{}';
  v_depth int := 0;
  v_root json := _tree_node(p_workspace_id, p_task_id, 0);
begin
  while v_root is not null and cardinality(v_level) > 0 and cardinality(v_ids) <= p_limit loop
    v_depth := v_depth + 1;
    v_level := array(
      select c.task_id
        from unnest(v_level) x (task_id)
        cross join lateral (select k.task_id, k.created_at, k.updated_at from task k
          where k.workspace_id = p_workspace_id and k.parent_task_id = x.task_id offset 0) c
        left join lateral (select k.at from task_activity k
          where k.workspace_id = p_workspace_id and k.task_id = c.task_id offset 0) a on true
       order by greatest(c.created_at, c.updated_at, a.at) desc, c.task_id);
    v_ids := v_ids || v_level;
    v_depths := v_depths || array_fill(v_depth, array[cardinality(v_level)]);
  end loop;
  return json_build_object('root', v_root, 'descendants', (
    select coalesce(json_agg(_tree_node(p_workspace_id, x.task_id, x.depth) order by x.place), '[]')
      from unnest(v_ids[:p_limit], v_depths[:p_limit]) with ordinality x (task_id, depth, place)),
    'truncated', cardinality(v_ids) > p_limit)::text
   where v_root is not null;
end $$;

-- Whether the walk of a graph ended only because it had gone far enough.
create function _beyond(p_ws text, p_up text[], p_down text[], p_seen text[]) returns setof text
language sql stable as $$
  (select d.depends_on_task_id from dependency d
    where d.workspace_id = p_ws and d.task_id = any (p_up) and d.depends_on_task_id <> all (p_seen) limit 1)
  union all
  (select d.task_id from dependency d
    where d.workspace_id = p_ws and d.depends_on_task_id = any (p_down) and d.task_id <> all (p_seen) limit 1)
$$;

-- What a task waits for and what waits for it, breadth first; null: there is no such task.
create function read_graph(
  p_workspace_id text, p_task_id text, p_up boolean, p_down boolean, p_depth int, p_limit int) returns text
language plpgsql stable as $$
declare
  v_ids text[] := array[p_task_id];
  v_distances int[] := array[0];
  v_up text[] := case when p_up then array[p_task_id] else '{}' end;
  v_down text[] := case when p_down then array[p_task_id] else '{}' end;
  v_distance int := 0;
begin
  if not exists (select from task t where t.workspace_id = p_workspace_id and t.task_id = p_task_id) then
    return null;
  end if;
  while v_distance < p_depth and cardinality(v_up) + cardinality(v_down) > 0 and cardinality(v_ids) <= p_limit loop
    v_distance := v_distance + 1;
    v_up := array(select distinct d.depends_on_task_id from unnest(v_up) x (task_id)
      cross join lateral (select k.depends_on_task_id from dependency k
        where k.workspace_id = p_workspace_id and k.task_id = x.task_id offset 0) d
      where d.depends_on_task_id <> all (v_ids) order by 1);
    v_down := array(select distinct d.task_id from unnest(v_down) x (task_id)
      cross join lateral (select k.task_id from dependency k
        where k.workspace_id = p_workspace_id and k.depends_on_task_id = x.task_id offset 0) d
      where d.task_id <> all (v_ids) order by 1);
    v_ids := v_ids || v_up || v_down;
    v_distances := v_distances || array_fill(-v_distance, array[cardinality(v_up)])
      || array_fill(v_distance, array[cardinality(v_down)]);
  end loop;
  return json_build_object('root_id', p_task_id,
    'nodes', (select json_agg(_merge(t.body, json_build_object('distance', x.distance)) order by x.place)
      from unnest(v_ids[:p_limit], v_distances[:p_limit]) with ordinality x (task_id, distance, place)
      cross join lateral (select w.body from task_reference_wire w
        where w.workspace_id = p_workspace_id and w.task_id = x.task_id offset 0) t),
    'edges', (select coalesce(json_agg(json_build_object('task_id', d.task_id,
        'depends_on_task_id', d.depends_on_task_id, 'kind', 'blocks', 'satisfied', d.satisfied)
        order by d.task_id, d.depends_on_task_id), '[]')
      from unnest(v_ids[:p_limit]) x (task_id)
      cross join lateral (select k.* from dependency k
        where k.workspace_id = p_workspace_id and k.task_id = x.task_id offset 0) d
      where d.depends_on_task_id = any (v_ids[:p_limit])),
    'truncated', cardinality(v_ids) > p_limit or cardinality(v_up) + cardinality(v_down) > 0
      and v_distance = p_depth and exists (select from _beyond(p_workspace_id, v_up, v_down, v_ids)),
    'as_of', _utc(lease_now()))::text;
end $$;

-- What decides whether a run of a task can be claimed, at one instant: the gates that are closed, and what the task
-- demands of a claimer.
create view claim_facts as
select t.workspace_id, t.task_id, json_build_object(
         'task_id', t.task_id, 'run_id', case when _is_open(r.status) then r.run_id end, 'priority', t.priority,
         'gates', (select coalesce(json_agg(json_build_object('code', g.code, 'message', g.message,
             'evidence', g.evidence) order by g.rule), '[]') from _gates(t, r::run, x.now) g),
         'demands', coalesce(n.demands, _demands(t.owner_kind, t.owner_ref, t.network_channel, p.profile)),
         'as_of', _utc(x.now)) as body
  from task t
  cross join lateral (select lease_now() as now offset 0) x
  left join lateral (select k.* from run k
    where k.workspace_id = t.workspace_id and k.run_id = t.newest_run_id offset 0) r on true
  left join lane n on n.workspace_id = t.workspace_id and n.lane_id = r.lane_id and r.status = 'queued'
  left join execution_profile p on p.workspace_id = t.workspace_id and p.task_id = t.task_id;
