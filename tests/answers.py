"""What each endpoint that callers know answers: its status and its shape, None for no body."""

from typing import Any, Literal

from tests.shapes import (
    ApprovalState,
    Claim,
    Diagnostic,
    Health,
    Inspection,
    Lane,
    Lease,
    MaybeText,
    MaybeTime,
    Priority,
    Profile,
    Ref,
    Review,
    Run,
    RunDetail,
    RunStatus,
    RunSummary,
    Scheduler,
    Scope,
    Subscription,
    Task,
    TaskDetail,
    TaskReference,
    TaskStatus,
    TaskSummary,
    Time,
    TimelineItem,
    TreeNode,
    Triage,
    many,
    shape,
    some,
)

Latency = shape("Latency", {int: "samples average_ms maximum_ms"})
ActiveRun = shape(
    "ActiveRun",
    {
        str: "run_id task_id task_title",
        MaybeText: "error network_channel session_id task_identifier workspace_id",
        int: "attempt max_attempts age_ms latest_event_seq",
    },
    run_status=RunStatus, task_status=TaskStatus, task_priority=Priority, task_owner=Ref | None,
    scope=Scope, last_activity_at=Time, stuck=bool, health_status=Health,
)  # fmt: skip
Queue = shape(
    "Queue", {int: "total backlog_threshold_ms"}, backlog_status=Health, backlog_warning=bool,
    oldest_queued_at=MaybeTime, oldest_queue_age_ms=int | None,
    depth=some(
        shape(
            "Depth", {int: "count oldest_queue_age_ms"}, network_channel=MaybeText,
            oldest_queued_at=Time,
        )
    ),
)  # fmt: skip
Dashboard = shape(
    "Dashboard",
    totals=shape(
        "Totals",
        {
            int: "tasks_total runs_total draft_tasks pending_tasks ready_tasks blocked_tasks"
            " in_progress_tasks completed_tasks failed_tasks canceled_tasks queued_runs"
            " claimed_runs starting_runs running_runs completed_runs failed_runs canceled_runs"
            " active_runs awaiting_approval_tasks dependency_blocked_tasks"
        },
    ),
    cards=shape(
        "Cards",
        in_progress=shape(
            "InProgress",
            {int: "tasks active_runs claimed_runs queued_runs running_runs starting_runs"},
            health_status=Health,
        ),
        blocked=shape(
            "Blocked", {int: "tasks awaiting_approval awaiting_dependencies"}, health_status=Health
        ),
        failed=shape("Failed", {int: "tasks failed_runs forced_stops"}, health_status=Health),
        latency=shape("Latencies", {Latency: "claim_latency_ms start_latency_ms"}),
    ),
    status_breakdown=some(
        shape("Share", {int: "count share_percent"}, status=TaskStatus)
    ),
    queue=Queue,
    health=shape(
        "Healthy", {int: "stuck_runs active_orphan_runs"}, queue_backlog=bool, status=Health
    ),
    active_runs=shape(
        "ActiveRuns", {int: "total queued claimed starting running"}, items=some(ActiveRun)
    ),
    freshness=shape(
        "Freshness", {int: "age_ms stale_after_ms", bool: "has_live_work stale"},
        status=Literal["empty", "stale", "current"], observed_at=Time, latest_activity_at=Time,
    ),
)  # fmt: skip
InboxItem = shape(
    "InboxItem", lane=Lane, task=TaskReference, run=RunSummary | None, triage=Triage,
    approval_policy=Literal["none", "manual"], approval_state=ApprovalState,
    blocking_reason=MaybeText, latest_activity_at=Time,
)  # fmt: skip
Inbox = shape(
    "Inbox", {int: "total unread_total archived_total"},
    groups=some(
        shape("Group", {int: "count unread_count"}, lane=Lane, items=many(InboxItem))
    ),
)  # fmt: skip
Refusal = shape("Refusal", error=str, diagnostic=Diagnostic)
Results = shape(
    "Results", results=some(
        shape("Result", run_id=str, ok=bool, run=Run | None, error=Refusal | None)
    ),
)  # fmt: skip

task = shape("AnswerTask", task=Task)
detail = shape("AnswerDetail", task=TaskDetail)
task_run = shape("AnswerTaskRun", task=Task, run=Run)
run = shape("AnswerRun", run=Run)
pair = shape("AnswerPair", previous_run=Run, run=Run)
lease = shape("AnswerLease", lease=Lease)
review = shape("AnswerReview", review=Review)
reviews = shape("AnswerReviews", reviews=some(Review))
profile = shape("AnswerProfile", profile=Profile)
subscription = shape("AnswerSubscription", subscription=Subscription)
inspection = shape("AnswerInspection", inspect=Inspection)
scheduler = shape("AnswerScheduler", scheduler=Scheduler)
triage = shape("AnswerTriage", triage=Triage)

