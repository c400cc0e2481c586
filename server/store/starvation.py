"""Runs that wait in the queue for long."""

from typing import NamedTuple

from server.db.pool import Asked

# Each workspace by itself, with its own patience.
STARVING_WORKSPACES = """
select w.workspace_id
  from workspace w
  cross join lateral (select _starves_since(w.workspace_id, w.settings, lease_now()) as since
    offset 0) x
  cross join lateral (select o.run_id from offer o
    where o.workspace_id = w.workspace_id and not o.starved and o.waiting_since <= x.since
    limit 1) o
"""


async def starving_workspaces(db: Asked) -> list[str]:
    """The workspaces with starved runs of which no event tells yet."""
    return [row[0] for row in await db.many(STARVING_WORKSPACES)]


class Told(NamedTuple):
    """How many offers were looked at, and of how many runs an event tells now."""

    seen: int
    told: int


TELL_STARVED = "select seen, told from tell_starved(%(workspace_id)s, %(limit)s)"


async def tell_starved(db: Asked, workspace_id: str, limit: int) -> Told:
    """Tells of those that have waited longest, each once since it was queued."""
    [row] = await db.many(TELL_STARVED, workspace_id=workspace_id, limit=limit)
    return Told(*row)


COUNT_STARVED = """
select count(*)
  from workspace w
  cross join lateral (select _starves_since(w.workspace_id, w.settings, lease_now()) as since
    offset 0) x
  join offer o on o.workspace_id = w.workspace_id and o.waiting_since <= x.since
"""


async def count_starved(db: Asked) -> int:
    """How many runs starve, in all workspaces."""
    [row] = await db.many(COUNT_STARVED)
    count: int = row[0]
    return count
