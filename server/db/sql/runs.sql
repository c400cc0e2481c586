-- What lists of runs filter by; made after schema.sql.

-- Missed: at least one heartbeat at the right interval did not come.
create function _is_stuck(p_run run, p_lease lease, p_now timestamptz) returns boolean language sql stable as $$
  select coalesce(_is_leased(p_run.status)
    and p_now - p_lease.heartbeat_at > make_interval(secs => p_lease.lease_seconds / 2.0), false)
$$;

-- Null asks for nothing.
create function _run_fits(
  p_run run, p_lease lease, p_now timestamptz, p_status text[], p_agent_name text, p_session_id text,
  p_stuck boolean) returns boolean language sql stable as $$
  select (p_status is null or p_run.status = any (p_status))
     and (p_agent_name is null or p_lease.agent_name = p_agent_name)
     and (p_session_id is null or (p_lease.session_id = p_session_id and _is_held(p_lease)))
     and (p_stuck is null or _is_stuck(p_run, p_lease, p_now) = p_stuck)
$$;
