"""A workspace: the tenant, and its settings."""

from typing import Annotated, ClassVar

from msgspec import UNSET, Meta, UnsetType, field

from server import limits
from server.contract.base import Answer, PageQuery, Patch, Request, Time, Version

HeadStart = Annotated[int, Meta(ge=0, le=limits.HEAD_START_LIMIT_SECONDS)]
Watch = Annotated[int, Meta(ge=limits.WATCH_MIN_SECONDS, le=limits.WATCH_LIMIT_SECONDS)]
Retention = Annotated[int, Meta(ge=0, le=limits.RETENTION_LIMIT_DAYS)]
Quota = Annotated[int, Meta(ge=1, le=limits.QUOTA_LIMIT_COUNT)]
LeaseDefault = Annotated[int, Meta(ge=limits.LEASE_MIN_SECONDS, le=limits.LEASE_LIMIT_SECONDS)]
DisplayName = Annotated[str, Meta(min_length=1, max_length=limits.NAME_LIMIT_CHARACTERS)]
WorkspaceName = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]


class HeadStarts(Answer):
    """How much earlier than it came a run of each priority counts."""

    low: int = 0
    medium: int = 600
    high: int = 3600
    urgent: int = 86400


class Settings(Answer):
    """The settings of a workspace with their defaults."""

    head_start_seconds: HeadStarts = field(default_factory=HeadStarts)
    default_lease_seconds: int = limits.LEASE_DEFAULT_SECONDS
    event_retention_days: int = 90
    delivery_retention_days: int = 30
    task_retention_days: int = 0
    starvation_seconds: int = 120
    backlog_threshold_seconds: int = 600
    stale_after_seconds: int = 120
    stranded_seconds: int = 300
    require_claim_token: bool = False
    max_open_tasks: int = 1_000_000
    max_waiting_claims: int = 2000
    max_streams: int = 1000


class Workspace(Answer):
    """A workspace."""

    id: str
    name: str
    display_name: str
    settings: Settings
    created_at: Time
    updated_at: Time
    version: int


class WorkspaceResponse(Answer):
    """One workspace."""

    workspace: Workspace


class WorkspaceListResponse(Answer):
    """A page of workspaces."""

    workspaces: list[Workspace]
    next_cursor: str | None


class WorkspaceListQuery(PageQuery):
    """Which workspaces to list."""


class HeadStartsInput(Request):
    """Head starts to set; the others stay."""

    low: HeadStart | UnsetType = UNSET
    medium: HeadStart | UnsetType = UNSET
    high: HeadStart | UnsetType = UNSET
    urgent: HeadStart | UnsetType = UNSET


class SettingsInput(Request):
    """Settings to set; the others stay."""

    head_start_seconds: HeadStartsInput | UnsetType = UNSET
    default_lease_seconds: LeaseDefault | UnsetType = UNSET
    event_retention_days: Retention | UnsetType = UNSET
    delivery_retention_days: Retention | UnsetType = UNSET
    task_retention_days: Retention | UnsetType = UNSET
    starvation_seconds: Watch | UnsetType = UNSET
    backlog_threshold_seconds: Watch | UnsetType = UNSET
    stale_after_seconds: Watch | UnsetType = UNSET
    stranded_seconds: Watch | UnsetType = UNSET
    require_claim_token: bool | UnsetType = UNSET
    max_open_tasks: Quota | UnsetType = UNSET
    max_waiting_claims: Quota | UnsetType = UNSET
    max_streams: Quota | UnsetType = UNSET


class WorkspaceCreateRequest(Request):
    """A new workspace; its display name is its name unless given."""

    name: WorkspaceName
    display_name: DisplayName | None = None
    settings: SettingsInput | None = None


class WorkspacePatchRequest(Patch):
    """What is to change in a workspace."""

    immutable: ClassVar[frozenset[str]] = frozenset(Workspace.__struct_fields__)

    display_name: DisplayName | UnsetType = UNSET
    settings: SettingsInput | UnsetType = UNSET
    version: Version | UnsetType = UNSET
