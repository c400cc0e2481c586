-- What the same work costs without a server: one row a job, one row a transition, nothing else.
create table job (
  id bigint primary key,
  priority smallint not null,
  state smallint not null,
  attempt int not null,
  seq int not null,
  available_at timestamptz not null,
  lease_until timestamptz,
  owner text,
  payload jsonb not null) with (fillfactor = 70);
create index job_ready on job (priority desc, available_at, id) where state = 0;
create index job_leased on job (lease_until) where state = 1;

create table event (
  task_id bigint,
  seq int,
  kind text not null,
  at timestamptz not null,
  actor text not null,
  data jsonb not null,
  primary key (task_id, seq));

insert into job
select i, 20, 0, 0, 0, timestamptz '2026-01-01' + i * interval '1 ms', null, null,
       '{"prompt": "do what is to be done"}'
  from generate_series(1, 150000) i;
vacuum analyze job;
checkpoint;
