"""Notifications between processes."""

from server.db.pool import Database

SEND_NOTICES = "select pg_notify(%(channel)s, n) from unnest(%(notices)s::text[]) n"


async def send_notices(db: Database, channel: str, notices: list[str]) -> None:
    """Tells every listening process, this one included."""
    await db.run(SEND_NOTICES, channel=channel, notices=notices)
