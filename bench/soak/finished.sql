-- Copies each task that was completed as often as is asked for, with its runs, leases, events and digests, as if all
-- had been worked on. The log goes on without a gap; columns are read from the catalogue, so that new ones are
-- copied too. To be called with session_replication_role = replica: the copies are whole. Their ids are smaller than
-- those of what is queued, as those of older tasks are.
create function pg_temp.copy_finished(p_copies int) returns bigint language plpgsql as $$
declare
  v_newest bigint;
  v_open int;
  v_events bigint;
  v_table text;
  v_columns text;
begin
  select e.sequence, e.open_tasks into v_newest, v_open from event e order by e.sequence desc limit 1;
  create temp table finished on commit drop as
    select t.task_id, r.run_id from task t join run r using (task_id) where t.status = 'completed';
  create temp table place on commit drop as
    select e.sequence as old, v_newest + row_number() over (order by e.sequence) as new
      from event e where e.task_id in (select f.task_id from finished f);
  create index on place (old);
  select count(*) into v_events from place;
  foreach v_table in array '{task,task_body,task_activity,run,run_body,lease,digest,moment,event}'::text[] loop
    select string_agg(case
             when c.attname in ('task_id', 'root_task_id', 'run_id', 'newest_run_id')
               then format('lpad(i::text, 6, ''0'') || ''_'' || x.%I', c.attname)
             when c.attname = 'open_tasks' then '$3'
             when (v_table, c.attname) in (('event', 'sequence'), ('task_activity', 'sequence'), ('digest', 'activity'))
               then format('(select p.new from place p where p.old = x.%I) + (i - 1) * $2', c.attname)
             else format('x.%I', c.attname) end, ', ' order by c.attnum) into v_columns
      from pg_attribute c where c.attrelid = v_table::regclass and c.attnum > 0 and not c.attisdropped;
    execute format('create temp table source on commit drop as select x.* from %I x where %s', v_table,
      case v_table when 'run_body' then 'x.run_id in (select f.run_id from finished f)'
                   else 'x.task_id in (select f.task_id from finished f)' end);
    execute format('insert into %I select %s from source x cross join generate_series(1, $1) i', v_table, v_columns)
      using p_copies, v_events, v_open;
    drop table source;
  end loop;
  update tally set amount = amount * (1 + p_copies)
   where label in ('task.completed', 'run.completed');
  update digest_position set sequence = v_newest + p_copies * v_events;
  return p_copies * (select count(*) from finished);
end $$
