"""Bridges: where notifications go."""

from collections.abc import Sequence
from datetime import datetime
from typing import Unpack

from msgspec import Struct

from agent_sdk.fields import BridgeChanges
from agent_sdk.transport import Transport, new_key, segment
from agent_sdk.types import Ref


class Bridge(Struct, frozen=True, kw_only=True):
    """A webhook; `signing_secret` is there once, in the answer that made it."""

    id: str
    name: str
    url: str
    enabled: bool = True
    disabled_reason: str | None = None
    created_by: Ref | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    last_delivered_at: datetime | None = None
    last_error: str | None = None
    workspace_event_types: list[str] | None = None
    version: int = 1
    signing_secret: str | None = None


class Delivery(Struct, frozen=True, kw_only=True):
    """One attempt to deliver an event."""

    id: str
    bridge_instance_id: str
    message_id: str
    sequence: int
    event_type: str
    attempt: int
    status: str
    subscription_id: str | None = None
    task_id: str | None = None
    http_status: int | None = None
    error: str | None = None
    duration_ms: int | None = None
    next_attempt_at: datetime | None = None
    created_at: datetime | None = None
    finished_at: datetime | None = None


class BridgePage(Struct, frozen=True):
    """A page of bridges, newest first."""

    bridges: list[Bridge]
    next_cursor: str | None = None


class DeliveryPage(Struct, frozen=True):
    """A page of attempts, newest first."""

    deliveries: list[Delivery]
    next_cursor: str | None = None


class _Bridge(Struct, frozen=True):
    bridge: Bridge


class Bridges:
    """`client.bridges`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, *, limit: int = 50, cursor: str | None = None) -> BridgePage:
        """A page of bridges, without their secrets."""
        query = {"limit": limit, "cursor": cursor}
        return self._transport.call(BridgePage, "GET", "/api/bridges", query=query)

    def create(
        self,
        name: str,
        url: str,
        *,
        enabled: bool = True,
        workspace_event_types: Sequence[str] | None = None,
    ) -> Bridge:
        """Make a bridge; its secret is None if the first answer got lost: rotate it then."""
        body = {
            "name": name,
            "url": url,
            "enabled": enabled,
            "workspace_event_types": workspace_event_types,
        }
        told = self._transport.call(_Bridge, "POST", "/api/bridges", body=body, key=new_key())
        return told.bridge

    def get(self, bridge_id: str) -> Bridge:
        """A bridge."""
        return self._transport.call(_Bridge, "GET", _path(bridge_id)).bridge

    def update(self, bridge_id: str, **changes: Unpack[BridgeChanges]) -> Bridge:
        """Change what is given; with `rotate_secret` the answer has the new secret."""
        return self._transport.call(_Bridge, "PATCH", _path(bridge_id), body=changes).bridge

    def delete(self, bridge_id: str) -> None:
        """Remove a bridge with its subscriptions."""
        self._transport.send("DELETE", _path(bridge_id))

    def deliveries(
        self,
        bridge_id: str,
        *,
        status: str | None = None,
        subscription_id: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> DeliveryPage:
        """A page of the attempts over a bridge."""
        query = {
            "status": status,
            "subscription_id": subscription_id,
            "limit": limit,
            "cursor": cursor,
        }
        path = f"{_path(bridge_id)}/deliveries"
        return self._transport.call(DeliveryPage, "GET", path, query=query)


def _path(bridge_id: str) -> str:
    return f"/api/bridges/{segment(bridge_id)}"
