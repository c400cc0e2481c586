"""Puts delayed runs into the queue when their time has come, so that waiting claims get them."""

from collections.abc import Callable

from server.db.pool import Database
from server.store import sweep


async def run_once(db: Database, limit: int, changed: Callable[[str, int], None]) -> int:
    """Promotes the due runs of one pass; how many."""
    promoted = 0
    for workspace_id in await sweep.due_workspaces(db):
        offers = await sweep.promote_runs(db, workspace_id, limit)
        if offers:
            changed(workspace_id, offers)
        promoted += offers
    return promoted
