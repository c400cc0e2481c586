"""What the server answers, as far as the SDK reads it: unknown fields are ignored."""

from datetime import datetime
from typing import Any

from msgspec import Struct, field

TERMINAL = frozenset({"completed", "failed", "canceled"})


class Ref(Struct, frozen=True):
    """A kind and a name: an actor, an origin or an owner."""

    kind: str
    ref: str


class Progress(Struct, frozen=True):
    """How far a run has come, as its holder reported it."""

    percent: float | None = None
    message: str | None = None
    updated_at: datetime | None = None


class Usage(Struct, frozen=True):
    """What the work has cost so far."""

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    total_cost: float = 0
    cost_currency: str | None = None
    tool_calls: int = 0
    turns: int = 0


class RetryPolicy(Struct, frozen=True):
    """How long a failed run waits before its next attempt."""

    strategy: str = "exponential_jitter"
    base_seconds: int = 10
    max_seconds: int = 3600


class BudgetRemaining(Struct, frozen=True):
    """What a task may still spend; None is no limit."""

    total_tokens: int | None = None
    cost: float | None = None


class Budget(Struct, frozen=True):
    """What a task may spend; None is no limit."""

    max_total_tokens: int | None = None
    max_cost: float | None = None


class TaskReference(Struct, frozen=True, kw_only=True):
    """A task in one line."""

    id: str
    identifier: str | None = None
    title: str = ""
    status: str = ""
    priority: str = "medium"
    owner: Ref | None = None
    scope: str = "workspace"
    workspace_id: str | None = None
    latest_event_seq: int = 0
    paused: bool = False
    effective_paused: bool = False
    paused_by_task_id: str | None = None


class _TaskFields(TaskReference, frozen=True, kw_only=True):
    parent_task_id: str | None = None
    network_channel: str | None = None
    max_attempts: int = 3
    auto_enqueue_on_ready: bool = False
    approval_policy: str = "none"
    approval_state: str = "not_required"
    approval_timeout_seconds: int | None = None
    on_approval_timeout: str = "wait"
    approval_requested_at: datetime | None = None
    approval_decided_at: datetime | None = None
    approval_decided_by: Ref | None = None
    approval_reason: str | None = None
    approval_expired: bool = False
    draft: bool = False
    current_run_id: str | None = None
    paused_by: str | None = None
    paused_at: datetime | None = None
    paused_reason: str | None = None
    created_by: Ref | None = None
    origin: Ref | None = None
    created_by_agent: str | None = None
    created_by_run_id: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    closed_at: datetime | None = None
    progress: Progress | None = None
    usage: Usage = field(default_factory=Usage)
    fence: int = 0
    version: int = 1
    attempts_used: int = 0
    dependencies_waiting: int = 0
    ready_at: datetime | None = None
    available_at: datetime | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    on_dependency_failure: str = "block"
    review_policy: str = "none"
    review_max_rounds: int = 3
    review_timeout_seconds: int = 86400
    budget: Budget | None = None
    concurrency_key: str | None = None
    concurrency_limit: int | None = None
    max_lease_expiries: int = 3
    deadline_seconds: int | None = None
    tags: list[str] = []

    @property
    def terminal(self) -> bool:
        """Whether the task is completed, failed or canceled."""
        return self.status in TERMINAL


class Task(_TaskFields, frozen=True, kw_only=True):
    """What is to be done, whole; `error` is there where `client.wait` found the task failed."""

    error: str | None = None
    description: str | None = None
    metadata: Any = None
    payload: Any = None
    result: Any = None
    result_bytes: int | None = None
    checkpoint: Any = None
    note: str | None = None


class Dependency(Struct, frozen=True, kw_only=True):
    """An edge to the task that is waited for; `result` is that task's, where it was asked for."""

    task_id: str
    depends_on_task_id: str
    depends_on: TaskReference
    kind: str = "blocks"
    created_at: datetime | None = None
    satisfied: bool = False
    result: Any = None
    result_bytes: int | None = None


