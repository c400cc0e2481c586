"""What operators do to runs against their holders' will."""

from typing import Any, NamedTuple

from server.db.pool import Database
from server.store.base import Repeatable


class Forced(NamedTuple):
    """What became of a run, and how many runs were put into the queue."""

    body: str
    offers: int


FORCE_RELEASE_RUN = """
select body, offers from force_release_run(
  %(workspace_id)s, %(cause)s::jsonb, %(run_id)s, %(reason)s, %(note)s, %(delay_seconds)s,
  %(metadata)s::jsonb)
"""


async def force_release_run(db: Database, **call: Any) -> Forced:
    """Takes a run from its holder."""
    [row] = await db.many(FORCE_RELEASE_RUN, **call)
    return Forced(*row)


FORCE_FAIL_RUN = """
select body, offers from force_fail_run(
  %(workspace_id)s, %(cause)s::jsonb, %(run_id)s, %(reason)s, %(metadata)s::jsonb)
"""


async def force_fail_run(db: Database, **call: Any) -> Forced:
    """Ends a run as failed, whoever holds it."""
    [row] = await db.many(FORCE_FAIL_RUN, **call)
    return Forced(*row)


RETRY_RUN = """
select body, replayed, offers from retry_run(
  %(workspace_id)s, %(cause)s::jsonb, %(run_id)s, %(recover)s, %(reason)s, %(metadata)s::json,
  %(delay_seconds)s, %(key)s, %(request_hash)s, %(bulk)s)
"""


async def retry_run(db: Database, **call: Any) -> Repeatable:
    """Queues a further attempt of a failed run, or of one that needs attention."""
    [row] = await db.many(RETRY_RUN, **call)
    return Repeatable(*row)


FIND_BULK_KEY = """
select find_bulk_key(%(workspace_id)s, %(cause)s::jsonb, %(key)s, %(request_hash)s)
"""


async def find_bulk_key(db: Database, **call: Any) -> str | None:
    """What the first use of the key was refused, by run, as JSON; None if this is the first."""
    [row] = await db.many(FIND_BULK_KEY, **call)
    told: str | None = row[0]
    return told


KEEP_BULK_KEY = """
select keep_bulk_key(
  %(workspace_id)s, %(cause)s::jsonb, %(key)s, %(request_hash)s, %(refusals)s::jsonb)
"""


async def keep_bulk_key(db: Database, **call: Any) -> None:
    """Notes that a call for many runs is done, and what of it was refused."""
    await db.many(KEEP_BULK_KEY, **call)
