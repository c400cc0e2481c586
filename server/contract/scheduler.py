"""The scheduler: whether work is handed out, how much waits, and for how long."""

from typing import Annotated, Literal

from msgspec import Meta

from server import limits
from server.contract.base import Answer, PageQuery, Reason, Request, Time, WorkspaceSelector
from server.contract.runs import Run
from server.contract.tasks import TaskSummary


class SchedulerStatus(Answer):
    """Whether claims are stopped, and the numbers of the queue at one instant."""

    paused: bool
    paused_by: str | None
    paused_at: Time | None
    paused_reason: str | None
    paused_scope: Literal["workspace", "all"] | None
    active_claim_count: int
    queued_run_count: int
    paused_task_count: int
    starved_run_count: int
    needs_attention_run_count: int
    as_of: Time


class SchedulerResponse(Answer):
    """The scheduler as it is now."""

    scheduler: SchedulerStatus


class SchedulerReasonRequest(Request):
    """Why claims are stopped, or go on."""

    workspace: WorkspaceSelector | None = None
    reason: Reason | None = None


class DrainRequest(Request):
    """Why claims are stopped, and how long to wait for those that are held."""

    workspace: WorkspaceSelector | None = None
    reason: Reason | None = None
    timeout_seconds: Annotated[int, Meta(ge=0, le=limits.DRAIN_LIMIT_SECONDS)] = 60


class DrainResult(Answer):
    """How a drain stands."""

    scheduler: SchedulerStatus
    completed: bool
    timed_out: bool
    remaining_claims: int
    started_at: Time
    completed_at: Time | None


class BacklogItem(Answer):
    """A queued run and its task."""

    task: TaskSummary
    run: Run


class Backlog(Answer):
    """Queued runs in the order in which they are claimed, and how many there are."""

    runs: list[BacklogItem]
    total: int


class BacklogResponse(Answer):
    """A page of the backlog."""

    backlog: Backlog
    next_cursor: str | None


class BacklogQuery(PageQuery):
    """Whether paused runs are wanted too."""

    include_paused: bool = False
