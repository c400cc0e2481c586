"""How a task or run appears inside other objects."""

from typing import Annotated, Literal

from msgspec import Meta

from server import limits
from server.contract.base import BYTES, Actor, Answer, Priority, Progress, Request, Time

Scope = Literal["workspace", "global"]
TaskStatus = Literal[
    "draft", "blocked", "ready", "in_progress", "pending", "completed", "failed", "canceled"
]
RunStatus = Literal[
    "queued",
    "claimed",
    "starting",
    "running",
    "completed",
    "failed",
    "canceled",
    "needs_attention",
]
ReviewPolicy = Literal["none", "on_success", "on_failure", "always"]
OwnerKind = Literal["human", "agent_session", "automation", "extension", "network_peer", "pool"]
MessageKind = Literal[
    "status", "request", "reply", "blocker", "handoff", "result", "review_request"
]


class Owner(Answer):
    """Whose a task is."""

    kind: OwnerKind
    ref: str


class OwnerInput(Request):
    """Whose a task is to be."""

    kind: OwnerKind
    ref: Annotated[str, Meta(min_length=1, max_length=limits.OWNER_REF_LIMIT_BYTES, extra=BYTES)]


class CoordinationChannel(Answer):
    """Where those who work on one run talk; computed, not stored."""

    id: str
    channel: str
    display_name: str
    purpose: Literal["task_run_coordination"]
    workspace_id: str
    task_id: str
    run_id: str
    workflow_id: str | None
    allowed_message_kinds: list[MessageKind]
    last_activity_at: Time


class TaskReference(Answer):
    """A task in few words, all live values."""

    id: str
    identifier: str | None
    title: str
    status: TaskStatus
    priority: Priority
    owner: Owner | None
    scope: Scope
    workspace_id: str | None
    latest_event_seq: int
    paused: bool
    effective_paused: bool
    paused_by_task_id: str | None


class RunSummary(Answer):
    """A run in few words."""

    id: str
    task_id: str
    status: RunStatus
    attempt: int
    max_attempts: int
    previous_run_id: str | None
    failure_kind: str | None
    session_id: str | None
    claimed_by: Actor | None
    claim_token_hash: str | None
    fence: int | None
    lease_until: Time | None
    heartbeat_at: Time | None
    lease_expiries: int
    coordination_channel_id: str
    coordination_channel: CoordinationChannel | None
    queued_at: Time
    available_at: Time
    claimed_at: Time | None
    started_at: Time | None
    ended_at: Time | None
    error: str | None
    progress: Progress | None
