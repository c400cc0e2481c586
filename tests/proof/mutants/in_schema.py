"""Breaks of the transitions in schema.sql."""

from typing import Final

from tests.proof.mutants.mutant import Mutant

FILE: Final = "schema.sql"


def _mutant(promise: str, meaning: str, check: str, old: str, new: str) -> Mutant:
    return Mutant(meaning, promise, check, FILE, old, new)


IN_SCHEMA: Final = (
    _mutant(
        "P1", "a claim leaves the offer of its run in the queue", "model",
        "delete from offer o where o.ctid = any (array(select x.offer_place",
        "delete from offer o where false and o.ctid = any (array(select x.offer_place",
    ),
    _mutant(
        "P1", "a claim does not hold the offers that it looks at", "race",
        """and k.priority >= p_team.priority_min
            for no key update skip locked) o""",
        "and k.priority >= p_team.priority_min) o",
    ),
    _mutant(
        "P1", "a lease that lapsed is not ended", "model",
        "update lease l set ended_at = p_now, ended_how = 'expiry'",
        "update lease l set ended_how = 'expiry'",
    ),
    _mutant(
        "P2", "the fence of a call is not compared", "histories",
        "when coalesce(k.fence, r.fence) < r.fence or c.fence <> r.fence then 'stale_fence'", "",
    ),
    _mutant(
        "P2", "a heartbeat renews a lease that has ended", "model",
        "when l.ended_at is not null then 'lease_expired'",
        "when l.ended_at is not null and p_operation <> 'heartbeat' then 'lease_expired'",
    ),
    _mutant(
        "P2", "work planned in the name of an old lease is made", "model",
        "if v_verdict.code is not null then\n    perform _refuse(v_verdict.code",
        "if v_verdict.code = 'run_not_found' then\n    perform _refuse(v_verdict.code",
    ),
    _mutant(
        "P3", "a further attempt begins with the first fence again", "model",
        "attempts_used = t.attempts_used + 1",
        "attempts_used = t.attempts_used + 1, fence = 0",
    ),
    _mutant(
        "P4", "a run that ended can be canceled", "model",
        "  if not _is_open(p_run.status) then", "  if p_run.status = 'canceled' then",
    ),
    _mutant(
        "P4", "a completion that differs from the first one takes its place", "model",
        """when r.status in ('completed', 'failed') then 'task_run_already_terminal'
      when l.ended_how = 'release' and""",
        """when r.status = 'completed' and p_operation = 'complete' then null
      when r.status in ('completed', 'failed') then 'task_run_already_terminal'
      when l.ended_how = 'release' and""",
    ),
    _mutant(
        "P5", "a claim under a key that was used claims anew", "model",
        "l.session_id = c.session_id and l.claim_key = c.key limit 1) x)",
        "l.session_id = c.key limit 1) x)",
    ),
    _mutant(
        "P5", "what a key made is not remembered", "model",
        "decode(p_hash, 'hex'), p_status, p_ids where p_key is not null",
        "decode(p_hash, 'hex'), p_status, p_ids where false",
    ),
    _mutant(
        "P5", "a repeated report of usage counts again", "model",
        "input_tokens = greatest(l.input_tokens, (c.usage ->> 'input_tokens')::bigint)",
        "input_tokens = coalesce(l.input_tokens, 0) + (c.usage ->> 'input_tokens')::bigint",
    ),
    _mutant(
        "P5", "a claim that is sent twice at once is two claims", "rush",
        "p_ws || ' ' || c.session_id || ' ' || c.key, 2)) as mine",
        "p_ws || ' ' || c.session_id || ' ' || c.key || random(), 2)) as mine",
    ),
    _mutant(
        "P6", "an approval that is missing or was refused holds nothing up", "model",
        "when t.dependencies_waiting > 0 or t.approval_state <> 'approved' then 'blocked'",
        "when t.dependencies_waiting > 0 then 'blocked'",
    ),
    _mutant(
        "P6", "a run is offered before its time", "model",
        "                  when r.available_at > p_now then r.available_at\n",
        "                  when r.available_at > 'infinity' then r.available_at\n",
    ),
    _mutant(
        "P6", "a claim does not look at the scheduler again under the log's lock", "rush",
        "if v_newest.paused then", "if false then",
    ),
    _mutant(
        "P7", "who waits for a task is not looked at when it ends", "model",
        "    exit when v_changed is null;\n", "    exit;\n",
    ),
    _mutant(
        "P7", "two dependencies that end in one transaction count once", "rush",
        "sum(case when satisfied then -1 else 1 end)::int as more",
        "min(case when satisfied then -1 else 1 end)::int as more",
    ),
    _mutant(
        "P7", "a task is made without holding what it waits for", "rush",
        "perform _hold_others(p_workspace_id, v_tasks);", "null;",
    ),
    _mutant(
        "P7", "the tasks that wait are not locked with the one that ends", "rush",
        "perform _lock_tasks(p_ws, v_waiting_ids);",
        "",
    ),
    _mutant(
        "P8", "the log is numbered without its lock", "rush",
        "l.name = 'log' for no key update;\n\n  -- task_status",
        "l.name = 'log';\n\n  -- task_status",
    ),
    _mutant(
        "P8", "a claim numbers its events without the log's lock", "rush",
        "l.name = 'log' for no key update;\n  -- A pause commits under this lock",
        "l.name = 'log';\n  -- A pause commits under this lock",
    ),
    _mutant(
        "P8", "an event is left out where another task changes its status", "model",
        "events := events || coalesce(v_more, '{}');", "",
    ),
    _mutant(
        "P8", "the event of a completion leaves out its result", "model",
        "'result', e.result, 'usage', u.body,", "'usage', u.body,",
    ),
    _mutant(
        "P8", "a number of the log is skipped where a run is given back", "model",
        "coalesce(x.sequence, 0) + e.n, e.task_id",
        "coalesce(x.sequence, 0) + e.n + (event_type = 'task.run_released')::int, e.task_id",
    ),
    _mutant(
        "P10", "an expiry is not counted", "model",
        "set lease_expiries = r.lease_expiries + 1, lapses = r.lapses + 1,",
        "set lease_expiries = r.lease_expiries + 1,",
    ),
    _mutant(
        "P10", "a checkpoint that was there already counts as progress", "model",
        "is distinct from c.checkpoint::jsonb\n    returning r.run_id",
        "is distinct from 'null'::jsonb\n    returning r.run_id",
    ),
    _mutant(
        "P10", "a run that lapses comes back without its back-off", "model",
        "else greatest(t.available_at, p_now + _back_off(t.retry_strategy,",
        "else greatest(t.available_at, p_now + _back_off('none',",
    ),
    _mutant(
        "P11", "a priority is no head start", "model",
        "case p_priority when 10 then 0 when 20 then 600 when 30 then 3600 else 86400 end)\n$$",
        "0)\n$$",
    ),
    _mutant(
        "P11", "urgent work has no more of a head start than high", "model",
        "when 30 then 3600 else 86400 end)", "when 30 then 3600 else 3600 end)",
    ),
    _mutant(
        "P12", "a key that was revoked opens as before", "strangers",
        "where k.revoked_at is null and (k.expires_at is null", "where (k.expires_at is null",
    ),
    _mutant(
        "P11", "a run that is given back goes to the front", "model",
        """greatest(t.available_at,
               v_now + make_interval(secs => coalesce(c.delay_seconds, 0))) end""",
        """greatest(t.available_at, v_now - interval '1 day'
               + make_interval(secs => coalesce(c.delay_seconds, 0))) end""",
    ),
)  # fmt: skip
