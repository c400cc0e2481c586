"""A run: one attempt at a task."""

from typing import Annotated, Literal

from msgspec import Meta

from server import limits
from server.contract.base import (
    Actor,
    Answer,
    CauseMetadata,
    Channel,
    IdempotencyKey,
    Json,
    Metadata,
    Origin,
    PageQuery,
    Priority,
    Progress,
    Reason,
    Request,
    Time,
    Usage,
)
from server.contract.references import CoordinationChannel, RunStatus, TaskReference
from server.contract.sessions import SessionInfo

Delay = Annotated[int, Meta(ge=0, le=limits.DELAY_LIMIT_SECONDS)]


class Run(Answer):
    """One attempt at a task, whole."""

    id: str
    task_id: str
    status: RunStatus
    attempt: int
    max_attempts: int
    priority: Priority
    previous_run_id: str | None
    failure_kind: str | None
    retryable: bool | None
    claimed_by: Actor | None
    agent_name: str | None
    session_id: str | None
    origin: Origin
    idempotency_key: str | None
    network_channel: str | None
    claim_token_hash: str | None
    fence: int | None
    claim_kind: Literal["agent", "manual"] | None
    claim_count: int
    lease_until: Time | None
    heartbeat_at: Time | None
    lease_seconds: int | None
    deadline_at: Time | None
    lease_expiries: int
    coordination_channel_id: str
    coordination_channel: CoordinationChannel | None
    queued_at: Time
    first_queued_at: Time
    available_at: Time
    claimed_at: Time | None
    started_at: Time | None
    ended_at: Time | None
    error: str | None
    metadata: Json
    result: Json
    result_bytes: int | None
    progress: Progress | None
    usage: Usage
    note: str | None
    parent_run_id: str | None
    review_id: str | None
    review_round: int | None
    continuation_reason: str | None
    missing_work: Json
    missing_work_bytes: int | None
    next_round_guidance: str | None


class RunTotals(Answer):
    """What a run has come to."""

    last_activity_at: Time
    last_event_type: str | None
    tool_call_count: int
    turn_count: int
    input_tokens: int
    output_tokens: int
    total_tokens: int
    total_cost: float
    cost_currency: str | None


class RunDetail(Answer):
    """A run with its task, its session and its totals."""

    run: Run
    task: TaskReference
    session: SessionInfo | None
    summary: RunTotals


class RunResponse(Answer):
    """One run."""

    run: Run


class RunDetailResponse(Answer):
    """One run with what surrounds it."""

    run: RunDetail


class RunListResponse(Answer):
    """A page of runs."""

    runs: list[Run]
    next_cursor: str | None


class RunListQuery(PageQuery):
    """Which runs of a task to list."""

    status: list[RunStatus] | None = None
    session_id: str | None = None


class RunSearchQuery(RunListQuery):
    """Which runs of the workspace to list."""

    agent_name: str | None = None
    task_id: str | None = None
    stuck: bool | None = None


class StartRequest(Request):
    """What a new run is to carry."""

    idempotency_key: IdempotencyKey | None = None
    network_channel: Channel | None = None
    metadata: Metadata | None = None


class CancelRequest(Request):
    """Why a task or run is canceled."""

    reason: Reason | None = None
    metadata: CauseMetadata | None = None
