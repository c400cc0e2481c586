"""What a new database needs before anybody can call."""

import time
from typing import Any, Final

import msgspec

from server.db.pool import Database
from server.rules.ids import new_id
from server.rules.tokens import api_key_hash, api_key_prefix

CAUSE: Final = msgspec.json.encode(
    {
        "actor_kind": "daemon",
        "actor_ref": "start",
        "origin_kind": "daemon",
        "origin_ref": "daemon.start",
        "key_id": "start",
    }
).decode()

ANY_KEY = "select exists (select from api_key)"


async def any_key(db: Database) -> bool:
    """Whether this database ever had a key; if not, this is its first start."""
    [row] = await db.many(ANY_KEY)
    return bool(row[0])


FIRST_START = """
select first_start(%(cause)s::jsonb, %(workspace)s::jsonb, %(admin)s::jsonb, %(agent)s::jsonb)
"""


async def first_start(db: Database, admin_key: str, agent_key: str) -> bool:
    """Makes the workspace `default` and both keys; False if another server was first."""
    admin = {"name": "admin", "role": "admin", "actor_kind": "human"}
    agent = {"name": "local", "role": "agent", "agent_name": "local*"}
    workspace = {"id": new_id("ws", _milliseconds()), "name": "default"}
    [row] = await db.many(
        FIRST_START,
        cause=CAUSE,
        workspace=msgspec.json.encode(workspace).decode(),
        admin=_key(admin_key, admin),
        agent=_key(agent_key, agent),
    )
    return bool(row[0])


ADMIT_ADMIN = """
select create_key(w.workspace_id, %(cause)s::jsonb, null, null, %(admin)s::jsonb)
  from workspace w
 where w.name = 'default'
   and not exists (select from api_key k where k.secret_hash = %(secret_hash)s)
"""


async def admit_admin(db: Database, admin_key: str) -> None:
    """Makes an admin key of a text that was never a key here: the setting has changed."""
    secret_hash = api_key_hash(admin_key)
    named = {"name": f"admin {secret_hash.hex()[:8]}", "role": "admin", "actor_kind": "human"}
    await db.run(ADMIT_ADMIN, cause=CAUSE, admin=_key(admin_key, named), secret_hash=secret_hash)


def _milliseconds() -> int:
    return time.time_ns() // 1_000_000


def _key(text: str, told: dict[str, Any]) -> str:
    told |= {"id": new_id("key", _milliseconds()), "prefix": api_key_prefix(text)}
    told["secret_hash"] = api_key_hash(text).hex()
    return msgspec.json.encode(told).decode()
