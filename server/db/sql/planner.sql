-- Planner settings of the transitions, made last of all.
-- Every transition runs on cached generic plans: array parameters would be planned anew at each call, and a
-- queue's statistics are never those of the moment. Each of their statements goes through a key, so hash and merge
-- joins and sequential scans are only ever the wrong guess of an empty table. The settings stand in the
-- functions, not in sessions, and hold in what they call. What was made with settings of its own keeps to those.
do $$
declare
  v_function regprocedure;
begin
  for v_function in
    select p.oid from pg_proc p
     where p.pronamespace = current_schema()::regnamespace and p.prolang = (
       select oid from pg_language where lanname = 'plpgsql') and p.proname not like '\_%' and p.proconfig is null
  loop
    execute format('alter function %s set jit = off', v_function);
    execute format('alter function %s set plan_cache_mode = force_generic_plan', v_function);
    execute format('alter function %s set enable_seqscan = off', v_function);
    execute format('alter function %s set enable_hashjoin = off', v_function);
    execute format('alter function %s set enable_mergejoin = off', v_function);
    execute format('alter function %s set enable_material = off', v_function);
    execute format('alter function %s set enable_memoize = off', v_function);
  end loop;
end $$;
