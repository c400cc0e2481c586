"""Forgets what has served its time: old idempotency keys, sessions long unseen."""

from server.db.pool import Database
from server.store import sweep


async def run_once(db: Database) -> int:
    """Deletes one bounded batch of each; how many rows."""
    return await sweep.delete_old_keys(db) + await sweep.delete_old_sessions(db)
