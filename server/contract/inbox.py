"""The inbox: what needs a person, and what each actor has seen of it."""

from typing import Literal

from server.contract.approvals import ApprovalPolicy, ApprovalState
from server.contract.base import Actor, Answer, PageQuery, Request, Time
from server.contract.references import OwnerKind, RunSummary, Scope, TaskReference

InboxLane = Literal["my_work", "approvals", "failed_runs", "blocked", "archived"]
BlockingReason = Literal[
    "awaiting_approval",
    "approval_rejected",
    "needs_attention",
    "latest_run_failed",
    "review_pending",
    "review_blocked",
    "dependency_failed",
    "awaiting_dependencies",
]


class TriageState(Answer):
    """What an actor did to a task."""

    task_id: str
    actor: Actor
    read: bool
    archived: bool
    dismissed: bool
    last_seen_activity_at: Time | None
    updated_at: Time | None


class TriageRequest(Request):
    """Nothing: the path says which task, and what the caller did to it."""


class TriageResponse(Answer):
    """What the actor did to the task, as it is now."""

    triage: TriageState


class InboxItem(Answer):
    """A task in an inbox."""

    lane: InboxLane
    task: TaskReference
    run: RunSummary | None
    triage: TriageState
    approval_policy: ApprovalPolicy
    approval_state: ApprovalState
    blocking_reason: BlockingReason | None
    latest_activity_at: Time


class InboxGroup(Answer):
    """A lane; its counts are of all its tasks, not only of those shown."""

    lane: InboxLane
    count: int
    unread_count: int
    items: list[InboxItem]
    next_cursor: str | None


class Inbox(Answer):
    """What needs the actor, by lane."""

    groups: list[InboxGroup]
    total: int
    unread_total: int
    archived_total: int


class InboxResponse(Answer):
    """The inbox of the caller."""

    inbox: Inbox


class InboxQuery(PageQuery):
    """What of the inbox to show; a cursor is of one lane."""

    scope: Scope | None = None
    owner_kind: OwnerKind | None = None
    owner_ref: str | None = None
    lane: InboxLane | None = None
    unread: bool | None = None
    query: str | None = None
