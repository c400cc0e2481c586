-- Budgets: what the work on a task may use up. Usage changes under a lease only, and a budget by a patch only, so
-- whether a queued run may have an offer is seen when it is queued, and when its task is patched.

-- What all claims of a task used so far; each lease keeps its own, so a repeated report adds nothing.
create function _used(p_ws text, p_task_id text, out tokens numeric, out cost numeric) language plpgsql stable as $$
begin
  select coalesce(sum(l.input_tokens), 0) + coalesce(sum(l.output_tokens), 0), coalesce(sum(l.total_cost), 0)
    into tokens, cost
    from (select k.run_id from run k where k.workspace_id = p_ws and k.task_id = p_task_id offset 0) r
    cross join lateral (select k.* from lease k
      where k.workspace_id = p_ws and k.run_id = r.run_id offset 0) l;
end $$;

create function _budget_json(p_task task) returns json language sql stable as $$
  select case when p_task.max_total_tokens is not null or p_task.max_cost is not null then json_build_object(
    'max_total_tokens', p_task.max_total_tokens, 'max_cost', p_task.max_cost) end
$$;

-- What is left of a task's budget, and whether that is nothing. Without a budget nothing is looked up.
create function _left(p_task task, out body json, out spent boolean) language plpgsql stable as $$
declare
  v_used record := _used(p_task.workspace_id, p_task.task_id);
begin
  body := json_build_object(
    'total_tokens', case when p_task.max_total_tokens is not null
                         then greatest(p_task.max_total_tokens - v_used.tokens, 0) end,
    'cost', case when p_task.max_cost is not null then greatest(p_task.max_cost - v_used.cost, 0) end);
  spent := coalesce(p_task.max_total_tokens <= v_used.tokens, false) or coalesce(p_task.max_cost <= v_used.cost, false);
end $$;

create function _budget_left(p_task task) returns json language sql stable as $$
  select case when p_task.max_total_tokens is null and p_task.max_cost is null
              then '{"total_tokens": null, "cost": null}' else (_left(p_task)).body end
$$;

create function _is_spent(p_task task) returns boolean language sql stable as $$
  select case when p_task.max_total_tokens is null and p_task.max_cost is null then false
              else (_left(p_task)).spent end
$$;

-- Whether nothing but its time, or a slot, keeps a run of a task from being claimed.
create function _is_free(p_task task, p_run run) returns boolean language sql stable as $$
  select p_run.status = 'queued' and p_task.status = 'ready' and p_task.paused_by_task_id is null
     and not _is_spent(p_task)
$$;
