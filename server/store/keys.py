"""API keys."""

from typing import Any, NamedTuple

from server.db.pool import Database


class KeyRow(NamedTuple):
    """What a valid key says about its holder."""

    key_id: str
    name: str
    role: str
    workspace_id: str | None
    workspace_name: str | None
    agent_name: str | None
    actor_kind: str | None
    expires_in_seconds: float | None
    unused_lately: bool


FIND_KEY = """
select key_id, name, role, workspace_id, workspace_name, agent_name, actor_kind,
       expires_in_seconds, unused_lately
  from valid_key where secret_hash = %(secret_hash)s
"""


async def find_key(db: Database, secret_hash: bytes) -> KeyRow | None:
    """The key with this hash, if it is valid now."""
    row = await db.one(FIND_KEY, secret_hash=secret_hash)
    return KeyRow(*row) if row else None


# until: of the ticket that names the key, in seconds since 1970; null where none does.
FIND_KEY_BY_ID = """
select key_id, name, role, workspace_id, workspace_name, agent_name, actor_kind,
       expires_in_seconds, unused_lately
  from valid_key
 where key_id = %(key_id)s
   and (%(until)s::float8 is null or to_timestamp(%(until)s) > lease_now())
"""


async def find_key_by_id(db: Database, key_id: str, until: float | None) -> KeyRow | None:
    """The key, if it is valid now, and so is the ticket that names it."""
    row = await db.one(FIND_KEY_BY_ID, key_id=key_id, until=until)
    return KeyRow(*row) if row else None


TOUCH_KEY = """
update api_key set last_used_at = lease_now()
 where key_id = %(key_id)s
   and (last_used_at is null or last_used_at < lease_now() - interval '1 minute')
"""


async def touch_key(db: Database, key_id: str) -> None:
    """Notes that the key is in use."""
    await db.run(TOUCH_KEY, key_id=key_id)


LIST_KEYS = """
select _key(k)::text, k.key_id
  from api_key k
 where (%(every)s or k.workspace_id = %(workspace_id)s
        or (%(all_workspaces)s and k.workspace_id is null))
   and (%(role)s::text is null or k.role = %(role)s)
   and (%(include_revoked)s or k.revoked_at is null)
   and (%(after)s::text is null or k.key_id < %(after)s)
 order by k.key_id desc limit %(limit)s
"""


async def list_keys(db: Database, **filters: Any) -> list[tuple[Any, ...]]:
    """Keys, the newest first, each with its id."""
    return await db.many(LIST_KEYS, **filters)


CREATE_KEY = """
select body, replayed from create_key(
  %(workspace_id)s, %(cause)s::jsonb, %(key)s, %(request_hash)s, %(new)s::jsonb)
"""


async def create_key(
    db: Database,
    workspace_id: str,
    cause: str,
    key: str | None,
    request_hash: str | None,
    new: str,
) -> tuple[str, bool]:
    """Makes a key; answers it as JSON, and whether an earlier call made it."""
    [row] = await db.many(
        CREATE_KEY,
        workspace_id=workspace_id,
        cause=cause,
        key=key,
        request_hash=request_hash,
        new=new,
    )
    return row[0], row[1]


ROTATE_KEY = """
select body, replayed from rotate_key(
  %(workspace_id)s, %(cause)s::jsonb, %(key)s, %(request_hash)s, %(reach)s, %(key_id)s,
  %(new)s::jsonb, %(overlap_seconds)s)
"""


async def rotate_key(db: Database, **call: Any) -> tuple[str, bool]:
    """Makes a successor of a key; answers it as JSON, and whether an earlier call made it."""
    [row] = await db.many(ROTATE_KEY, **call)
    return row[0], row[1]


REVOKE_KEY = "select revoke_key(%(cause)s::jsonb, %(reach)s, %(key_id)s)"


async def revoke_key(db: Database, cause: str, reach: str | None, key_id: str) -> None:
    """Ends a key now; one that is revoked already stays as it is."""
    await db.run(REVOKE_KEY, cause=cause, reach=reach, key_id=key_id)


WHOAMI = """
select _utc(lease_now()), (select _utc(k.expires_at) from api_key k where k.key_id = %(key_id)s)
"""


async def whoami(db: Database, key_id: str) -> tuple[str, str | None]:
    """The time now, and when the key expires."""
    [row] = await db.many(WHOAMI, key_id=key_id)
    return row[0], row[1]
