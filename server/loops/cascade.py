"""Goes on with what failed dependencies cancel, where that is too much for one transaction."""

from collections.abc import Callable

from server.db.pool import Asked, Busy, Fault
from server.store import sweep
from server.telemetry import LoopFailed, occur


async def run_once(db: Asked, changed: Callable[[str, int], None]) -> int:
    """Cancels one bounded batch in each workspace that has more to do; how many tasks."""
    canceled = 0
    for workspace_id in await sweep.cascading_workspaces(db):
        try:
            done, offers = await sweep.continue_cascade(db, workspace_id)
        except Busy:
            continue
        except Fault as error:
            # One bad task must not hold up other workspaces.
            occur(LoopFailed, loop="cascade", error=error, workspace_id=workspace_id)
            continue
        changed(workspace_id, offers)
        canceled += done
    return canceled
