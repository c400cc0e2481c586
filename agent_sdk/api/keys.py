"""Keys, for administrators."""

from datetime import datetime
from typing import Literal

from msgspec import Struct

from agent_sdk.transport import Transport, new_key, segment


class Key(Struct, frozen=True, kw_only=True):
    """A credential; `secret` is there once, in the answer that made it."""

    id: str
    name: str
    role: str
    workspace_id: str | None = None
    agent_name: str | None = None
    actor_kind: str | None = None
    prefix: str = ""
    created_at: datetime | None = None
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None
    rotated_to: str | None = None
    secret: str | None = None


class KeyPage(Struct, frozen=True):
    """A page of keys."""

    keys: list[Key]
    next_cursor: str | None = None


class _Key(Struct, frozen=True):
    key: Key


class Keys:
    """`client.keys`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(
        self,
        *,
        role: str | None = None,
        include_revoked: bool = False,
        limit: int = 50,
        cursor: str | None = None,
    ) -> KeyPage:
        """A page of keys, without their secrets."""
        query = {
            "role": role,
            "include_revoked": include_revoked,
            "limit": limit,
            "cursor": cursor,
        }
        return self._transport.call(KeyPage, "GET", "/api/keys", query=query)

    def create(
        self,
        name: str,
        role: Literal["viewer", "agent", "operator", "admin"],
        *,
        workspace: str | None = None,
        agent_name: str | None = None,
        actor_kind: str | None = None,
        expires_at: datetime | None = None,
    ) -> Key:
        """Make a key; its secret is None if the first answer got lost: rotate it then."""
        body = {
            "name": name,
            "role": role,
            "workspace": workspace,
            "agent_name": agent_name,
            "actor_kind": actor_kind,
            "expires_at": expires_at,
        }
        return self._transport.call(_Key, "POST", "/api/keys", body=body, key=new_key()).key

    def rotate(self, key_id: str, *, overlap_seconds: int | None = None) -> Key:
        """Make the successor of a key, which ends after the overlap."""
        path = f"/api/keys/{segment(key_id)}/rotate"
        body = {"overlap_seconds": overlap_seconds}
        return self._transport.call(_Key, "POST", path, body=body, key=new_key()).key

    def revoke(self, key_id: str) -> None:
        """End a key now."""
        self._transport.send("DELETE", f"/api/keys/{segment(key_id)}")
