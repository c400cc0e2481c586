"""Subscriptions: which events of a task go to a bridge."""

from datetime import datetime
from typing import Unpack

from msgspec import Struct

from agent_sdk.fields import SubscriptionFields
from agent_sdk.transport import Transport, new_key, segment
from agent_sdk.types import Ref


class DeliveryCursor(Struct, frozen=True, kw_only=True):
    """How far a subscription has been told."""

    consumer_id: str
    subject_id: str
    stream_name: str = "task_events"
    last_sequence: int = 0
    last_delivery_id: str | None = None
    last_delivered_at: datetime | None = None
    last_error: str | None = None
    updated_at: datetime | None = None


class Subscription(Struct, frozen=True, kw_only=True):
    """Which events of a task go to a bridge; without `event_types` those that it ends with."""

    subscription_id: str
    task_id: str
    bridge_instance_id: str
    delivery_mode: str
    cursor: DeliveryCursor
    scope: str = "workspace"
    workspace_id: str | None = None
    peer_id: str | None = None
    thread_id: str | None = None
    group_id: str | None = None
    event_types: list[str] | None = None
    created_by: Ref | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None


class SubscriptionPage(Struct, frozen=True):
    """A page of a task's subscriptions, oldest first."""

    subscriptions: list[Subscription]
    next_cursor: str | None = None


class _Subscription(Struct, frozen=True):
    subscription: Subscription


class Subscriptions:
    """`client.subscriptions`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(
        self,
        task_id: str,
        *,
        bridge_instance_id: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> SubscriptionPage:
        """A page of the subscriptions of a task."""
        query = {"bridge_instance_id": bridge_instance_id, "limit": limit, "cursor": cursor}
        return self._transport.call(SubscriptionPage, "GET", _path(task_id), query=query)

    def create(
        self,
        task_id: str,
        bridge_instance_id: str,
        **fields: Unpack[SubscriptionFields],
    ) -> Subscription:
        """Send events of a task to a bridge, past ones too; an existing id is replaced."""
        body = {
            "bridge_instance_id": bridge_instance_id,
            "delivery_mode": "direct-send",
            **fields,
        }
        told = self._transport.call(_Subscription, "POST", _path(task_id), body=body, key=new_key())
        return told.subscription

    def get(self, task_id: str, subscription_id: str) -> Subscription:
        """A subscription with its cursor."""
        path = f"{_path(task_id)}/{segment(subscription_id)}"
        return self._transport.call(_Subscription, "GET", path).subscription

    def delete(self, task_id: str, subscription_id: str) -> None:
        """Remove a subscription; one with the same id goes on from its cursor."""
        self._transport.send("DELETE", f"{_path(task_id)}/{segment(subscription_id)}")


def _path(task_id: str) -> str:
    return f"/api/tasks/{segment(task_id)}/notifications/bridges"
