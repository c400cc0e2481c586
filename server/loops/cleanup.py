"""Forgets what has served its time: keys, sessions long unseen, lanes and slots nobody uses."""

from server import limits
from server.db.pool import Database
from server.store import lanes, slots, sweep


async def run_once(db: Database) -> int:
    """Deletes one bounded batch of each; how many rows."""
    deleted = await sweep.delete_old_keys(db) + await sweep.delete_old_sessions(db)
    deleted += await lanes.delete_lanes(db)
    deleted += await slots.forget_slots(db, limits.SLOTS_FORGOTTEN_COUNT)
    await lanes.retire_lanes(db, limits.LANES_KEPT_COUNT)
    return deleted
