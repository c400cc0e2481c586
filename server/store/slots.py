"""Slots: the locks of concurrency keys."""

from server.db.pool import Database

FORGET_SLOTS = "select forget_slots(%(limit)s)"


async def forget_slots(db: Database, limit: int) -> int:
    """Deletes slots that nobody contends for or holds; how many."""
    [row] = await db.many(FORGET_SLOTS, limit=limit)
    deleted: int = row[0]
    return deleted
