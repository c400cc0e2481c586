"""An API key: what a caller proves its role with."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from server import limits
from server.contract.base import (
    Actor,
    Answer,
    FieldError,
    Name,
    PageQuery,
    Request,
    Time,
    TimeInput,
    in_utc,
)

Role = Literal["viewer", "agent", "operator", "admin"]
KeyActorKind = Literal["human", "automation", "extension"]


class Key(Answer):
    """A key without what makes it work; secret only in create and rotate answers."""

    id: str
    name: str
    role: Role
    workspace_id: str | None
    agent_name: str | None
    actor_kind: KeyActorKind | None
    prefix: str
    created_by: Actor
    created_at: Time
    expires_at: Time | None
    last_used_at: Time | None
    revoked_at: Time | None
    rotated_to: str | None
    secret: str | UnsetType | None = UNSET


class KeyResponse(Answer):
    """One key."""

    key: Key


class KeyListResponse(Answer):
    """A page of keys."""

    keys: list[Key]
    next_cursor: str | None


class KeyListQuery(PageQuery):
    """Which keys to list."""

    role: Role | None = None
    include_revoked: bool = False


class KeyCreateRequest(Request):
    """A new key; workspace is the key's own, `*` is all."""

    name: Name
    role: Role
    workspace: Annotated[str, Meta(max_length=128)] | None = None
    agent_name: Name | None = None
    actor_kind: KeyActorKind | None = None
    expires_at: TimeInput | None = None

    def __post_init__(self) -> None:
        if self.role != "agent" and self.agent_name is not None:
            raise FieldError("agent_name", "exclusive", "is for the role agent only")
        if self.role == "agent" and self.actor_kind is not None:
            raise FieldError("actor_kind", "exclusive", "is not for the role agent")
        if self.workspace == "*" and self.role != "admin":
            raise FieldError("workspace", "exclusive", "may be * for the role admin only")
        self.expires_at = in_utc("expires_at", self.expires_at)


class KeyRotateRequest(Request):
    """How long the old key goes on beside the new one."""

    overlap_seconds: Annotated[int, Meta(ge=0, le=limits.ROTATE_OVERLAP_LIMIT_SECONDS)] = (
        limits.ROTATE_OVERLAP_DEFAULT_SECONDS
    )
