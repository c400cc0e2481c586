"""Puts delayed runs into the queue when their time has come, so that waiting claims get them."""

from collections.abc import Callable

from server.db.pool import Asked
from server.loops.every import in_turn
from server.store import sweep


async def run_once(db: Asked, limit: int, changed: Callable[[str, int], None]) -> int:
    """Promotes the due runs of one pass; how many."""

    async def promote(workspace_id: str) -> int:
        offers = await sweep.promote_runs(db, workspace_id, limit)
        if offers:
            changed(workspace_id, offers)
        return offers

    return await in_turn("promotion", await sweep.due_workspaces(db), promote)
