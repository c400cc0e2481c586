-- A hundred jobs: one statement and commit claims them, one completes them; an event for each transition.
with ready as materialized (
  select id from job where state = 0 order by priority desc, available_at, id limit 100
     for update skip locked
), claimed as (
  update job set state = 1, attempt = attempt + 1, seq = seq + 1, owner = 'agent',
                 lease_until = clock_timestamp() + interval '5 minutes'
   where id = any (array(select id from ready))
  returning job.id, job.attempt, job.seq
), logged as (
  insert into event select id, seq, 'claimed', clock_timestamp(), 'agent', '{}' from claimed
)
select array_agg(id) as ids, array_agg(attempt) as attempts from claimed \gset
with completed as (
  -- state + 0: no index on what is about to change serves this.
  update job set state = 2, seq = seq + 1, lease_until = null
    from unnest(:ids::bigint[], :attempts::int[]) held (id, attempt)
   where job.id = held.id and job.attempt = held.attempt and state + 0 = 1
  returning job.id, job.seq
)
insert into event select id, seq, 'completed', clock_timestamp(), 'agent', '{"ok": true}' from completed;
