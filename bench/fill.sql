-- Copies each queued task as often as is asked for (parameter: copies), with all that a claim reads and changes,
-- and leaves out what came before: the log. Columns are not named, so that new ones are copied too. What is behind in
-- the queue has a greater id, as what is made later has.
with wanted as (
  select t.task_id, t.newest_run_id as run_id, i, 'u' || lpad(i::text, 6, '0') || '.' || t.task_id as new_task_id,
         'u' || lpad(i::text, 6, '0') || '.' || t.newest_run_id as new_run_id
    from task t cross join generate_series(1, %(copies)s) i
   where t.status = 'ready' and t.newest_run_id is not null
), tasks as (
  insert into task select n.* from wanted w
    join task o using (task_id)
    cross join lateral jsonb_populate_record(o, jsonb_build_object('task_id', w.new_task_id,
      'root_task_id', w.new_task_id, 'newest_run_id', w.new_run_id)) n
), bodies as (
  insert into task_body select n.* from wanted w
    join task_body o using (task_id)
    cross join lateral jsonb_populate_record(o, jsonb_build_object('task_id', w.new_task_id)) n
), activities as (
  insert into task_activity select n.* from wanted w
    join task_activity o using (task_id)
    cross join lateral jsonb_populate_record(o, jsonb_build_object('task_id', w.new_task_id)) n
), runs as (
  insert into run select n.* from wanted w
    join run o using (run_id)
    cross join lateral jsonb_populate_record(o, jsonb_build_object('task_id', w.new_task_id,
      'run_id', w.new_run_id)) n
)
insert into offer select n.* from wanted w
  join offer o using (run_id)
  cross join lateral jsonb_populate_record(o, jsonb_build_object('task_id', w.new_task_id,
    'run_id', w.new_run_id, 'rank_at', o.rank_at + w.i * interval '1 millisecond')) n
