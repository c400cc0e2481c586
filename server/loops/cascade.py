"""Goes on with what failed dependencies cancel, where that is too much for one transaction."""

from collections.abc import Callable

from server.db.pool import Asked
from server.loops.every import in_pieces, in_turn
from server.store import sweep

# In each workspace in one pass.
BATCHES = 20


async def run_once(db: Asked, changed: Callable[[str, int], None]) -> int:
    """Cancels bounded batches in each workspace that has more to do; how many tasks."""

    async def go_on(workspace_id: str) -> int:
        async def some() -> int:
            canceled, offers = await sweep.continue_cascade(db, workspace_id)
            changed(workspace_id, offers)
            return canceled

        return await in_pieces(some, 1, BATCHES)

    return await in_turn("cascade", await sweep.cascading_workspaces(db), go_on)
