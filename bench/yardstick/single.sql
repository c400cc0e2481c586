-- One job: a claim and a completion, each one statement, one commit, one event.
with ready as materialized (
  select id from job where state = 0 order by priority desc, available_at, id limit 1 for update skip locked
), claimed as (
  update job set state = 1, attempt = attempt + 1, seq = seq + 1, owner = 'agent',
                 lease_until = clock_timestamp() + interval '5 minutes'
    from ready where job.id = ready.id
  returning job.id, job.attempt, job.seq
), logged as (
  insert into event select id, seq, 'claimed', clock_timestamp(), 'agent', '{}' from claimed
)
select id, attempt from claimed \gset
with completed as (
  update job set state = 2, seq = seq + 1, lease_until = null
   where id = :id and attempt = :attempt and state = 1
  returning id, seq
)
insert into event select id, seq, 'completed', clock_timestamp(), 'agent', '{"ok": true}' from completed;
