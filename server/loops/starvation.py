"""Tells of runs that nobody takes for long; they stay in the queue as they are."""

from collections.abc import Callable
from functools import partial

from server import limits
from server.db.pool import Asked
from server.loops.every import in_turn
from server.store import starvation
from server.telemetry import StarvedMeasured, occur


async def run_once(db: Asked, limit: int, changed: Callable[[str, int], None]) -> int:
    """Tells of the starved runs of one pass, of every workspace in turn; of how many."""
    told = 0
    hungry = await starvation.starving_workspaces(db)
    for _ in range(limits.STARVATION_ROUNDS_COUNT):
        again: list[str] = []
        told += await in_turn("starvation", hungry, partial(_tell, db, limit, changed, again))
        hungry = again
    occur(StarvedMeasured, value=await starvation.count_starved(db))
    return told


async def _tell(
    db: Asked, limit: int, changed: Callable[[str, int], None], again: list[str], workspace_id: str
) -> int:
    """Tells of a bounded number; a workspace with more is to be looked at again."""
    done = await starvation.tell_starved(db, workspace_id, limit)
    if done.told:
        # Also to claims that met one of these runs while it was being looked at.
        changed(workspace_id, done.told)
    if done.seen == limit:
        again.append(workspace_id)
    return done.told
