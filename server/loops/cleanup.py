"""Forgets what has served its time: keys, sessions long unseen, lanes and slots nobody uses."""

from functools import partial

from server import limits
from server.db.pool import Database
from server.loops.every import in_pieces
from server.store import lanes, slots, sweep


async def run_once(db: Database) -> int:
    """Deletes a bounded number of each; how many rows."""
    size = limits.RETENTION_BATCH_COUNT
    some_keys = partial(sweep.delete_old_keys, db, size)
    deleted = await in_pieces(some_keys, size, limits.RETENTION_BATCHES_COUNT)
    deleted += await sweep.delete_old_sessions(db)
    deleted += await lanes.delete_lanes(db)
    deleted += await slots.forget_slots(db, limits.SLOTS_FORGOTTEN_COUNT)
    await lanes.retire_lanes(db, limits.LANES_KEPT_COUNT)
    return deleted
