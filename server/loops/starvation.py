"""Tells of runs that nobody takes for long; they stay in the queue as they are."""

from collections.abc import Callable

from server import limits
from server.db.pool import Asked, Busy, Fault
from server.store import starvation
from server.telemetry import LoopFailed, StarvedMeasured, occur


async def run_once(db: Asked, limit: int, changed: Callable[[str, int], None]) -> int:
    """Tells of the starved runs of one pass, of every workspace in turn; of how many."""
    told = 0
    hungry = await starvation.starving_workspaces(db)
    for _ in range(limits.STARVATION_ROUNDS_COUNT):
        again = []
        for workspace_id in hungry:
            done = await _tell(db, workspace_id, limit)
            told += done.told
            if done.told:
                # Also to claims that met one of these runs while it was being looked at.
                changed(workspace_id, done.told)
            if done.seen == limit:
                again.append(workspace_id)
        hungry = again
    occur(StarvedMeasured, value=await starvation.count_starved(db))
    return told


async def _tell(db: Asked, workspace_id: str, limit: int) -> starvation.Told:
    try:
        return await starvation.tell_starved(db, workspace_id, limit)
    except Busy:
        # Held up by a transaction of its own: the next pass comes soon.
        return starvation.Told(0, 0)
    except Fault as error:
        # One workspace must not hold up the others.
        occur(LoopFailed, loop="starvation", error=error, workspace_id=workspace_id)
        return starvation.Told(0, 0)
