"""Leases: the hot path. Every statement serves many callers at once and answers a row for each."""

from typing import Any, NamedTuple

from server.db.pool import Asked, Database


class CallAnswer(NamedTuple):
    """What became of one call: refused (code), repeated, or done; body is JSON."""

    n: int
    code: str | None
    evidence: str | None
    replayed: bool
    body: str | None
    offers: int
    server_time: str


CLAIM_RUNS = """
select a.n, a.code, a.evidence::text, a.replayed, a.body, a.offers, (select _utc(lease_now()))
  from claim_runs(%(workspace_id)s, %(teams)s::json, %(calls)s::json, %(newest_lane)s,
    %(outer)s, %(inner)s, %(outer_previous)s, %(inner_previous)s) a
"""


async def claim_runs(db: Asked, workspace_id: str, **call: Any) -> list[CallAnswer]:
    """A row for each claimed run and each refusal; who found nothing has no row.

    One n = -1 says how many offers stand for the concurrency keys that were claimed from.
    """
    rows = await db.many(CLAIM_RUNS, workspace_id=workspace_id, **call)
    return [CallAnswer(*row) for row in rows]


QUEUE_HEADS = """
select queue_heads(%(workspace_id)s, %(team)s::json)::text
"""


async def queue_heads(db: Database, workspace_id: str, team: str) -> str:
    """Where the queue begins for a team, as JSON: further members of it."""
    row = await db.one(QUEUE_HEADS, workspace_id=workspace_id, team=team)
    heads: str = row[0] if row else "{}"
    return heads


HEARTBEAT_RUNS = """
select a.n, a.code, a.evidence::text, a.replayed, a.body, a.offers, (select _utc(lease_now()))
  from heartbeat_runs(%(workspace_id)s, %(calls)s::json) a
"""


async def heartbeat_runs(db: Asked, workspace_id: str, calls: str) -> list[CallAnswer]:
    """Renews leases without an event; code `loud` asks for report_runs instead."""
    rows = await db.many(HEARTBEAT_RUNS, workspace_id=workspace_id, calls=calls)
    return [CallAnswer(*row) for row in rows]


REPORT_RUNS = """
select a.n, a.code, a.evidence::text, a.replayed, a.body, a.offers, (select _utc(lease_now()))
  from report_runs(%(workspace_id)s, %(calls)s::json) a
"""


async def report_runs(db: Asked, workspace_id: str, calls: str) -> list[CallAnswer]:
    """Renews leases and stores what the heartbeats tell."""
    rows = await db.many(REPORT_RUNS, workspace_id=workspace_id, calls=calls)
    return [CallAnswer(*row) for row in rows]


COMPLETE_RUNS = """
select a.n, a.code, a.evidence::text, a.replayed, a.body, a.offers, (select _utc(lease_now()))
  from complete_runs(%(workspace_id)s, %(calls)s::json) a
"""


async def complete_runs(db: Asked, workspace_id: str, calls: str) -> list[CallAnswer]:
    """Ends runs with their results."""
    rows = await db.many(COMPLETE_RUNS, workspace_id=workspace_id, calls=calls)
    return [CallAnswer(*row) for row in rows]


FAIL_RUNS = """
select a.n, a.code, a.evidence::text, a.replayed, a.body, a.offers, (select _utc(lease_now()))
  from fail_runs(%(workspace_id)s, %(calls)s::json) a
"""


async def fail_runs(db: Asked, workspace_id: str, calls: str) -> list[CallAnswer]:
    """Ends runs with their errors; attempts that are left are queued."""
    rows = await db.many(FAIL_RUNS, workspace_id=workspace_id, calls=calls)
    return [CallAnswer(*row) for row in rows]


RELEASE_RUNS = """
select a.n, a.code, a.evidence::text, a.replayed, a.body, a.offers, (select _utc(lease_now()))
  from release_runs(%(workspace_id)s, %(calls)s::json, %(undo)s) a
"""


async def release_runs(
    db: Asked, workspace_id: str, calls: str, undo: bool = False
) -> list[CallAnswer]:
    """Gives runs back; undo: to their old place, for a claim whose caller had gone."""
    rows = await db.many(RELEASE_RUNS, workspace_id=workspace_id, calls=calls, undo=undo)
    return [CallAnswer(*row) for row in rows]


VERIFY_LEASE = """
select json_build_object(
         'current', (r.fence = %(fence)s and l.ended_at is null and l.lease_until > lease_now()
                    and (%(token_hash)s::text is null
                         or l.token_hash = decode(%(token_hash)s, 'hex'))) is true,
         'run_id', r.run_id, 'fence', %(fence)s::bigint, 'current_fence', r.fence,
         'run_status', r.status,
         'lease_until', case when l.ended_at is null then _utc(l.lease_until) end,
         'server_time', _utc(lease_now()))::text
  from run r
  left join lease l on l.workspace_id = r.workspace_id and l.run_id = r.run_id
                   and l.fence = r.fence
 where r.workspace_id = %(workspace_id)s and r.run_id = %(run_id)s
"""


async def verify_lease(
    db: Database, workspace_id: str, run_id: str, fence: int, token_hash: str | None
) -> str | None:
    """Whether a fence is current, as JSON; None for an unknown run."""
    row = await db.one(
        VERIFY_LEASE, workspace_id=workspace_id, run_id=run_id, fence=fence, token_hash=token_hash
    )
    return row[0] if row else None


LIST_LEASES = """
select w.lease::text, p.claimed_at, p.run_id
  from (select l.claimed_at, l.run_id
          from lease l
         where l.workspace_id = %(workspace_id)s and l.session_id = %(session_id)s
           and l.ended_at is null
           and (l.claimed_at, l.run_id) > (%(after_at)s::timestamptz, %(after_id)s::text)
         order by l.claimed_at, l.run_id limit %(limit)s) p
  cross join lateral (select w.lease from run_wire w
    where w.workspace_id = %(workspace_id)s and w.run_id = p.run_id offset 0) w
 order by p.claimed_at, p.run_id
"""


async def list_leases(db: Database, **filters: Any) -> list[tuple[Any, ...]]:
    """The live leases of a session, oldest claim first, each with its sort values."""
    return await db.many(LIST_LEASES, **filters)
