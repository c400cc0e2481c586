"""The scheduler. A workspace id of `*` stands for all of them."""

from datetime import datetime
from typing import Any, NamedTuple

from server.db.pool import Database

READ_SCHEDULER = "select read_scheduler(%(workspace_id)s)"


async def read_scheduler(db: Database, workspace_id: str) -> str:
    """A SchedulerStatus."""
    [row] = await db.many(READ_SCHEDULER, workspace_id=workspace_id)
    status: str = row[0]
    return status


READ_BACKLOG = """
select body, rank_at, run_id, total from read_backlog(
  %(workspace_id)s, %(include_paused)s, %(after_at)s::timestamptz, %(after_id)s, %(limit)s)
"""


async def read_backlog(db: Database, **page: Any) -> tuple[list[tuple[Any, ...]], int]:
    """The next runs of the backlog, each with its sort values, and how many there are in all."""
    rows = await db.many(READ_BACKLOG, **page)
    return [row[:-1] for row in rows if row[0] is not None], rows[0][-1]


PAUSE_SCHEDULER = "select pause_scheduler(%(workspace_id)s, %(cause)s::jsonb, %(reason)s)"


async def pause_scheduler(db: Database, workspace_id: str, cause: str, reason: str | None) -> str:
    """Stops all claims; a SchedulerStatus."""
    [row] = await db.many(PAUSE_SCHEDULER, workspace_id=workspace_id, cause=cause, reason=reason)
    status: str = row[0]
    return status


RESUME_SCHEDULER = """
select body, offers from resume_scheduler(%(workspace_id)s, %(cause)s::jsonb, %(reason)s)
"""


async def resume_scheduler(
    db: Database, workspace_id: str, cause: str, reason: str | None
) -> tuple[str, int]:
    """Lets claims go on; a SchedulerStatus, and how many runs they will find at least."""
    [row] = await db.many(RESUME_SCHEDULER, workspace_id=workspace_id, cause=cause, reason=reason)
    return row[0], row[1]


START_DRAIN = "select start_drain(%(workspace_id)s, %(cause)s::jsonb, %(reason)s)"


async def start_drain(db: Database, workspace_id: str, cause: str, reason: str) -> datetime:
    """Stops all claims; since when it is waited for those that are held."""
    [row] = await db.many(START_DRAIN, workspace_id=workspace_id, cause=cause, reason=reason)
    started_at: datetime = row[0]
    return started_at


class Drained(NamedTuple):
    """A DrainResult, and whether there is nothing more to wait for."""

    body: str
    over: bool


LOOK_AT_DRAIN = """
select body, over from look_at_drain(
  %(workspace_id)s, %(cause)s::jsonb, %(started_at)s::timestamptz)
"""


async def look_at_drain(
    db: Database, workspace_id: str, cause: str, started_at: datetime
) -> Drained:
    """How a drain stands."""
    [row] = await db.many(
        LOOK_AT_DRAIN, workspace_id=workspace_id, cause=cause, started_at=started_at
    )
    return Drained(*row)
