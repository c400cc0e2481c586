"""The dashboard."""

from typing import Any

from server.db.pool import Database

READ_DASHBOARD = """
select read_dashboard(%(workspace_id)s, %(scope)s, %(owner_kind)s, %(owner_ref)s,
                      %(network_channel)s, %(origin_kind)s, %(session_ttl)s)
"""


async def read_dashboard(db: Database, **asked: Any) -> str:
    """What a dashboard is made of, as JSON."""
    [row] = await db.many(READ_DASHBOARD, **asked)
    facts: str = row[0]
    return facts
