"""The digest: what dashboards and inboxes count, kept behind the log."""

from typing import Any, NamedTuple

from server.db.pool import Asked

LAGGING_WORKSPACES = """
select w.workspace_id from workspace w
  left join digest_position p on p.workspace_id = w.workspace_id
 where _newest_event(w.workspace_id) > coalesce(p.sequence, 0)
    or exists (select from moment m
        where m.workspace_id = w.workspace_id and m.at <= (select _day_ago()))
    or exists (select from _stranded(w.workspace_id, _late(w.workspace_id), 1))
"""


async def lagging_workspaces(db: Asked) -> list[str]:
    """The workspaces whose log has gone on, or whose day has."""
    return [row[0] for row in await db.many(LAGGING_WORKSPACES)]


KEEP_DIGESTS = "select events, ended from keep_digests(%(workspace_id)s, %(limit)s)"


class Kept(NamedTuple):
    """How many events were taken in; `ended` has outcome, failure_kind and count of runs."""

    events: int
    ended: list[dict[str, Any]]


async def keep_digests(db: Asked, workspace_id: str, limit: int) -> Kept:
    """Brings the digests of a workspace further."""
    [row] = await db.many(KEEP_DIGESTS, workspace_id=workspace_id, limit=limit)
    return Kept(row[0], row[1] or [])


MEASURE_GAUGES = "select gauge, label, amount from measure_gauges()"


async def measure_gauges(db: Asked) -> list[tuple[str, str, float]]:
    """What there is of each kind in all workspaces: gauge, label, number."""
    return [(row[0], row[1], row[2]) for row in await db.many(MEASURE_GAUGES)]
