"""Deliveries: what is to be sent now, and how it went."""

from typing import Any

import msgspec

from server.db.pool import Asked, Database


class Message(msgspec.Struct, frozen=True):
    """One attempt to make: where to, signed how, and the body."""

    workspace_id: str
    delivery_id: str
    bridge_id: str
    message_id: str
    url: str
    # As they are kept: encrypted.
    secrets: list[str]
    # The database's time, in seconds.
    at: int
    body: str


LOGS_TO_FOLLOW = """
select f.workspace_id from bridge_feed f
 where f.position < (select e.sequence from event e where e.workspace_id = f.workspace_id
                      order by e.sequence desc limit 1)
"""


async def logs_to_follow(db: Asked) -> list[str]:
    """The workspaces with subscribers whose log has grown."""
    return [row[0] for row in await db.many(LOGS_TO_FOLLOW)]


FOLLOW_LOG = "select follow_log(%(workspace_id)s, %(limit)s)"


async def follow_log(db: Asked, workspace_id: str, limit: int) -> int:
    """Makes due what the next events of this log concern; how many events were read."""
    [row] = await db.many(FOLLOW_LOG, workspace_id=workspace_id, limit=limit)
    read: int = row[0]
    return read


TAKE_DELIVERIES = """
select take_deliveries(%(limit)s, %(per_bridge)s, %(busy)s::text[], %(hold_seconds)s)
"""


async def take_deliveries(db: Asked, **wish: Any) -> list[Message]:
    """Begins attempts that nobody else makes while they are held."""
    rows = await db.many(TAKE_DELIVERIES, **wish)
    return [msgspec.json.decode(row[0], type=Message) for row in rows]


FINISH_DELIVERY = """
select result, next from finish_delivery(
  %(workspace_id)s, %(delivery_id)s, %(http_status)s, %(error)s, %(duration_ms)s,
  %(retry_after_seconds)s, %(hold_seconds)s, %(go_on)s)
"""


async def finish_delivery(db: Database, **outcome: Any) -> tuple[str, Message | None]:
    """Notes how an attempt ended; in one word, and the next message of the same cursor."""
    [row] = await db.many(FINISH_DELIVERY, **outcome)
    return row[0], msgspec.json.decode(row[1], type=Message) if row[1] else None
