"""Stream tickets: their time, and the keys behind them."""

from server.db.pool import Database

EXPIRE_TICKET = """
select extract(epoch from x.at)::float8, _utc(x.at)
  from (select date_trunc('second', lease_now()) + make_interval(secs => %(seconds)s) as at) x
"""


async def expire_ticket(db: Database, seconds: float) -> tuple[float, str]:
    """When a ticket made now ends: in seconds since 1970, and as a timestamp."""
    [row] = await db.many(EXPIRE_TICKET, seconds=seconds)
    return row[0], row[1]
