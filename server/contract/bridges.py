"""A bridge: where notifications go; a subscription to a task's events; an attempt to deliver."""

from typing import Annotated, ClassVar, Literal

from msgspec import UNSET, Meta, UnsetType

from server import limits
from server.contract.base import (
    BYTES,
    Actor,
    Answer,
    FieldError,
    Identifier,
    Name,
    PageQuery,
    Patch,
    Request,
    Time,
    Version,
)
from server.contract.events import EventType

EventTypes = Annotated[
    list[EventType], Meta(min_length=1, max_length=limits.BRIDGE_EVENT_TYPES_LIMIT_COUNT)
]
DeliveryMode = Literal["direct-send", "reply"]
DeliveryStatus = Literal["pending", "delivered", "failed", "dead", "suppressed"]
Url = Annotated[str, Meta(min_length=1, max_length=limits.BRIDGE_URL_LIMIT_BYTES, extra=BYTES)]
Peer = Annotated[str, Meta(max_length=limits.BRIDGE_PEER_LIMIT_BYTES, extra=BYTES)]


class Bridge(Answer):
    """A receiver of notifications; signing_secret only in the answers that made it."""

    id: str
    name: str
    url: str
    enabled: bool
    disabled_reason: str | None
    created_by: Actor
    created_at: Time
    updated_at: Time
    last_delivered_at: Time | None
    last_error: str | None
    workspace_event_types: list[EventType] | None
    version: int
    signing_secret: str | UnsetType | None = UNSET


class BridgeResponse(Answer):
    """One bridge."""

    bridge: Bridge


class BridgeListResponse(Answer):
    """A page of bridges."""

    bridges: list[Bridge]
    next_cursor: str | None


class BridgeListQuery(PageQuery):
    """Which bridges to list."""


class BridgeCreateRequest(Request):
    """A new bridge."""

    name: Name
    url: Url
    enabled: bool = True
    workspace_event_types: EventTypes | None = None


class BridgePatchRequest(Patch):
    """What is to change in a bridge; rotate_secret makes a new secret, shown once."""

    immutable: ClassVar[frozenset[str]] = frozenset(Bridge.__struct_fields__)

    name: Name | UnsetType = UNSET
    url: Url | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    workspace_event_types: EventTypes | UnsetType | None = UNSET
    rotate_secret: bool | UnsetType = UNSET
    version: Version | UnsetType = UNSET


class Delivery(Answer):
    """One attempt to deliver an event."""

    id: str
    bridge_instance_id: str
    subscription_id: str | None
    message_id: str
    sequence: int
    event_type: str
    task_id: str | None
    attempt: int
    status: DeliveryStatus
    http_status: int | None
    error: str | None
    duration_ms: int | None
    next_attempt_at: Time | None
    created_at: Time
    finished_at: Time | None


class DeliveryListResponse(Answer):
    """A page of attempts."""

    deliveries: list[Delivery]
    next_cursor: str | None


class DeliveryListQuery(PageQuery):
    """Which attempts to list."""

    status: list[DeliveryStatus] | None = None
    subscription_id: str | None = None


class DeliveryCursor(Answer):
    """How far a consumer has been told."""

    consumer_id: str
    stream_name: Literal["task_events"]
    subject_id: str
    last_sequence: int
    last_delivery_id: str | None
    last_delivered_at: Time | None
    last_error: str | None
    updated_at: Time


class Subscription(Answer):
    """Which events of a task go to a bridge; event_types null: those it ends or stops with."""

    subscription_id: str
    task_id: str
    bridge_instance_id: str
    scope: Literal["workspace", "global"]
    workspace_id: str | None
    peer_id: str | None
    thread_id: str | None
    group_id: str | None
    delivery_mode: DeliveryMode
    event_types: list[EventType] | None
    cursor: DeliveryCursor
    created_by: Actor
    created_at: Time
    updated_at: Time


class SubscriptionResponse(Answer):
    """One subscription."""

    subscription: Subscription


class SubscriptionListResponse(Answer):
    """A page of a task's subscriptions."""

    subscriptions: list[Subscription]
    next_cursor: str | None


class SubscriptionListQuery(PageQuery):
    """Which subscriptions of a task to list."""

    bridge_instance_id: str | None = None
    scope: Literal["workspace", "global"] | None = None
    workspace_id: str | None = None


class SubscriptionCreateRequest(Request):
    """A new subscription; scope and workspace_id must match the task."""

    bridge_instance_id: Identifier
    delivery_mode: DeliveryMode
    subscription_id: Identifier | None = None
    scope: Literal["workspace", "global"] | None = None
    workspace_id: Identifier | None = None
    peer_id: Peer | None = None
    thread_id: Peer | None = None
    group_id: Peer | None = None
    event_types: EventTypes | None = None

    def __post_init__(self) -> None:
        if self.thread_id is not None and self.peer_id is None and self.group_id is None:
            raise FieldError("thread_id", "required", "needs peer_id or group_id")
