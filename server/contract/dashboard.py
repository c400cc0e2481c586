"""The dashboard: what there is, how fast it moves, and what ails it."""

from typing import Literal

from server.contract.base import Answer, OriginKind, Priority, Query, Time
from server.contract.references import Owner, OwnerKind, RunStatus, Scope, TaskStatus

Health = Literal["ok", "warn"]


class DashboardTotals(Answer):
    """How many tasks and runs there are, by status."""

    tasks_total: int
    runs_total: int
    draft_tasks: int
    pending_tasks: int
    ready_tasks: int
    blocked_tasks: int
    in_progress_tasks: int
    completed_tasks: int
    failed_tasks: int
    canceled_tasks: int
    queued_runs: int
    claimed_runs: int
    starting_runs: int
    running_runs: int
    completed_runs: int
    failed_runs: int
    canceled_runs: int
    needs_attention_runs: int
    awaiting_approval_tasks: int
    dependency_blocked_tasks: int
    active_runs: int


class InProgressCard(Answer):
    """What is being worked on."""

    tasks: int
    active_runs: int
    claimed_runs: int
    queued_runs: int
    running_runs: int
    starting_runs: int
    health_status: Health


class BlockedCard(Answer):
    """What cannot go on."""

    tasks: int
    awaiting_approval: int
    awaiting_dependencies: int
    health_status: Health


class FailedCard(Answer):
    """What failed, and what was stopped by hand in the last 24 hours."""

    tasks: int
    failed_runs: int
    forced_stops: int
    health_status: Health


class Latency(Answer):
    """How long something took in the last 24 hours."""

    samples: int
    average_ms: int
    maximum_ms: int


class LatencyCard(Answer):
    """How long runs waited for a claim, and claims for their start."""

    claim_latency_ms: Latency
    start_latency_ms: Latency


class DashboardCards(Answer):
    """The cards of a dashboard."""

    in_progress: InProgressCard
    blocked: BlockedCard
    failed: FailedCard
    latency: LatencyCard


class StatusShare(Answer):
    """How many tasks have a status."""

    status: TaskStatus
    count: int
    share_percent: int


class QueueDepth(Answer):
    """The claimable runs of one channel."""

    network_channel: str | None
    count: int
    oldest_queued_at: Time | None
    oldest_queue_age_ms: int


class DashboardQueue(Answer):
    """The claimable runs."""

    total: int
    oldest_queued_at: Time | None
    oldest_queue_age_ms: int
    depth: list[QueueDepth]
    backlog_threshold_ms: int
    backlog_warning: bool
    backlog_status: Health


class DashboardHealth(Answer):
    """What ails the runs."""

    stuck_runs: int
    active_orphan_runs: int
    queue_backlog: bool
    status: Health


class ActiveRun(Answer):
    """A run that is queued or under way."""

    run_id: str
    run_status: RunStatus
    attempt: int
    max_attempts: int
    task_id: str
    task_title: str
    task_identifier: str | None
    task_status: TaskStatus
    task_priority: Priority
    task_owner: Owner | None
    scope: Scope
    workspace_id: str | None
    network_channel: str | None
    session_id: str | None
    error: str | None
    last_activity_at: Time
    latest_event_seq: int
    age_ms: int
    stuck: bool
    health_status: Health


class ActiveRuns(Answer):
    """How many runs are active, and the first few."""

    total: int
    queued: int
    claimed: int
    starting: int
    running: int
    items: list[ActiveRun]


class Freshness(Answer):
    """How old the newest news is."""

    observed_at: Time
    latest_activity_at: Time | None
    age_ms: int
    stale_after_ms: int
    has_live_work: bool
    stale: bool
    status: Literal["empty", "stale", "current"]


class Dashboard(Answer):
    """All of it, at one instant."""

    totals: DashboardTotals
    cards: DashboardCards
    status_breakdown: list[StatusShare]
    queue: DashboardQueue
    health: DashboardHealth
    active_runs: ActiveRuns
    freshness: Freshness


class DashboardResponse(Answer):
    """The dashboard."""

    dashboard: Dashboard


class DashboardQuery(Query):
    """Which tasks, and runs of them, to count."""

    scope: Scope | None = None
    owner_kind: OwnerKind | None = None
    owner_ref: str | None = None
    network_channel: str | None = None
    origin_kind: OriginKind | None = None
