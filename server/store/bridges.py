"""Bridges: where notifications go."""

from typing import Any

from server.db.pool import Database

CREATE_BRIDGE = """
select body, version, replayed from create_bridge(
  %(workspace_id)s, %(cause)s::jsonb, %(key)s, %(request_hash)s, %(new)s::jsonb)
"""


async def create_bridge(db: Database, **call: Any) -> tuple[str, int, bool]:
    """Makes a bridge; answers it as JSON, its version, and whether an earlier call made it."""
    [row] = await db.many(CREATE_BRIDGE, **call)
    return row[0], row[1], row[2]


GET_BRIDGE = """
select json_build_object('bridge', body)::text, version from bridge_wire
 where workspace_id = %(workspace_id)s and bridge_id = %(bridge_id)s
"""


async def get_bridge(db: Database, workspace_id: str, bridge_id: str) -> tuple[str, int] | None:
    """A bridge as JSON, and its version."""
    row = await db.one(GET_BRIDGE, workspace_id=workspace_id, bridge_id=bridge_id)
    return (row[0], row[1]) if row else None


LIST_BRIDGES = """
select body::text, bridge_id from bridge_wire
 where workspace_id = %(workspace_id)s and (%(after)s::text is null or bridge_id < %(after)s)
 order by bridge_id desc limit %(limit)s
"""


async def list_bridges(db: Database, **filters: Any) -> list[tuple[Any, ...]]:
    """Bridges, newest first, each as JSON and its id."""
    return await db.many(LIST_BRIDGES, **filters)


PATCH_BRIDGE = """
select body, version from patch_bridge(
  %(workspace_id)s, %(cause)s::jsonb, %(bridge_id)s, %(version)s, %(changes)s::jsonb)
"""


async def patch_bridge(db: Database, **call: Any) -> tuple[str, int]:
    """Changes a bridge; answers it as JSON, and its version."""
    [row] = await db.many(PATCH_BRIDGE, **call)
    return row[0], row[1]


DELETE_BRIDGE = "select delete_bridge(%(workspace_id)s, %(cause)s::jsonb, %(bridge_id)s)"


async def delete_bridge(db: Database, workspace_id: str, cause: str, bridge_id: str) -> None:
    """Removes a bridge with its subscriptions."""
    await db.run(DELETE_BRIDGE, workspace_id=workspace_id, cause=cause, bridge_id=bridge_id)


LIST_DELIVERIES = """
select d.body::text, d.created_at, d.delivery_id from delivery_wire d
 where d.workspace_id = %(workspace_id)s and d.bridge_id = %(bridge_id)s
   and (%(status)s::text[] is null or d.status = any (%(status)s))
   and (%(subscription_id)s::text is null or d.subscription_id = %(subscription_id)s)
   and (%(after_at)s::timestamptz is null
        or (d.created_at, d.delivery_id) < (%(after_at)s, %(after_id)s))
 order by d.created_at desc, d.delivery_id desc limit %(limit)s
"""


async def list_deliveries(db: Database, **filters: Any) -> list[tuple[Any, ...]]:
    """Attempts over a bridge, newest first, each as JSON and its sort values."""
    return await db.many(LIST_DELIVERIES, **filters)


SEALED_SECRETS = """
select workspace_id, bridge_id, secret, previous_secret from bridge
 where (%(after)s::text is null or bridge_id > %(after)s) order by bridge_id limit 500
"""


async def sealed_secrets(db: Database, after: str | None) -> list[tuple[Any, ...]]:
    """The secrets of the next bridges of all workspaces, as they are kept."""
    return await db.many(SEALED_SECRETS, after=after)


RESEAL = """
update bridge set secret = %(new)s
 where workspace_id = %(workspace_id)s and bridge_id = %(bridge_id)s and secret = %(old)s
"""
RESEAL_PREVIOUS = """
update bridge set previous_secret = %(new)s
 where workspace_id = %(workspace_id)s and bridge_id = %(bridge_id)s and previous_secret = %(old)s
"""


async def reseal(db: Database, workspace_id: str, bridge_id: str, old: str, new: str) -> None:
    """Replaces a kept secret by the same under another key, unless it changed meanwhile."""
    named = {"workspace_id": workspace_id, "bridge_id": bridge_id, "old": old, "new": new}
    await db.run(RESEAL, **named)
    await db.run(RESEAL_PREVIOUS, **named)