class _RunFields(Struct, frozen=True, kw_only=True):
    id: str
    task_id: str
    status: str
    attempt: int = 1
    max_attempts: int = 3
    previous_run_id: str | None = None
    failure_kind: str | None = None
    session_id: str | None = None
    claimed_by: Ref | None = None
    claim_token_hash: str | None = None
    fence: int | None = None
    lease_until: datetime | None = None
    heartbeat_at: datetime | None = None
    lease_expiries: int = 0
    coordination_channel_id: str | None = None
    queued_at: datetime | None = None
    available_at: datetime | None = None
    claimed_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    error: str | None = None
    progress: Progress | None = None


class RunSummary(_RunFields, frozen=True, kw_only=True):
    """A run without its wide fields."""


class Run(_RunFields, frozen=True, kw_only=True):
    """One attempt at a task."""

    priority: str = "medium"
    retryable: bool | None = None
    agent_name: str | None = None
    origin: Ref | None = None
    idempotency_key: str | None = None
    network_channel: str | None = None
    claim_kind: str | None = None
    claim_count: int = 0
    lease_seconds: int | None = None
    deadline_at: datetime | None = None
    first_queued_at: datetime | None = None
    metadata: Any = None
    result: Any = None
    result_bytes: int | None = None
    usage: Usage = field(default_factory=Usage)
    note: str | None = None
    parent_run_id: str | None = None
    review_id: str | None = None
    review_round: int | None = None
    continuation_reason: str | None = None
    missing_work: Any = None
    next_round_guidance: str | None = None


class RunPage(Struct, frozen=True):
    """A page of runs, newest first."""

    runs: list[Run]
    next_cursor: str | None = None


class TaskSummary(_TaskFields, frozen=True, kw_only=True):
    """A task in a list: without its wide fields, with its open run."""

    child_count: int = 0
    dependency_count: int = 0
    dependencies: list[Dependency] = []
    active_run: RunSummary | None = None
    last_activity_at: datetime | None = None


class LeaseState(Struct, frozen=True, kw_only=True):
    """The time-limited right to a run, as the server sees it."""

    task_id: str
    run_id: str
    status: str
    session_id: str | None = None
    claimed_by: Ref | None = None
    claim_token: str | None = None
    claim_token_hash: str | None = None
    fence: int | None = None
    lease_until: datetime | None = None
    heartbeat_at: datetime | None = None
    lease_seconds: int | None = None
    deadline_at: datetime | None = None


class Claim(Struct, frozen=True, kw_only=True):
    """A run with its lease, and everything the work starts from."""

    task: TaskReference
    run: Run
    lease: LeaseState
    payload: Any = None
    checkpoint: Any = None
    note: str | None = None
    description: str | None = None
    previous_error: str | None = None
    budget_remaining: BudgetRemaining | None = None
    execution_profile: Any = None


class Event(Struct, frozen=True, kw_only=True):
    """A row of the log; `sequence` is None where the place in the log is not told."""

    id: str
    event_type: str
    timestamp: datetime
    sequence: int | None = None
    task_id: str | None = None
    run_id: str | None = None
    actor: Ref | None = None
    origin: Ref | None = None
    payload: Any = None


class TimelineItem(Struct, frozen=True, kw_only=True):
    """An event beside its task and run as they are now; both are None once deleted."""

    sequence: int
    event_id: str
    event_type: str
    timestamp: datetime
    task: TaskReference | None = None
    run: RunSummary | None = None
    actor: Ref | None = None
    origin: Ref | None = None
    payload: Any = None


class TaskDetail(Struct, frozen=True, kw_only=True):
    """A task with its newest neighbours; the lists are cut, page the routes for more."""

    task: Task
    summary: TaskSummary
    children: list[TaskSummary] = []
    dependencies: list[Any] = []
    dependency_references: list[Dependency] = []
    runs: list[Run] = []
    events: list[Event] = []
