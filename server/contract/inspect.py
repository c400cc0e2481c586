"""Inspect: a task or run as an operator looks at it when something seems wrong."""

from typing import Literal

from server.contract.base import Answer, Diagnostic, Time
from server.contract.references import RunStatus
from server.contract.tasks import TaskSummary

NextAction = Literal[
    "recovery_required", "approval_required", "review_required", "terminal", "start_required",
    "stranded", "claim_available", "waiting_for_session", "waiting_for_gate", "running",
]  # fmt: skip


class InspectedRun(Answer):
    """A run in the words of an operator."""

    run_id: str
    task_id: str
    status: RunStatus
    attempt: int
    retries: int
    claim_token_hash_truncated: str | None
    fence: int | None
    lease_until: Time | None
    heartbeat_at: Time | None
    heartbeat_age_seconds: int | None
    lease_expiries: int
    last_error_summary: str | None
    failure_kind: str | None
    bound_session_id: str | None
    previous_run_id: str | None
    queued_at: Time
    started_at: Time | None
    ended_at: Time | None


class BoundSession(Answer):
    """The session that works, or worked, on a run."""

    session_id: str
    state: Literal["active", "stopped", "missing"]
    agent_name: str | None
    provider_name: str | None
    workspace_id: str
    started_at: Time | None
    last_activity_at: Time | None
    stop_reason: str | None
    failure_kind: str | None


class InspectedEvent(Answer):
    """An event in few words."""

    id: str
    type: str
    session_id: str | None
    task_id: str | None
    run_id: str | None
    outcome: str | None
    summary: str
    timestamp: Time


class InspectedScheduler(Answer):
    """Whether claims are stopped."""

    paused: bool
    paused_by: str | None
    paused_at: Time | None
    reason: str | None
    updated_at: Time | None


class Inspection(Answer):
    """What a task or run looks like, what is wrong with it, and what to do next."""

    target: Literal["task", "run"]
    task: TaskSummary
    current_run: InspectedRun | None
    recent_runs: list[InspectedRun]
    bound_session: BoundSession | None
    recent_events: list[InspectedEvent]
    scheduler: InspectedScheduler
    diagnostics: list[Diagnostic]
    next_action: NextAction
    as_of: Time


class InspectResponse(Answer):
    """A task or run under inspection."""

    inspect: Inspection
