"""Puts delayed runs into the queue when their time has come, so that waiting claims get them."""

from collections.abc import Callable

from server.db.pool import Asked, Busy
from server.store import sweep


async def run_once(db: Asked, limit: int, changed: Callable[[str, int], None]) -> int:
    """Promotes the due runs of one pass; how many."""
    promoted = 0
    for workspace_id in await sweep.due_workspaces(db):
        try:
            offers = await sweep.promote_runs(db, workspace_id, limit)
        except Busy:
            # Held up by a transaction of its own: the next pass comes soon.
            continue
        if offers:
            changed(workspace_id, offers)
        promoted += offers
    return promoted
