"""What the database says about itself."""

from typing import NamedTuple

from server.db.pool import Database


class Readiness(NamedTuple):
    """The schema's version, and how long ago some server swept."""

    version: int
    compatible_from: int
    sweep_age_seconds: float | None


READ_READINESS = """
select v.version, v.compatible_from, extract(epoch from clock_timestamp() - b.at)::float8
  from schema_version v left join beat b on b.name = 'sweep'
"""


async def read_readiness(db: Database) -> Readiness | None:
    """What readiness rests on; None if the schema has no version."""
    row = await db.one(READ_READINESS)
    return Readiness(*row) if row else None


SERVER_NOW = "select _utc(lease_now())"


async def server_now(db: Database) -> str:
    """The time that the database goes by."""
    [row] = await db.many(SERVER_NOW)
    now: str = row[0]
    return now
