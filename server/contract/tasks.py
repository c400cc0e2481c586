"""A task: what is to be done."""

from typing import Annotated, ClassVar, Literal

from msgspec import UNSET, Meta, UnsetType

from server import limits
from server.contract.approvals import Approval, ApprovalState
from server.contract.base import (
    BYTES,
    Actor,
    Answer,
    Budget,
    Channel,
    FieldError,
    FreeJson,
    Identifier,
    Json,
    Metadata,
    Origin,
    PageQuery,
    Priority,
    Progress,
    Request,
    Time,
    TimeInput,
    Usage,
    Version,
    WorkspaceSelector,
    in_utc,
)
from server.contract.dependencies import Dependency, DependencyReference
from server.contract.events import Event
from server.contract.profiles import ExecutionProfileInput
from server.contract.references import (
    Owner,
    OwnerInput,
    OwnerKind,
    ReviewPolicy,
    RunSummary,
    Scope,
    TaskStatus,
)
from server.contract.reviews import ReviewTimeout, Rounds
from server.contract.runs import Run
from server.contract.slots import SlotFields, SlotPatch

OnDependencyFailure = Literal["block", "cancel", "run"]
RetryStrategy = Literal["exponential_jitter", "linear", "fixed", "none"]
Title = Annotated[str, Meta(min_length=1, max_length=limits.TITLE_LIMIT_CHARACTERS)]
Label = Annotated[str, Meta(max_length=limits.IDENTIFIER_LIMIT_CHARACTERS)]
Description = Annotated[str, Meta(max_length=limits.DESCRIPTION_LIMIT_BYTES, extra=BYTES)]
Attempts = Annotated[int, Meta(ge=1, le=limits.ATTEMPTS_LIMIT_COUNT)]
Expiries = Annotated[int, Meta(ge=1, le=limits.LEASE_EXPIRIES_LIMIT_COUNT)]
Deadline = Annotated[int, Meta(ge=1, le=limits.DEADLINE_LIMIT_SECONDS)]
Tag = Annotated[str, Meta(min_length=1, max_length=limits.TAG_LIMIT_CHARACTERS)]
Tags = Annotated[list[Tag], Meta(max_length=limits.TAGS_LIMIT_COUNT)]
ChannelPatch = Annotated[
    str, Meta(pattern=r"^(?!coord-)[a-z0-9][a-z0-9_-]{0,63}$", extra={"blank": "null"})
]


class Retry(Answer):
    """How long a failed or expired run waits before it is tried again."""

    strategy: RetryStrategy
    base_seconds: int
    max_seconds: int


class TaskCommon(Approval):
    """What both the whole task and its summary say."""

    id: str
    identifier: str | None
    scope: Scope
    workspace_id: str | None
    parent_task_id: str | None
    network_channel: str | None
    title: str
    priority: Priority
    max_attempts: int
    auto_enqueue_on_ready: bool
    status: TaskStatus
    draft: bool
    owner: Owner | None
    current_run_id: str | None
    latest_event_seq: int
    paused: bool
    paused_by: str | None
    paused_at: Time | None
    paused_reason: str | None
    effective_paused: bool
    paused_by_task_id: str | None
    created_by: Actor
    origin: Origin
    created_by_agent: str | None
    created_by_run_id: str | None
    created_at: Time
    updated_at: Time
    closed_at: Time | None
    progress: Progress | None
    usage: Usage
    budget: Budget | None
    fence: int
    version: int
    attempts_used: int
    dependencies_waiting: int
    ready_at: Time | None
    available_at: Time | None
    retry: Retry
    on_dependency_failure: OnDependencyFailure
    review_policy: ReviewPolicy
    review_max_rounds: int
    review_timeout_seconds: int
    concurrency_key: str | None
    concurrency_limit: int | None
    max_lease_expiries: int
    deadline_seconds: int | None
    tags: list[str]


class Task(TaskCommon):
    """A task, whole."""

    description: str | None
    metadata: Json
    payload: Json
    result: Json
    result_bytes: int | None
    checkpoint: Json
    note: str | None


class TaskSummary(TaskCommon):
    """A task without its long values, with counts and its open run."""

    child_count: int
    dependency_count: int
    dependencies: list[DependencyReference]
    active_run: RunSummary | None
    last_activity_at: Time


class TaskDetail(Answer):
    """A task with all that surrounds it."""

    summary: TaskSummary
    task: Task
    children: list[TaskSummary]
    dependencies: list[Dependency]
    dependency_references: list[DependencyReference]
    runs: list[Run]
    events: list[Event]


class TaskResponse(Answer):
    """One task."""

    task: Task


class TaskDetailResponse(Answer):
    """One task with all that surrounds it."""

    task: TaskDetail


class TaskListResponse(Answer):
    """A page of tasks."""

    tasks: list[TaskSummary]
    next_cursor: str | None


class TaskRunResponse(Answer):
    """A task and its new run."""

    task: Task
    run: Run | None


