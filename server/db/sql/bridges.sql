-- Bridges: where the log is sent to, who subscribed to what of it, and every attempt to deliver.
--
-- The life of a delivery
--
--   event logged ──> follow_log: cursor due ──> take_deliveries: attempt made, cursor held ──> the server sends
--                                                  ^                                               │
--                         due again by the ladder  │          delivered or dead: the cursor moves  v
--                                                  └────────────── finish_delivery <────────────────
--
-- A cursor is due (look or try), or idle (due_at null: nothing up to the log's end is to be sent). While an
-- attempt is under way, due_at is the time until which its server holds the cursor: one that dies holds it no
-- longer, and the same event is sent again. No connection is held while a server waits for a receiver.
-- Locks: bridge, then cursors, then (in a transition of a task, after its task row) the log lock.

create table bridge (
  workspace_id word references workspace,
  bridge_id word,
  name word not null,
  url text not null,
  enabled boolean not null,
  disabled_reason text,
  secret text not null,                      -- encrypted by the server
  previous_secret text,                      -- signs beside it until previous_until
  previous_until timestamptz,
  workspace_event_types text[],
  created_by_kind word not null,
  created_by_ref text not null,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  last_delivered_at timestamptz,
  last_error text,
  version int not null default 1,
  primary key (workspace_id, bridge_id));
create unique index bridge_name on bridge (name, workspace_id);

create table subscription (
  workspace_id word,
  subscription_id word,
  task_id word not null,
  bridge_id word not null,
  peer_id text,
  thread_id text,
  group_id text,
  delivery_mode word not null,
  event_types text[],                        -- null: finals
  created_by_kind word not null,
  created_by_ref text not null,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  primary key (workspace_id, subscription_id),
  foreign key (workspace_id, task_id) references task on delete cascade,
  foreign key (workspace_id, bridge_id) references bridge);
create index subscription_task on subscription (task_id, created_at, subscription_id, workspace_id);
create index subscription_bridge on subscription (bridge_id, workspace_id);

-- How far a consumer has been told; it outlives its subscription.
create table delivery_cursor (
  workspace_id word references workspace,
  consumer_id word,
  subject_id word,
  bridge_id word,                            -- null: the subscription is gone, and may come back
  subscription_id word,                      -- null: of the bridge's workspace_event_types
  task_id word,
  last_sequence bigint not null default 0,   -- moves when an event is delivered or dead
  last_delivery_id word,
  last_delivered_at timestamptz,
  last_error text,
  updated_at timestamptz not null,
  looked_to bigint not null default 0,       -- up to here nothing is left to send
  next_sequence bigint,                      -- the event that is being delivered,
  attempt int not null default 0,            -- for the how manieth time,
  delivery_id word,                          -- and the attempt that holds the cursor
  due_at timestamptz,
  primary key (workspace_id, consumer_id, subject_id),
  foreign key (workspace_id, task_id) references task on delete cascade
) with (fillfactor = 80);
create index delivery_cursor_due on delivery_cursor (due_at, workspace_id) where due_at is not null;
create index delivery_cursor_task on delivery_cursor (task_id, workspace_id) where task_id is not null;
create index delivery_cursor_bridge on delivery_cursor (bridge_id, workspace_id) where bridge_id is not null;

-- Each attempt. No foreign key: attempts are kept as long as the workspace says.
create table delivery (
  workspace_id word,
  delivery_id word,
  bridge_id word not null,
  subscription_id word,
  consumer_id word not null,
  subject_id word not null,
  message_id text not null,
  sequence bigint not null,
  event_type word not null,
  task_id word,
  attempt int not null,
  status word not null,                      -- pending delivered failed dead suppressed
  http_status int,
  error text,
  duration_ms int,
  next_attempt_at timestamptz,
  created_at timestamptz not null,
  finished_at timestamptz,
  primary key (workspace_id, delivery_id));
create index delivery_list on delivery (bridge_id, created_at, delivery_id, workspace_id);
create index delivery_age on delivery (created_at, workspace_id);

-- How far the log of a workspace was read for events that somebody subscribed to.
create table bridge_feed (workspace_id word primary key references workspace, position bigint not null);

-- ══ On the wire ═════════════════════════════════════════════════════════════════════════════════════════════

create view bridge_wire as
select b.workspace_id, b.bridge_id, b.version, (select to_json(w) from (select
         b.bridge_id as id, b.name, b.url, b.enabled, b.disabled_reason,
         _actor(b.created_by_kind, b.created_by_ref) as created_by, _utc(b.created_at) as created_at,
         _utc(b.updated_at) as updated_at, _utc(b.last_delivered_at) as last_delivered_at, b.last_error,
         b.workspace_event_types, b.version) w) as body
  from bridge b;

create view subscription_wire as
select s.workspace_id, s.subscription_id, s.task_id, s.bridge_id, s.created_at, (select to_json(w) from (select
         s.subscription_id, s.task_id, s.bridge_id as bridge_instance_id, t.scope,
         case when t.scope = 'workspace' then s.workspace_id end as workspace_id, s.peer_id, s.thread_id,
         s.group_id, s.delivery_mode, s.event_types, (select to_json(x) from (select
           c.consumer_id, 'task_events' as stream_name, c.subject_id, c.last_sequence, c.last_delivery_id,
           _utc(c.last_delivered_at) as last_delivered_at, c.last_error, _utc(c.updated_at) as updated_at) x)
           as cursor,
         _actor(s.created_by_kind, s.created_by_ref) as created_by, _utc(s.created_at) as created_at,
         _utc(s.updated_at) as updated_at) w) as body
  from subscription s
  join task t on t.workspace_id = s.workspace_id and t.task_id = s.task_id
  join delivery_cursor c on c.workspace_id = s.workspace_id
   and c.consumer_id = 'bridge_task_subscription:' || s.subscription_id and c.subject_id = s.task_id;

create view delivery_wire as
select d.workspace_id, d.delivery_id, d.bridge_id, d.subscription_id, d.status, d.created_at,
       (select to_json(w) from (select
         d.delivery_id as id, d.bridge_id as bridge_instance_id, d.subscription_id, d.message_id, d.sequence,
         d.event_type, d.task_id, d.attempt, d.status, d.http_status, d.error, d.duration_ms,
         _utc(d.next_attempt_at) as next_attempt_at, _utc(d.created_at) as created_at,
         _utc(d.finished_at) as finished_at) w) as body
  from delivery d;

create function _bridge_answer(p_ws text, p_bridge_id text, out body text, out version int) language plpgsql as $$
begin
  select json_build_object('bridge', b.body)::text, b.version into body, version from bridge_wire b
   where b.workspace_id = p_ws and b.bridge_id = p_bridge_id;
  if not found then
    perform _refuse('bridge_not_found', jsonb_build_object('id', p_bridge_id));
  end if;
end $$;

-- ══ Bridges ═════════════════════════════════════════════════════════════════════════════════════════════════

-- The wanted types as they are kept: each once, sorted; null stays null.
create function _event_types(p_given jsonb) returns text[] language sql stable as $$
  select case when jsonb_typeof(p_given) = 'array'
              then array(select distinct t from jsonb_array_elements_text(p_given) t order by t) end
$$;

-- The newest sequence of a log; 0 before the first.
create function _newest_event(p_ws text) returns bigint language sql stable as $$
  select coalesce((select e.sequence from event e where e.workspace_id = p_ws
                    order by e.sequence desc limit 1), 0)
$$;

-- From here on the log of the workspace is read for subscribers; what was before, a new cursor looks for itself.
create function _feed(p_ws text) returns void language sql as $$
  insert into bridge_feed values (p_ws, _newest_event(p_ws)) on conflict do nothing
$$;

-- Begins (p_begin) or ends to send events of the whole workspace; the log lock is held, so `now` is exact.
create function _follow_workspace(p_ws text, p_bridge_id text, p_begin boolean, p_now timestamptz) returns void
language plpgsql as $$
begin
  perform _feed(p_ws);
  delete from delivery_cursor c where c.workspace_id = p_ws and c.consumer_id = 'bridge:' || p_bridge_id;
  if p_begin then
    insert into delivery_cursor (workspace_id, consumer_id, subject_id, bridge_id, last_sequence, looked_to,
                                 updated_at)
    values (p_ws, 'bridge:' || p_bridge_id, p_ws, p_bridge_id, _newest_event(p_ws), _newest_event(p_ws), p_now);
  end if;
end $$;

create function create_bridge(
  p_workspace_id text, p_cause jsonb, p_key text, p_hash text, p_new jsonb,
  out body text, out version int, out replayed boolean)
language plpgsql as $$
declare
  v_cause cause := _cause(p_cause);
  v_kept idempotency_key := _take_key(p_workspace_id, v_cause, p_key, p_hash);
  v_now timestamptz := lease_now();
  v_id text := coalesce(v_kept.ids ->> 'bridge_id', p_new ->> 'id');
begin
  replayed := v_kept.key is not null;
  if not replayed then
    insert into bridge (workspace_id, bridge_id, name, url, enabled, secret, workspace_event_types,
                        created_by_kind, created_by_ref, created_at, updated_at)
    values (p_workspace_id, v_id, p_new ->> 'name', p_new ->> 'url', (p_new ->> 'enabled')::boolean,
            p_new ->> 'secret', _event_types(p_new -> 'workspace_event_types'), v_cause.actor_kind,
            v_cause.actor_ref, v_now, v_now)
    on conflict (name, workspace_id) do nothing;
    if not found then
      perform _refuse('bridge_exists', jsonb_build_object('name', p_new -> 'name'));
    end if;
    perform _keep_key(p_workspace_id, v_cause, p_key, p_hash, 201, jsonb_build_object('bridge_id', v_id));
    perform _log(p_workspace_id, v_now, array[_event(v_cause, 'bridge.created', null, null,
      jsonb_build_object('bridge_instance_id', v_id, 'changed_fields', null, 'reason', null))]);
    if jsonb_typeof(p_new -> 'workspace_event_types') = 'array' then
      perform _follow_workspace(p_workspace_id, v_id, true, v_now);
    end if;
  end if;
  select * into body, version from _bridge_answer(p_workspace_id, v_id);
end $$;

-- Changes the fields that p_changes names. `secret`: a new one, the old one signs too for 24 hours more.
-- Enabling goes on at once from where each cursor stands.
create function patch_bridge(
  p_workspace_id text, p_cause jsonb, p_bridge_id text, p_version int, p_changes jsonb,
  out body text, out version int)
language plpgsql as $$
declare
  v_now timestamptz;
  v_cause cause := _cause(p_cause);
  v_old bridge;
  v_new bridge;
  v_changed text[];
begin
  select * into v_old from bridge b
   where b.workspace_id = p_workspace_id and b.bridge_id = p_bridge_id for no key update;
  if not found then
    perform _refuse('bridge_not_found', jsonb_build_object('id', p_bridge_id));
  end if;
  if p_version <> v_old.version then
    perform _refuse('version_mismatch', jsonb_build_object('version', v_old.version));
  end if;
  v_now := lease_now();
  v_new := v_old;
  v_new.name := coalesce(p_changes ->> 'name', v_old.name);
  v_new.url := coalesce(p_changes ->> 'url', v_old.url);
  v_new.enabled := coalesce((p_changes ->> 'enabled')::boolean, v_old.enabled);
  if p_changes ? 'workspace_event_types' then
    v_new.workspace_event_types := _event_types(p_changes -> 'workspace_event_types');
  end if;
  v_changed := array_remove(array[
    case when v_new.enabled <> v_old.enabled then 'enabled' end,
    case when v_new.name <> v_old.name then 'name' end,
    case when p_changes ? 'secret' then 'signing_secret' end,
    case when v_new.url <> v_old.url then 'url' end,
    case when v_new.workspace_event_types is distinct from v_old.workspace_event_types
         then 'workspace_event_types' end], null);
  if cardinality(v_changed) > 0 then
    begin
      update bridge b
         set name = v_new.name, url = v_new.url, enabled = v_new.enabled,
             disabled_reason = case when not v_new.enabled then b.disabled_reason end,
             workspace_event_types = v_new.workspace_event_types,
             secret = coalesce(p_changes ->> 'secret', b.secret),
             previous_secret = case when p_changes ? 'secret' then b.secret else b.previous_secret end,
             previous_until = case when p_changes ? 'secret' then v_now + interval '24 hours'
                                   else b.previous_until end,
             version = b.version + 1, updated_at = v_now
       where b.workspace_id = p_workspace_id and b.bridge_id = p_bridge_id;
    exception when unique_violation then
      perform _refuse('bridge_exists', jsonb_build_object('name', v_new.name));
    end;
    if v_new.enabled and not v_old.enabled then
      update delivery_cursor c set due_at = v_now, attempt = 0
       where c.workspace_id = p_workspace_id and c.bridge_id = p_bridge_id;
    end if;
    perform _log(p_workspace_id, v_now, array[_event(v_cause, 'bridge.updated', null, null,
      jsonb_build_object('bridge_instance_id', p_bridge_id, 'changed_fields', v_changed, 'reason', null))]);
    if (v_new.workspace_event_types is null) <> (v_old.workspace_event_types is null) then
      perform _follow_workspace(p_workspace_id, p_bridge_id, v_new.workspace_event_types is not null, v_now);
    end if;
  end if;
  select * into body, version from _bridge_answer(p_workspace_id, p_bridge_id);
end $$;

-- Its subscriptions go with it; their cursors and the attempts stay.
create function delete_bridge(p_workspace_id text, p_cause jsonb, p_bridge_id text) returns void
language plpgsql as $$
declare
  v_cause cause := _cause(p_cause);
  v_events new_event[];
begin
  perform 1 from bridge b
    where b.workspace_id = p_workspace_id and b.bridge_id = p_bridge_id for update;
  if not found then
    perform _refuse('bridge_not_found', jsonb_build_object('id', p_bridge_id));
  end if;
  with gone as (
    delete from subscription s where s.workspace_id = p_workspace_id and s.bridge_id = p_bridge_id
    returning s.task_id, s.subscription_id
  )
  select array_agg(_event(v_cause, 'task.subscription_deleted', g.task_id, null, jsonb_build_object(
           'subscription_id', g.subscription_id, 'bridge_instance_id', p_bridge_id)) order by g.subscription_id)
    into v_events from gone g;
  delete from delivery_cursor c
   where c.workspace_id = p_workspace_id and c.consumer_id = 'bridge:' || p_bridge_id;
  update delivery_cursor c set bridge_id = null, delivery_id = null, next_sequence = null, due_at = null
   where c.workspace_id = p_workspace_id and c.bridge_id = p_bridge_id;
  delete from bridge b where b.workspace_id = p_workspace_id and b.bridge_id = p_bridge_id;
  perform _log(p_workspace_id, lease_now(), coalesce(v_events, '{}') || _event(v_cause, 'bridge.deleted', null,
    null, jsonb_build_object('bridge_instance_id', p_bridge_id, 'changed_fields', null, 'reason', null)));
end $$;

-- ══ Subscriptions ═══════════════════════════════════════════════════════════════════════════════════════════

-- What a subscription says about its task must be true of it.
create function _check_subscription(p_ws text, p_task task, p_new jsonb) returns void language plpgsql as $$
declare
  v_field text := case when p_new ->> 'scope' <> p_task.scope then 'scope'
                       when p_new ->> 'workspace_id' <> p_ws then 'workspace_id' end;
begin
  if v_field is not null then
    perform _refuse_field(v_field, 'match', 'must match the task');
  end if;
end $$;

-- Makes a subscription, or replaces the one with this id; its cursor goes on where it was.
create function create_subscription(
  p_workspace_id text, p_cause jsonb, p_key text, p_hash text, p_task_id text, p_new jsonb,
  out body text, out status int, out replayed boolean)
language plpgsql as $$
declare
  v_now timestamptz;
  v_cause cause := _cause(p_cause);
  v_kept idempotency_key := _take_key(p_workspace_id, v_cause, p_key, p_hash);
  v_id text := coalesce(v_kept.ids ->> 'subscription_id', p_new ->> 'subscription_id');
  v_task task;
  v_other text;
begin
  replayed := v_kept.key is not null;
  status := v_kept.status;
  if not replayed then
    v_task := _lock_task(p_workspace_id, p_task_id);
    perform _check_subscription(p_workspace_id, v_task, p_new);
    perform 1 from bridge b
      where b.workspace_id = p_workspace_id and b.bridge_id = p_new ->> 'bridge_instance_id' for key share;
    if not found then
      perform _refuse('bridge_not_found', jsonb_build_object('id', p_new -> 'bridge_instance_id'));
    end if;
    v_now := lease_now();
    insert into subscription as s (workspace_id, subscription_id, task_id, bridge_id, peer_id, thread_id,
      group_id, delivery_mode, event_types, created_by_kind, created_by_ref, created_at, updated_at)
    values (p_workspace_id, v_id, p_task_id, p_new ->> 'bridge_instance_id', p_new ->> 'peer_id',
      p_new ->> 'thread_id', p_new ->> 'group_id', p_new ->> 'delivery_mode',
      _event_types(p_new -> 'event_types'), v_cause.actor_kind, v_cause.actor_ref, v_now, v_now)
    on conflict (workspace_id, subscription_id) do update
      set bridge_id = excluded.bridge_id, peer_id = excluded.peer_id, thread_id = excluded.thread_id,
          group_id = excluded.group_id, delivery_mode = excluded.delivery_mode,
          event_types = excluded.event_types, updated_at = excluded.updated_at
      where s.task_id = excluded.task_id
    returning case when s.xmax = 0 then 201 else 200 end into status;
    if status is null then
      perform _refuse('subscription_exists', jsonb_build_object('id', v_id));
    end if;
    perform _feed(p_workspace_id);
    insert into delivery_cursor as c (workspace_id, consumer_id, subject_id, bridge_id, subscription_id, task_id,
                                      updated_at, due_at)
    values (p_workspace_id, 'bridge_task_subscription:' || v_id, p_task_id, p_new ->> 'bridge_instance_id', v_id,
            p_task_id, v_now, v_now)
    on conflict (workspace_id, consumer_id, subject_id) do update
      set bridge_id = excluded.bridge_id, looked_to = c.last_sequence, next_sequence = null, attempt = 0,
          delivery_id = null, due_at = v_now, updated_at = v_now;
    perform _keep_key(p_workspace_id, v_cause, p_key, p_hash, status, jsonb_build_object('subscription_id', v_id));
    perform _log(p_workspace_id, v_now, array[_event(v_cause, 'task.subscription_created', p_task_id, null,
      jsonb_build_object('subscription_id', v_id, 'bridge_instance_id', p_new -> 'bridge_instance_id'))]);
  end if;
  select json_build_object('subscription', s.body)::text into body from subscription_wire s
   where s.workspace_id = p_workspace_id and s.subscription_id = v_id and s.task_id = p_task_id;
  if not found then
    perform _refuse('subscription_not_found', jsonb_build_object('id', v_id));
  end if;
end $$;

create function delete_subscription(p_workspace_id text, p_cause jsonb, p_task_id text, p_subscription_id text)
returns void language plpgsql as $$
declare
  v_cause cause := _cause(p_cause);
  v_bridge_id text;
begin
  perform _lock_task(p_workspace_id, p_task_id);
  delete from subscription s where s.workspace_id = p_workspace_id and s.subscription_id = p_subscription_id
    and s.task_id = p_task_id returning s.bridge_id into v_bridge_id;
  if not found then
    perform _refuse('subscription_not_found', jsonb_build_object('id', p_subscription_id));
  end if;
  update delivery_cursor c set bridge_id = null, delivery_id = null, next_sequence = null, due_at = null
   where c.workspace_id = p_workspace_id and c.consumer_id = 'bridge_task_subscription:' || p_subscription_id
     and c.subject_id = p_task_id;
  perform _log(p_workspace_id, lease_now(), array[_event(v_cause, 'task.subscription_deleted', p_task_id, null,
    jsonb_build_object('subscription_id', p_subscription_id, 'bridge_instance_id', v_bridge_id))]);
end $$;

-- ══ Deliveries ══════════════════════════════════════════════════════════════════════════════════════════════

-- Whether an event is one that its task ends with, or stops with. Of several that one transition logged it is
-- the first. Where retention took the one before it, its type decides.
create function _is_final(p_event event) returns boolean language sql stable as $$
  select case
    when p_event.event_type = 'task.run_needs_attention' then true
    when not coalesce(_has_ended(p_event.payload ->> 'task_status'), false) then false
    else coalesce(
      (select b.payload ->> 'task_status' from event b
        where b.workspace_id = p_event.workspace_id and b.task_id = p_event.task_id
          and b.sequence < p_event.sequence order by b.sequence desc limit 1)
        <> (p_event.payload ->> 'task_status'),
      p_event.event_type in ('task.created', 'task.canceled', 'task.rejected', 'task.status_changed')
        or p_event.event_type like 'task.run\_%') end
$$;

-- Reads on in the log of a workspace and makes the cursors due that its events may concern; how many events.
create function follow_log(p_workspace_id text, p_limit int) returns int language plpgsql as $$
declare
  v_from bigint;
  v_upto bigint;
  v_now timestamptz := lease_now();
begin
  select f.position into v_from from bridge_feed f
   where f.workspace_id = p_workspace_id for no key update skip locked;
  if not found then
    return 0;
  end if;
  -- A cursor that is due already is written all the same: whoever holds it may be about to find nothing.
  with page as materialized (
    select e.sequence, e.task_id, e.event_type, e.payload ->> 'task_status' as task_status from event e
     where e.workspace_id = p_workspace_id and e.sequence > v_from order by e.sequence limit p_limit
  ), told as materialized (
    select distinct s.task_id as subject_id, 'bridge_task_subscription:' || s.subscription_id as consumer_id
      from page p
      cross join lateral (select s.* from subscription s where s.workspace_id = p_workspace_id
         and s.task_id = p.task_id offset 0) s
      join bridge b on b.workspace_id = p_workspace_id and b.bridge_id = s.bridge_id and b.enabled
     where case when s.event_types is null
                then p.event_type = 'task.run_needs_attention' or _has_ended(p.task_status)
                else p.event_type = any (s.event_types) end
    union
    select p_workspace_id, 'bridge:' || b.bridge_id
      from page p
      join bridge b on b.workspace_id = p_workspace_id and b.enabled
       and p.event_type = any (b.workspace_event_types)
  ), woken as (
    update delivery_cursor c set due_at = coalesce(c.due_at, v_now)
      from told t
     where c.workspace_id = p_workspace_id and c.consumer_id = t.consumer_id and c.subject_id = t.subject_id
       and c.bridge_id is not null
  ), idle as (
    -- Where the whole log is the subject, what was read here need not be read again.
    update delivery_cursor c set looked_to = greatest(c.looked_to, (select max(p.sequence) from page p))
      from bridge b
     where b.workspace_id = p_workspace_id and b.workspace_event_types is not null and b.enabled
       and c.workspace_id = p_workspace_id and c.consumer_id = 'bridge:' || b.bridge_id
       and c.subject_id = p_workspace_id and c.due_at is null
       and not exists (select from told t where t.consumer_id = c.consumer_id)
       and exists (select from page)
  )
  select max(p.sequence) into v_upto from page p;
  update bridge_feed f set position = v_upto where f.workspace_id = p_workspace_id and v_upto is not null;
  return coalesce(v_upto - v_from, 0);
end $$;

-- The next event for a cursor; null: none. p_upto: how far was looked; p_more: there is more to look at.
create function _next_event(
  p_cursor delivery_cursor, p_types text[], out sequence bigint, out upto bigint, out more boolean)
language plpgsql as $$
begin
  more := false;
  if p_cursor.task_id is not null then
    select _newest_event(p_cursor.workspace_id), (
        select e.sequence from event e
         where e.workspace_id = p_cursor.workspace_id and e.task_id = p_cursor.task_id
           and e.sequence > p_cursor.looked_to
           and case when p_types is null then _is_final(e) else e.event_type = any (p_types) end
         order by e.sequence limit 1)
      into upto, sequence;
  else
    select max(p.sequence), count(*) = 10000, min(p.sequence) filter (where p.event_type = any (p_types))
      into upto, more, sequence
      from (select e.sequence, e.event_type from event e
             where e.workspace_id = p_cursor.workspace_id and e.sequence > p_cursor.looked_to
             order by e.sequence limit 10000) p;
  end if;
end $$;

-- What is sent: the body, and what the sender needs to sign it.
create function _message(p_bridge bridge, p_delivery delivery, p_now timestamptz) returns text
language sql stable as $$
  select json_build_object('workspace_id', p_delivery.workspace_id, 'delivery_id', p_delivery.delivery_id,
    'bridge_id', p_bridge.bridge_id, 'message_id', p_delivery.message_id, 'url', p_bridge.url,
    'secrets', case when p_bridge.previous_until > p_now then array[p_bridge.secret, p_bridge.previous_secret]
                    else array[p_bridge.secret] end,
    'at', extract(epoch from p_now)::bigint,
    'body', (select json_build_object('type', e.event_type, 'timestamp', _utc(e.at), 'data', json_build_object(
        'sequence', e.sequence, 'type', e.event_type, 'timeline', t.body,
        'subscription', (select json_build_object('subscription_id', s.subscription_id, 'bridge_instance_id',
             s.bridge_id, 'delivery_mode', s.delivery_mode, 'peer_id', s.peer_id, 'thread_id', s.thread_id,
             'group_id', s.group_id)
           from subscription s where s.workspace_id = e.workspace_id
            and s.subscription_id = p_delivery.subscription_id)))::text
      from event e join timeline_wire t on t.workspace_id = e.workspace_id and t.sequence = e.sequence
     where e.workspace_id = p_delivery.workspace_id and e.sequence = p_delivery.sequence))::text
$$;

-- Begins the next attempt of a locked cursor, which is held for so long; null: there is nothing to send.
create function _next_delivery(p_cursor delivery_cursor, p_now timestamptz, p_hold_seconds int) returns text
language plpgsql as $$
declare
  v_bridge bridge;
  v_delivery delivery;
  v_sequence bigint;
  v_upto bigint;
  v_more boolean;
begin
  select * into v_bridge from bridge b
   where b.workspace_id = p_cursor.workspace_id and b.bridge_id = p_cursor.bridge_id and b.enabled;
  -- Who held the cursor until now did not come back.
  update delivery d set status = 'failed', finished_at = p_now,
         error = 'the server that made this attempt did not come back'
   where d.workspace_id = p_cursor.workspace_id and d.delivery_id = p_cursor.delivery_id and d.status = 'pending';
  if v_bridge.bridge_id is not null then
    select n.sequence, n.upto, n.more into v_sequence, v_upto, v_more
      from _next_event(p_cursor, case when p_cursor.subscription_id is null
        then v_bridge.workspace_event_types
        else (select s.event_types from subscription s where s.workspace_id = p_cursor.workspace_id
                 and s.subscription_id = p_cursor.subscription_id) end) n;
  end if;
  if v_sequence is null then
    -- Idle, or parked until the bridge is enabled again.
    update delivery_cursor c
       set looked_to = greatest(c.looked_to, v_upto), next_sequence = null, attempt = 0, delivery_id = null,
           due_at = case when v_more then p_now end
     where c.workspace_id = p_cursor.workspace_id and c.consumer_id = p_cursor.consumer_id
       and c.subject_id = p_cursor.subject_id;
    return null;
  end if;
  insert into delivery (workspace_id, delivery_id, bridge_id, subscription_id, consumer_id, subject_id,
                        message_id, sequence, event_type, task_id, attempt, status, created_at)
  select p_cursor.workspace_id, _new_id('dlv'), p_cursor.bridge_id, p_cursor.subscription_id,
         p_cursor.consumer_id, p_cursor.subject_id,
         'msg_' || e.sequence || '_' || left(encode(sha256(convert_to(
           coalesce(p_cursor.subscription_id, p_cursor.bridge_id), 'UTF8')), 'hex'), 16),
         e.sequence, e.event_type, e.task_id,
         case when p_cursor.next_sequence = e.sequence then p_cursor.attempt + 1 else 1 end, 'pending', p_now
    from event e where e.workspace_id = p_cursor.workspace_id and e.sequence = v_sequence
  returning * into v_delivery;
  update delivery_cursor c
     set looked_to = v_delivery.sequence - 1, next_sequence = v_delivery.sequence, attempt = v_delivery.attempt,
         delivery_id = v_delivery.delivery_id, due_at = p_now + make_interval(secs => p_hold_seconds)
   where c.workspace_id = p_cursor.workspace_id and c.consumer_id = p_cursor.consumer_id
     and c.subject_id = p_cursor.subject_id;
  return _message(v_bridge, v_delivery, p_now);
end $$;

-- Begins attempts for due cursors, longest due first, of each bridge a few only: one that hangs holds up itself.
create function take_deliveries(p_limit int, p_per_bridge int, p_busy text[], p_hold_seconds int)
returns setof text language plpgsql as $$
declare
  v_now timestamptz := lease_now();
  v_due record;
  v_cursor delivery_cursor;
  v_message text;
begin
  for v_due in
    select r.* from (
      select c.workspace_id, c.consumer_id, c.subject_id, c.due_at,
             row_number() over (partition by c.bridge_id order by c.due_at) as place
        from (select k.* from delivery_cursor k where k.due_at <= v_now and k.bridge_id <> all (p_busy)
               order by k.due_at limit 1000) c) r
     where r.place <= p_per_bridge order by r.due_at limit p_limit
  loop
    select * into v_cursor from delivery_cursor c
     where c.workspace_id = v_due.workspace_id and c.consumer_id = v_due.consumer_id
       and c.subject_id = v_due.subject_id and c.due_at <= v_now for update skip locked;
    if found then
      v_message := _next_delivery(v_cursor, v_now, p_hold_seconds);
      if v_message is not null then
        return next v_message;
      end if;
    end if;
  end loop;
end $$;

-- The n-th of the waits between attempts, give or take a tenth; null behind the last.
create function _delivery_wait(p_attempt int) returns float language sql volatile as $$
  select (array[5, 60, 300, 1800, 7200, 18000, 36000, 86400])[p_attempt] * (0.9 + random() * 0.2)
$$;

-- Notes how an attempt ended, moves the cursor if that is the end of its event, and (p_on) begins the next one.
create function finish_delivery(
  p_workspace_id text, p_delivery_id text, p_http_status int, p_error text, p_duration_ms int,
  p_retry_after_seconds int, p_hold_seconds int, p_on boolean, out result text, out next text)
language plpgsql as $$
declare
  v_now timestamptz;
  v_delivery delivery;
  v_cursor delivery_cursor;
  v_good boolean := coalesce(p_http_status between 200 and 299, false) and p_error is null;
  v_gone boolean := coalesce(p_http_status = 410, false);
  v_again timestamptz;
begin
  select * into v_delivery from delivery d
   where d.workspace_id = p_workspace_id and d.delivery_id = p_delivery_id;
  perform 1 from bridge b
    where b.workspace_id = p_workspace_id and b.bridge_id = v_delivery.bridge_id for no key update;
  select * into v_cursor from delivery_cursor c
   where c.workspace_id = p_workspace_id and c.consumer_id = v_delivery.consumer_id
     and c.subject_id = v_delivery.subject_id for update;
  v_now := lease_now();
  if v_cursor.delivery_id is distinct from p_delivery_id then
    -- Not ours any more: the subscription changed or is gone, or somebody else has taken the cursor up.
    result := case when v_good then 'delivered' else 'suppressed' end;
  elsif v_good then
    result := 'delivered';
  elsif v_delivery.attempt > 8 and not v_gone then
    result := 'dead';
  else
    result := 'failed';
    v_again := case when not v_gone then v_now + make_interval(secs => case
      when p_retry_after_seconds is not null then least(greatest(p_retry_after_seconds, 1), 86400)
      else _delivery_wait(v_delivery.attempt) end) end;
  end if;
  update delivery d set status = result, http_status = p_http_status, error = p_error, finished_at = v_now,
         duration_ms = p_duration_ms, next_attempt_at = v_again
   where d.workspace_id = p_workspace_id and d.delivery_id = p_delivery_id and d.status = 'pending';
  if v_cursor.delivery_id is distinct from p_delivery_id then
    return;
  end if;
  update delivery_cursor c
     set delivery_id = null, last_error = case when not v_good then p_error end, updated_at = v_now,
         attempt = case when v_again is not null then c.attempt else 0 end,
         due_at = case when not v_gone then coalesce(v_again, v_now) end,
         last_delivered_at = case when v_good then v_now else c.last_delivered_at end,
         last_sequence = case when result = 'failed' then c.last_sequence else v_delivery.sequence end,
         looked_to = case when result = 'failed' then c.looked_to else v_delivery.sequence end,
         next_sequence = case when result = 'failed' then c.next_sequence end,
         last_delivery_id = case when result = 'failed' then c.last_delivery_id else p_delivery_id end
   where c.workspace_id = p_workspace_id and c.consumer_id = v_cursor.consumer_id
     and c.subject_id = v_cursor.subject_id
  returning * into v_cursor;
  perform _note_on_bridge(p_workspace_id, v_delivery.bridge_id, v_good, v_gone, p_error, v_now);
  if p_on and result in ('delivered', 'dead') then
    next := _next_delivery(v_cursor, v_now, p_hold_seconds);
  end if;
end $$;

-- What a bridge shows of its newest attempt. A receiver that is gone for good disables it.
create function _note_on_bridge(
  p_ws text, p_bridge_id text, p_good boolean, p_gone boolean, p_error text, p_now timestamptz) returns void
language plpgsql as $$
declare
  v_enabled boolean;
begin
  select b.enabled into v_enabled from bridge b where b.workspace_id = p_ws and b.bridge_id = p_bridge_id;
  update bridge b
     set last_delivered_at = case when p_good then p_now else b.last_delivered_at end,
         last_error = case when not p_good then p_error end,
         enabled = b.enabled and not p_gone,
         disabled_reason = case when p_gone and b.enabled then 'gone' else b.disabled_reason end,
         version = b.version + (p_gone and b.enabled)::int,
         updated_at = case when p_gone and b.enabled then p_now else b.updated_at end
   where b.workspace_id = p_ws and b.bridge_id = p_bridge_id;
  if p_gone and v_enabled then
    perform _log(p_ws, p_now, array[_event(row('daemon', 'deliveries', 'daemon', 'daemon.deliveries', null, null,
      null)::cause, 'bridge.disabled', null, null,
      jsonb_build_object('bridge_instance_id', p_bridge_id, 'changed_fields', null, 'reason', 'gone'))]);
  end if;
end $$;
