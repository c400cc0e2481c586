"""The scheduler: whether anything is handed out, and what waits."""

from datetime import datetime

from msgspec import Struct

from agent_sdk.transport import TIMEOUT_SECONDS, Transport
from agent_sdk.types import Run, TaskSummary

# The server answers a drain after this time at the latest.
DRAIN_SECONDS = 55


class Scheduler(Struct, frozen=True, kw_only=True):
    """Whether claims are stopped, and how much there is to do."""

    paused: bool
    paused_by: str | None = None
    paused_at: datetime | None = None
    paused_reason: str | None = None
    paused_scope: str | None = None
    active_claim_count: int = 0
    queued_run_count: int = 0
    paused_task_count: int = 0
    starved_run_count: int = 0
    needs_attention_run_count: int = 0
    as_of: datetime | None = None


class Drained(Struct, frozen=True, kw_only=True):
    """How a drain went; one that timed out goes on when it is asked for again."""

    scheduler: Scheduler
    completed: bool
    timed_out: bool
    remaining_claims: int
    started_at: datetime | None = None
    completed_at: datetime | None = None


class QueuedRun(Struct, frozen=True):
    """A run that waits, and its task."""

    task: TaskSummary
    run: Run


class Backlog(Struct, frozen=True):
    """A page of what waits, in the order of the claims; `total` counts all of it."""

    runs: list[QueuedRun]
    total: int
    next_cursor: str | None = None


class _Queued(Struct, frozen=True):
    runs: list[QueuedRun]
    total: int


class _Backlog(Struct, frozen=True):
    backlog: _Queued
    next_cursor: str | None = None


class _Scheduler(Struct, frozen=True):
    scheduler: Scheduler


class Schedulers:
    """`client.scheduler`; `workspace="*"` is the switch over all workspaces, for admins."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self, *, workspace: str | None = None) -> Scheduler:
        """How things stand."""
        query = {"workspace": workspace}
        return self._transport.call(_Scheduler, "GET", "/api/scheduler", query=query).scheduler

    def backlog(
        self, *, include_paused: bool = False, limit: int = 50, cursor: str | None = None
    ) -> Backlog:
        """What waits to be claimed, or for its gates."""
        query = {"include_paused": include_paused, "limit": limit, "cursor": cursor}
        told = self._transport.call(_Backlog, "GET", "/api/scheduler/backlog", query=query)
        return Backlog(told.backlog.runs, told.backlog.total, told.next_cursor)

    def pause(self, *, reason: str | None = None, workspace: str | None = None) -> Scheduler:
        """Hand out nothing more; who holds a lease goes on."""
        return self._switch("pause", reason, workspace)

    def resume(self, *, reason: str | None = None, workspace: str | None = None) -> Scheduler:
        """Hand out work again."""
        return self._switch("resume", reason, workspace)

    def drain(
        self,
        *,
        reason: str | None = None,
        timeout_seconds: int = DRAIN_SECONDS,
        workspace: str | None = None,
    ) -> Drained:
        """Pause, and wait until no lease is left or the time is over; the pause stays."""
        return self._transport.call(
            Drained,
            "POST",
            "/api/scheduler/drain",
            query={"workspace": workspace},
            body={"reason": reason, "timeout_seconds": timeout_seconds},
            timeout=TIMEOUT_SECONDS + min(timeout_seconds, DRAIN_SECONDS),
        )

    def _switch(self, verb: str, reason: str | None, workspace: str | None) -> Scheduler:
        path, query = f"/api/scheduler/{verb}", {"workspace": workspace}
        told = self._transport.call(_Scheduler, "POST", path, query=query, body={"reason": reason})
        return told.scheduler
