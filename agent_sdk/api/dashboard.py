"""The dashboard: the workspace in numbers, all of one instant."""

from datetime import datetime
from typing import Unpack

from msgspec import Struct

from agent_sdk.fields import DashboardFilter
from agent_sdk.transport import Transport
from agent_sdk.types import Ref


class Totals(Struct, frozen=True, kw_only=True):
    """Tasks and runs by status."""

    tasks_total: int = 0
    runs_total: int = 0
    draft_tasks: int = 0
    pending_tasks: int = 0
    ready_tasks: int = 0
    blocked_tasks: int = 0
    in_progress_tasks: int = 0
    completed_tasks: int = 0
    failed_tasks: int = 0
    canceled_tasks: int = 0
    awaiting_approval_tasks: int = 0
    dependency_blocked_tasks: int = 0
    active_runs: int = 0
    queued_runs: int = 0
    claimed_runs: int = 0
    starting_runs: int = 0
    running_runs: int = 0
    completed_runs: int = 0
    failed_runs: int = 0
    canceled_runs: int = 0
    needs_attention_runs: int = 0


class InProgressCard(Struct, frozen=True, kw_only=True):
    """What is worked on."""

    tasks: int = 0
    active_runs: int = 0
    claimed_runs: int = 0
    queued_runs: int = 0
    running_runs: int = 0
    starting_runs: int = 0
    health_status: str = "ok"


class BlockedCard(Struct, frozen=True, kw_only=True):
    """What waits for something."""

    tasks: int = 0
    awaiting_approval: int = 0
    awaiting_dependencies: int = 0
    health_status: str = "ok"


class FailedCard(Struct, frozen=True, kw_only=True):
    """What has failed; `forced_stops` are those of the last day."""

    tasks: int = 0
    failed_runs: int = 0
    forced_stops: int = 0
    health_status: str = "ok"


class Latency(Struct, frozen=True, kw_only=True):
    """How long something took during the last day."""

    samples: int = 0
    average_ms: int = 0
    maximum_ms: int = 0


class LatencyCard(Struct, frozen=True, kw_only=True):
    """How long runs waited for their claim, and for their first heartbeat after it."""

    claim_latency_ms: Latency = Latency()
    start_latency_ms: Latency = Latency()


class Cards(Struct, frozen=True, kw_only=True):
    """The numbers that matter most, by what they are about."""

    in_progress: InProgressCard
    blocked: BlockedCard
    failed: FailedCard
    latency: LatencyCard


class StatusShare(Struct, frozen=True, kw_only=True):
    """How many tasks have a status, and their share."""

    status: str
    count: int = 0
    share_percent: int = 0


class QueueDepth(Struct, frozen=True, kw_only=True):
    """What can be claimed on one channel; None is the work without a channel."""

    network_channel: str | None = None
    count: int = 0
    oldest_queued_at: datetime | None = None
    oldest_queue_age_ms: int | None = None


class Queue(Struct, frozen=True, kw_only=True):
    """What can be claimed now."""

    total: int = 0
    depth: list[QueueDepth] = []
    oldest_queued_at: datetime | None = None
    oldest_queue_age_ms: int | None = None
    backlog_threshold_ms: int = 0
    backlog_warning: bool = False
    backlog_status: str = "ok"


class Health(Struct, frozen=True, kw_only=True):
    """What does not go as it should."""

    status: str = "ok"
    stuck_runs: int = 0
    active_orphan_runs: int = 0
    queue_backlog: bool = False


class ActiveRun(Struct, frozen=True, kw_only=True):
    """An open run, with what a line about it needs."""

    run_id: str
    run_status: str
    task_id: str
    task_title: str
    task_status: str
    attempt: int = 1
    max_attempts: int = 3
    task_identifier: str | None = None
    task_priority: str = "medium"
    task_owner: Ref | None = None
    scope: str = "workspace"
    workspace_id: str | None = None
    network_channel: str | None = None
    session_id: str | None = None
    error: str | None = None
    last_activity_at: datetime | None = None
    latest_event_seq: int = 0
    age_ms: int = 0
    stuck: bool = False
    health_status: str = "ok"


class ActiveRuns(Struct, frozen=True, kw_only=True):
    """How many runs are open, and four of them."""

    total: int = 0
    queued: int = 0
    claimed: int = 0
    starting: int = 0
    running: int = 0
    items: list[ActiveRun] = []


class Freshness(Struct, frozen=True, kw_only=True):
    """When something happened last."""

    status: str
    observed_at: datetime | None = None
    latest_activity_at: datetime | None = None
    age_ms: int | None = None
    stale_after_ms: int = 0
    has_live_work: bool = False
    stale: bool = False


class Dashboard(Struct, frozen=True, kw_only=True):
    """The workspace in numbers."""

    totals: Totals
    cards: Cards
    queue: Queue
    health: Health
    active_runs: ActiveRuns
    freshness: Freshness
    status_breakdown: list[StatusShare] = []


class _Dashboard(Struct, frozen=True):
    dashboard: Dashboard


class Dashboards:
    """`client.dashboard`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self, **filters: Unpack[DashboardFilter]) -> Dashboard:
        """The workspace in numbers."""
        path = "/api/observe/tasks/dashboard"
        return self._transport.call(_Dashboard, "GET", path, query=filters).dashboard