class TaskListQuery(PageQuery):
    """Which tasks to list."""

    scope: Scope | None = None
    status: list[TaskStatus] | None = None
    priority: list[Priority] | None = None
    approval_state: ApprovalState | None = None
    owner_kind: OwnerKind | None = None
    owner_ref: str | None = None
    parent_task_id: str | None = None
    network_channel: str | None = None
    tag: list[str] | None = None
    identifier: str | None = None
    query: str | None = None
    include_drafts: bool = False
    sort: Literal["activity", "created"] = "activity"


class RetryInput(Request):
    """How long a failed or expired run is to wait before it is tried again."""

    strategy: RetryStrategy = "exponential_jitter"
    base_seconds: Annotated[int, Meta(ge=0, le=limits.RETRY_BASE_LIMIT_SECONDS)] = 10
    max_seconds: Annotated[int, Meta(ge=0, le=limits.RETRY_LONGEST_LIMIT_SECONDS)] = 3600

    def __post_init__(self) -> None:
        if self.base_seconds > self.max_seconds:
            raise FieldError("base_seconds", "range", "must not be above max_seconds")


# What a request may name; not all of them can be set.
TASK_FIELDS = frozenset(Task.__struct_fields__)


class TaskFields(SlotFields):
    """What every way to create a task takes; an absent field has its default."""

    immutable: ClassVar[frozenset[str]] = TASK_FIELDS

    identifier: Label | UnsetType = UNSET
    scope: Scope | UnsetType = UNSET
    network_channel: Channel | UnsetType = UNSET
    title: Title | UnsetType = UNSET
    description: Description | UnsetType = UNSET
    priority: Priority | UnsetType = UNSET
    max_attempts: Attempts | UnsetType = UNSET
    auto_enqueue_on_ready: bool | UnsetType = UNSET
    owner: OwnerInput | UnsetType = UNSET
    metadata: Metadata | UnsetType = UNSET
    payload: FreeJson | UnsetType = UNSET
    available_at: TimeInput | UnsetType = UNSET
    retry: RetryInput | UnsetType = UNSET
    on_dependency_failure: OnDependencyFailure | UnsetType = UNSET
    max_lease_expiries: Expiries | UnsetType = UNSET
    deadline_seconds: Deadline | UnsetType = UNSET
    review_policy: ReviewPolicy | UnsetType = UNSET
    review_max_rounds: Rounds | UnsetType = UNSET
    review_timeout_seconds: ReviewTimeout | UnsetType = UNSET
    tags: Tags | UnsetType = UNSET
    draft: bool | UnsetType = UNSET
    depends_on: list[Identifier] | UnsetType = UNSET
    execution_profile: ExecutionProfileInput | UnsetType = UNSET

    def __post_init__(self) -> None:
        super().__post_init__()
        self.available_at = in_utc("available_at", self.available_at)
        self.tags = UNSET if self.tags is UNSET else sorted(set(self.tags))


class ChildCreateRequest(TaskFields, kw_only=True):
    """A new child of the task in the path."""

    id: Identifier | UnsetType = UNSET
    title: Title
    workspace: WorkspaceSelector | UnsetType = UNSET


class TaskCreateRequest(ChildCreateRequest):
    """A new task."""

    parent_task_id: Identifier | UnsetType = UNSET


class TaskPatchRequest(SlotPatch):
    """What is to change in a task."""

    immutable: ClassVar[frozenset[str]] = TASK_FIELDS

    identifier: Label | UnsetType | None = UNSET
    network_channel: ChannelPatch | UnsetType | None = UNSET
    title: Title | UnsetType = UNSET
    description: Description | UnsetType | None = UNSET
    priority: Priority | UnsetType = UNSET
    max_attempts: Attempts | UnsetType = UNSET
    auto_enqueue_on_ready: bool | UnsetType = UNSET
    owner: OwnerInput | UnsetType | None = UNSET
    clear_owner: bool | UnsetType = UNSET
    metadata: Metadata | UnsetType | None = UNSET
    payload: FreeJson | UnsetType | None = UNSET
    available_at: TimeInput | UnsetType | None = UNSET
    retry: RetryInput | UnsetType = UNSET
    on_dependency_failure: OnDependencyFailure | UnsetType = UNSET
    max_lease_expiries: Expiries | UnsetType = UNSET
    deadline_seconds: Deadline | UnsetType | None = UNSET
    review_policy: ReviewPolicy | UnsetType = UNSET
    review_max_rounds: Rounds | UnsetType = UNSET
    review_timeout_seconds: ReviewTimeout | UnsetType = UNSET
    tags: Tags | UnsetType = UNSET
    version: Version | UnsetType = UNSET

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clear_owner is True and self.owner:
            raise FieldError("clear_owner", "exclusive", "excludes owner")
        self.owner = None if self.clear_owner is True else self.owner
        self.clear_owner = UNSET
        self.available_at = in_utc("available_at", self.available_at)
        self.tags = UNSET if self.tags is UNSET else sorted(set(self.tags))