ANSWERS: dict[str, tuple[int, Any]] = {
    "POST /api/agent/tasks/claim-next": (200, shape("Claimed", claim=Claim)),
    "POST /api/agent/tasks/{run_id}/heartbeat": (200, lease),
    "POST /api/agent/tasks/{run_id}/complete": (200, lease),
    "POST /api/agent/tasks/{run_id}/fail": (200, lease),
    "POST /api/agent/tasks/{run_id}/release": (200, lease),
    "GET /api/tasks": (200, shape("Tasks", tasks=some(TaskSummary))),
    "POST /api/tasks": (201, task),
    "GET /api/tasks/{id}": (200, detail),
    "PATCH /api/tasks/{id}": (200, task),
    "DELETE /api/tasks/{id}": (204, None),
    "POST /api/tasks/{id}/children": (201, task),
    "POST /api/tasks/{id}/publish": (200, task_run),
    "POST /api/tasks/{id}/start": (201, task_run),
    "POST /api/tasks/{id}/approve": (201, task_run),
    "POST /api/tasks/{id}/reject": (200, task),
    "POST /api/tasks/{id}/cancel": (200, task),
    "POST /api/tasks/{id}/pause": (200, task),
    "POST /api/tasks/{id}/resume": (200, task),
    "POST /api/tasks/{id}/dependencies": (200, detail),
    "DELETE /api/tasks/{id}/dependencies/{depends_on_id}": (200, detail),
    "GET /api/tasks/{id}/execution-profile": (200, profile),
    "PUT /api/tasks/{id}/execution-profile": (200, profile),
    "DELETE /api/tasks/{id}/execution-profile": (204, None),
    "GET /api/tasks/{id}/runs": (200, shape("Runs", runs=some(Run))),
    "POST /api/tasks/{id}/runs": (201, run),
    "GET /api/tasks/{id}/reviews": (200, reviews),
    "GET /api/tasks/{id}/timeline": (200, shape("Timeline", timeline=some(TimelineItem))),
    "GET /api/tasks/{id}/stream": (
        200, shape("StreamEvent", sequence=int, type=str, timeline=TimelineItem)
    ),
    "GET /api/tasks/{id}/tree": (
        200, shape("AnswerTree", tree=shape("Tree", root=TreeNode, descendants=some(TreeNode)))
    ),
    "GET /api/tasks/{id}/inspect": (200, inspection),
    "POST /api/tasks/{id}/triage/read": (200, triage),
    "POST /api/tasks/{id}/triage/archive": (200, triage),
    "POST /api/tasks/{id}/triage/dismiss": (200, triage),
    "GET /api/tasks/{id}/notifications/bridges": (
        200, shape("Subscriptions", subscriptions=some(Subscription))
    ),
    "POST /api/tasks/{id}/notifications/bridges": (201, subscription),
    "GET /api/tasks/{id}/notifications/bridges/{subscription_id}": (200, subscription),
    "DELETE /api/tasks/{id}/notifications/bridges/{subscription_id}": (204, None),
    "GET /api/task-runs/{id}": (200, shape("AnswerRunDetail", run=RunDetail)),
    "POST /api/task-runs/{id}/claim": (200, run),
    "POST /api/task-runs/{id}/attach-session": (200, run),
    "POST /api/task-runs/{id}/start": (200, run),
    "POST /api/task-runs/{id}/complete": (200, run),
    "POST /api/task-runs/{id}/fail": (200, run),
    "POST /api/task-runs/{id}/cancel": (200, run),
    "GET /api/task-runs/{id}/reviews": (200, reviews),
    "POST /api/task-runs/{id}/reviews": (201, shape("Asked", created=bool, review=Review)),
    "GET /api/task-reviews/{id}": (200, review),
    "POST /api/task-reviews/{id}/verdict": (
        200, shape("Judged", review=Review, continuation_run=Run | None, circuit_opened=bool)
    ),
    "POST /api/runs/{id}/release": (200, run),
    "POST /api/runs/{id}/fail": (200, run),
    "POST /api/runs/{id}/retry": (201, pair),
    "POST /api/runs/{id}/recover": (201, pair),
    "GET /api/runs/{id}/inspect": (200, inspection),
    "POST /api/runs/bulk/release": (200, Results),
    "POST /api/runs/bulk/fail": (200, Results),
    "GET /api/scheduler": (200, scheduler),
    "GET /api/scheduler/backlog": (
        200, shape(
            "AnswerBacklog", backlog=shape(
                "Backlog", total=int, runs=some(shape("Queued", task=TaskSummary, run=Run))
            ),
        ),
    ),
    "POST /api/scheduler/pause": (200, scheduler),
    "POST /api/scheduler/resume": (200, scheduler),
    "POST /api/scheduler/drain": (
        200, shape(
            "Drained", {bool: "completed timed_out"}, scheduler=Scheduler, remaining_claims=int,
            started_at=Time, completed_at=MaybeTime,
        ),
    ),
    "GET /api/observe/tasks/dashboard": (200, shape("AnswerDashboard", dashboard=Dashboard)),
    "GET /api/observe/tasks/inbox": (200, shape("AnswerInbox", inbox=Inbox)),
}  # fmt: skip
