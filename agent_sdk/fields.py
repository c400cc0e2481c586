"""What may be said in a request: the keyword arguments of the calls, once each."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypedDict

Priority = Literal["low", "medium", "high", "urgent"]
OnDependencyFailure = Literal["block", "cancel", "run"]


class OwnerFields(TypedDict):
    """Whose task it is."""

    kind: str
    ref: str


class RetryFields(TypedDict, total=False):
    """How long a failed run waits before its next attempt."""

    strategy: Literal["exponential_jitter", "linear", "fixed", "none"]
    base_seconds: int
    max_seconds: int


class BudgetFields(TypedDict, total=False):
    """What a task may spend; None is no limit."""

    max_total_tokens: int | None
    max_cost: float | None


class _ChangeableFields(TypedDict, total=False):
    identifier: str | None
    network_channel: str | None
    description: str | None
    priority: Priority
    max_attempts: int
    auto_enqueue_on_ready: bool
    owner: OwnerFields | None
    metadata: Any
    payload: Any
    available_at: datetime | None
    retry: RetryFields
    on_dependency_failure: OnDependencyFailure
    max_lease_expiries: int
    deadline_seconds: int | None
    approval_policy: Literal["none", "manual"]
    approval_timeout_seconds: int | None
    on_approval_timeout: Literal["wait", "reject"]
    review_policy: Literal["none", "on_success", "on_failure", "always"]
    review_max_rounds: int
    review_timeout_seconds: int
    budget: BudgetFields | None
    concurrency_key: str | None
    concurrency_limit: int | None
    tags: Sequence[str]


class SpawnFields(_ChangeableFields, total=False):
    """A task whose id and parent are settled by the call."""

    scope: Literal["workspace", "global"]
    title: str
    draft: bool
    depends_on: Sequence[str]
    execution_profile: Mapping[str, Any]


class ChildFields(SpawnFields, total=False):
    """A task whose parent is settled by the call."""

    id: str


class TaskFields(ChildFields, total=False):
    """Everything that may be said of a new task."""

    parent_task_id: str


class TaskChanges(_ChangeableFields, total=False):
    """What may be changed of a task; a field given as None is cleared."""

    title: str
    clear_owner: bool


class TaskFilter(TypedDict, total=False):
    """Which tasks a list shows; a list of values means any of them."""

    scope: str
    status: str | Sequence[str]
    priority: str | Sequence[str]
    approval_state: str
    owner_kind: str
    owner_ref: str
    parent_task_id: str
    network_channel: str
    tag: str | Sequence[str]
    identifier: str
    query: str
    include_drafts: bool
    sort: Literal["activity", "created"]


class RunFilter(TypedDict, total=False):
    """Which runs a list shows; stuck: those that missed a heartbeat."""

    status: str | Sequence[str]
    agent_name: str
    session_id: str
    task_id: str
    stuck: bool


class EventFilter(TypedDict, total=False):
    """Which events a list shows."""

    after_sequence: int
    task_id: str
    run_id: str
    event_type: str | Sequence[str]
    actor_kind: str
    actor_ref: str
    since: str
    until: str
    order: Literal["asc", "desc"]


class ClaimFields(TypedDict, total=False):
    """What a claimer can do and wants."""

    capabilities: Sequence[str]
    priority_min: int | Priority
    channel: str | None
    peer_id: str | None
    lease_seconds: int | None
    max_runs: int
    wait_seconds: int


class ReviewClaimFields(TypedDict, total=False):
    """What a reviewer can do."""

    capabilities: Sequence[str]
    channel: str | None
    peer_id: str | None
    lease_seconds: int | None
    wait_seconds: int


class ReviewFields(TypedDict, total=False):
    """What may be said of a review that is asked for by hand."""

    policy: Literal["on_success", "on_failure", "always"]
    review_round: int
    attempt: int
    parent_review_id: str
    reason: str
    deadline_at: datetime


class ReviewFilter(TypedDict, total=False):
    """Which reviews of a task or run a list shows."""

    status: str | Sequence[str]
    reviewer_session_id: str
    limit: int
    cursor: str | None


class InboxFilter(TypedDict, total=False):
    """What an inbox shows; only one lane can be paged."""

    scope: str
    owner_kind: str
    owner_ref: str
    lane: Literal["my_work", "approvals", "failed_runs", "blocked", "archived"]
    unread: bool
    query: str
    limit: int
    cursor: str | None


class DashboardFilter(TypedDict, total=False):
    """Which tasks a dashboard counts."""

    scope: str
    owner_kind: str
    owner_ref: str
    network_channel: str
    origin_kind: str


class UsageFields(TypedDict, total=False):
    """What the work has cost."""

    input_tokens: int
    output_tokens: int
    total_cost: float
    cost_currency: str
    tool_calls: int
    turns: int


class ProgressFields(TypedDict, total=False):
    """How far the work has come."""

    percent: float | None
    message: str | None


class ReportFields(TypedDict, total=False):
    """What every call of a holder may carry."""

    checkpoint: Any
    usage: UsageFields


class HeartbeatFields(ReportFields, total=False):
    """What a heartbeat may carry."""

    lease_seconds: int
    progress: ProgressFields


class ReleaseFields(ReportFields, total=False):
    """What may be said of a run that is given back."""

    reason: str | None
    note: str | None
    delay_seconds: int


class FailureFields(TypedDict, total=False):
    """What may be said of a failure."""

    failure_kind: str
    retryable: bool
    retry_after_seconds: int
    metadata: Any


class FailFields(FailureFields, ReportFields, total=False):
    """What a holder may say of its failure."""


class BridgeChanges(TypedDict, total=False):
    """What may be changed of a bridge; `workspace_event_types` given as None is cleared."""

    name: str
    url: str
    enabled: bool
    workspace_event_types: Sequence[str] | None
    rotate_secret: bool
    version: int


class SubscriptionFields(TypedDict, total=False):
    """What a subscription may say of itself; a thread needs a peer or a group."""

    subscription_id: str
    delivery_mode: Literal["direct-send", "reply"]
    peer_id: str
    thread_id: str
    group_id: str
    event_types: Sequence[str]
