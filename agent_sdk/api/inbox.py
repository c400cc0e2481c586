"""The inbox: what needs this caller, and what it has done with that."""

from datetime import datetime
from typing import Unpack

from msgspec import Struct

from agent_sdk.fields import InboxFilter
from agent_sdk.transport import Transport, segment
from agent_sdk.types import Ref, RunSummary, TaskReference


class Triage(Struct, frozen=True, kw_only=True):
    """What a caller has done with a task in its inbox."""

    task_id: str
    actor: Ref | None = None
    read: bool = False
    archived: bool = False
    dismissed: bool = False
    last_seen_activity_at: datetime | None = None
    updated_at: datetime | None = None


class InboxItem(Struct, frozen=True, kw_only=True):
    """A task that needs somebody; `blocking_reason` says what for."""

    lane: str
    task: TaskReference
    triage: Triage
    run: RunSummary | None = None
    approval_policy: str = "none"
    approval_state: str = "not_required"
    blocking_reason: str | None = None
    latest_activity_at: datetime | None = None


class InboxGroup(Struct, frozen=True, kw_only=True):
    """A lane of an inbox, unread items first; the counts are those of the whole lane."""

    lane: str
    count: int
    unread_count: int
    items: list[InboxItem]
    next_cursor: str | None = None


class Inbox(Struct, frozen=True, kw_only=True):
    """What needs this caller, by lane."""

    groups: list[InboxGroup]
    total: int = 0
    unread_total: int = 0
    archived_total: int = 0


class _Inbox(Struct, frozen=True):
    inbox: Inbox


class _Triage(Struct, frozen=True):
    triage: Triage


class Inboxes:
    """`client.inbox`: each caller has its own."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self, **filters: Unpack[InboxFilter]) -> Inbox:
        """What needs this caller."""
        path = "/api/observe/tasks/inbox"
        return self._transport.call(_Inbox, "GET", path, query=filters).inbox

    def read(self, task_id: str) -> Triage:
        """Mark a task as read, until something happens to it."""
        return self._mark(task_id, "read")

    def archive(self, task_id: str) -> Triage:
        """Put a task away, whatever happens to it."""
        return self._mark(task_id, "archive")

    def unarchive(self, task_id: str) -> Triage:
        """Take a task out of the archive."""
        return self._mark(task_id, "unarchive")

    def dismiss(self, task_id: str) -> Triage:
        """Hide a task until something happens to it."""
        return self._mark(task_id, "dismiss")

    def _mark(self, task_id: str, verb: str) -> Triage:
        path = f"/api/tasks/{segment(task_id)}/triage/{verb}"
        return self._transport.call(_Triage, "POST", path).triage
