"""Runs by hand."""

from typing import Any

from server.db.pool import Database
from server.store.base import Repeatable

CLAIM_RUN = """
select body, replayed, offers from claim_run(
  %(workspace_id)s, %(cause)s::jsonb, %(run_id)s, %(session_id)s, %(lease_seconds)s, %(key)s,
  %(request_hash)s, %(outer)s, %(inner)s, %(outer_previous)s, %(inner_previous)s)
"""


async def claim_run(db: Database, **call: Any) -> tuple[str, bool, int]:
    """Claims this very run; the answer, whether it repeats one, and how many offers its key has."""
    [row] = await db.many(CLAIM_RUN, **call)
    return row[0], row[1], row[2]


ATTACH_SESSION = """
select attach_session(
  %(workspace_id)s, %(cause)s::jsonb, %(run_id)s, %(session_id)s, %(agent_name)s, %(outer)s,
  %(inner)s, %(outer_previous)s, %(inner_previous)s)
"""


async def attach_session(db: Database, **call: Any) -> str:
    """Gives a session to a run that was claimed by hand without one."""
    [row] = await db.many(ATTACH_SESSION, **call)
    told: str = row[0]
    return told


HOLD_RUN = """
select body, replayed, offers from hold_run(
  %(workspace_id)s, %(operation)s, %(call)s::json, %(by_hand)s)
"""


async def hold_run(db: Database, **call: Any) -> Repeatable:
    """Starts, completes or fails a run, by its holder's proof or by hand."""
    [row] = await db.many(HOLD_RUN, **call)
    return Repeatable(*row)
