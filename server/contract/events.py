"""An event: a row of the log."""

from typing import Annotated, Literal

from msgspec import Meta

from server.contract.base import (
    Actor,
    ActorKind,
    Answer,
    Json,
    Origin,
    PageQuery,
    Time,
    TimeInput,
    in_utc,
)
from server.contract.references import RunSummary, TaskReference

Sequence = Annotated[int, Meta(ge=0, le=2**63 - 1)]

EventType = Literal[
    "task.created", "task.updated", "task.published", "task.approved", "task.rejected",
    "task.approval_overdue", "task.approval_requested", "task.canceled", "task.deleted",
    "task.child_created", "task.dependency_added", "task.dependency_removed",
    "task.status_changed", "task.paused", "task.resumed", "task.execution_profile_updated",
    "task.execution_profile_deleted", "task.subscription_created", "task.subscription_deleted",
    "task.run_enqueued", "task.run_claimed", "task.run_session_bound", "task.run_started",
    "task.run_progress", "task.run_completed", "task.run_failed", "task.run_released",
    "task.run_lease_expired", "task.run_needs_attention", "task.run_starved",
    "task.run_canceled", "task.run_operator_forced_fail", "task.run_operator_retry",
    "task.run_recovered_from_attention", "task.run_review_requested", "task.run_review_bound",
    "task.run_review_started", "task.run_review_released", "task.run_review_recorded",
    "task.run_review_approved", "task.run_review_rejected", "task.run_review_blocked",
    "task.run_review_error", "task.run_review_timeout", "task.run_review_invalid_output",
    "task.run_review_circuit_opened", "task.run_review_canceled",
    "task.run_review_retry_enqueued", "scheduler.paused", "scheduler.resumed",
    "scheduler.drain_started", "scheduler.drain_completed", "bridge.created", "bridge.updated",
    "bridge.disabled", "bridge.deleted", "key.created", "key.rotated", "key.revoked",
    "workspace.updated",
]  # fmt: skip


class Event(Answer):
    """What happened, to which task and run, by whom."""

    id: str
    task_id: str | None
    run_id: str | None
    event_type: str
    actor: Actor
    origin: Origin
    payload: Json
    payload_bytes: int
    timestamp: Time


class LogEvent(Event):
    """An event with its place in the workspace's log."""

    sequence: int


class TimelineItem(Answer):
    """An event with its task and run as they are now."""

    sequence: int
    event_id: str
    task: TaskReference | None
    run: RunSummary | None
    event_type: str
    actor: Actor
    origin: Origin
    payload: Json
    payload_bytes: int
    timestamp: Time


class TimelineResponse(Answer):
    """A page of a task's timeline."""

    timeline: list[TimelineItem]
    next_cursor: str | None


class EventListResponse(Answer):
    """A page of the workspace's log."""

    events: list[LogEvent]
    next_cursor: str | None
    latest_sequence: int


class TimelineQuery(PageQuery):
    """From where to read a task's timeline."""

    after_sequence: Sequence = 0


class EventListQuery(PageQuery):
    """Which events of the log to list."""

    after_sequence: Sequence | None = None
    task_id: str | None = None
    run_id: str | None = None
    event_type: list[EventType] | None = None
    actor_kind: ActorKind | None = None
    actor_ref: str | None = None
    since: TimeInput | None = None
    until: TimeInput | None = None
    order: Literal["asc", "desc"] = "asc"

    def __post_init__(self) -> None:
        self.since, self.until = in_utc("since", self.since), in_utc("until", self.until)
