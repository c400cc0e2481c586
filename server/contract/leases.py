"""A lease: the time-limited right to a run, and the claim that made it."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType, field

from server import limits
from server.contract.base import (
    BYTES,
    Actor,
    Answer,
    BudgetRemaining,
    CauseMetadata,
    Count,
    FieldError,
    FreeJson,
    IdempotencyKey,
    Identifier,
    Json,
    Note,
    PageQuery,
    Priority,
    Reason,
    Request,
    Selectors,
    Time,
    WorkspaceSelector,
)
from server.contract.profiles import ExecutionProfile
from server.contract.references import CoordinationChannel, RunStatus, TaskReference
from server.contract.runs import Delay, Run

StopReason = Literal["budget_exhausted"]
LeaseSeconds = Annotated[int, Meta(ge=0, le=limits.LEASE_LIMIT_SECONDS)]
Percent = Annotated[float, Meta(ge=0, le=100)]
Cost = Annotated[float, Meta(ge=0, lt=limits.COST_LIMIT)]
Used = Annotated[int, Meta(ge=0, le=limits.USAGE_LIMIT_COUNT)]
Currency = Annotated[str, Meta(pattern=r"^[A-Z]{3}$")]
FailureKind = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
RESERVED_FAILURE_KINDS = frozenset({"operator_forced", "deadline_exceeded"})


class Lease(Answer):
    """The right to a run as it is now; claim_token only in claim answers."""

    task_id: str
    run_id: str
    status: RunStatus
    session_id: str | None
    claimed_by: Actor | None
    claim_token_hash: str | None
    fence: int | None
    lease_until: Time | None
    heartbeat_at: Time | None
    lease_seconds: int | None
    deadline_at: Time | None
    coordination_channel_id: str
    coordination_channel: CoordinationChannel | None
    claim_token: str | UnsetType = UNSET


class Claim(Answer):
    """All that a worker needs to begin."""

    task: TaskReference
    run: Run
    lease: Lease
    coordination_channel: CoordinationChannel
    payload: Json
    checkpoint: Json
    note: str | None
    description: str | None
    previous_error: str | None
    budget_remaining: BudgetRemaining
    execution_profile: ExecutionProfile | None


class ClaimResponse(Answer):
    """What was claimed; claims only with max_runs above 1."""

    claim: Claim
    server_time: Time
    claims: list[Claim] | UnsetType = UNSET


class HeartbeatResponse(Answer):
    """The lease, and what its holder must know."""

    lease: Lease
    lease_until: Time
    cancel_requested: bool
    stop_reason: StopReason | None
    paused: bool
    budget_remaining: BudgetRemaining
    server_time: Time


class LeaseResponse(Answer):
    """The lease as it became."""

    lease: Lease


class LeaseCompleteResponse(Answer):
    """The ended lease, and the next claim if one was wanted and found."""

    lease: Lease
    claim: Claim | None
    claims: list[Claim] | UnsetType = UNSET


class LeaseFailResponse(Answer):
    """The ended lease, and the run that tries again."""

    lease: Lease
    next_run: Run | None


class LeaseVerifyResponse(Answer):
    """Whether a fence is the current one."""

    current: bool
    run_id: str
    fence: int
    current_fence: int | None
    run_status: RunStatus
    lease_until: Time | None
    server_time: Time


class LeaseListQuery(PageQuery):
    """Which leases of the session to list."""


class ClaimWish(Request):
    """Which runs to claim, and for how long."""

    capabilities: Selectors = field(default_factory=list)
    required_capabilities: Selectors = field(default_factory=list)
    priority_min: Annotated[int, Meta(ge=0, le=1_000_000)] | Priority = 0
    channel: Annotated[str, Meta(max_length=128)] | None = None
    peer_id: Annotated[str, Meta(max_length=limits.PEER_ID_LIMIT_BYTES, extra=BYTES)] | None = None
    lease_seconds: LeaseSeconds = 0
    max_runs: Annotated[int, Meta(ge=1, le=limits.RUNS_PER_CLAIM_COUNT)] = 1
    wait_seconds: Annotated[int, Meta(ge=0, le=limits.CLAIM_WAIT_LIMIT_SECONDS)] = 0
    wait: bool = False
    idempotency_key: IdempotencyKey | None = None

    def __post_init__(self) -> None:
        check_lease_seconds(self.lease_seconds)
        if self.wait and not self.wait_seconds:
            self.wait_seconds = limits.CLAIM_WAIT_DEFAULT_SECONDS
        if self.required_capabilities:
            self.capabilities = self.capabilities + self.required_capabilities
            self.required_capabilities = []

    @property
    def least_weight(self) -> int:
        """The lowest weight of priority that is wanted."""
        wanted = self.priority_min
        return wanted if isinstance(wanted, int) else WEIGHTS[wanted]


WEIGHTS: dict[Priority, int] = {"low": 10, "medium": 20, "high": 30, "urgent": 40}


class ClaimNextRequest(ClaimWish):
    """Which runs to claim, and for how long."""

    workspace_id: WorkspaceSelector | None = None


class ProgressInput(Request):
    """How far the holder is."""

    percent: Percent | None = None
    message: (
        Annotated[str, Meta(max_length=limits.PROGRESS_MESSAGE_LIMIT_BYTES, extra=BYTES)] | None
    ) = None


class UsageInput(Request):
    """What was used up since this claim: totals, not increments."""

    input_tokens: Used | None = None
    output_tokens: Used | None = None
    total_cost: Cost | None = None
    cost_currency: Currency | None = None
    tool_calls: Used | None = None
    turns: Used | None = None


class LeaseProof(Request):
    """What proves a lease; a token may also come as X-Claim-Token."""

    claim_token: str | None = None
    fence: Count | None = None


class LeaseWork(LeaseProof):
    """What a holder may hand in with any operation."""

    checkpoint: FreeJson | None = None
    usage: UsageInput | None = None


class HeartbeatRequest(LeaseWork):
    """The holder lives and goes on."""

    lease_seconds: LeaseSeconds = 0
    progress: ProgressInput | None = None

    def __post_init__(self) -> None:
        check_lease_seconds(self.lease_seconds)


class LeaseCompleteRequest(LeaseWork):
    """The work is done; claim_next asks for more."""

    result: FreeJson | None = None
    claim_next: ClaimWish | None = None


class LeaseFailRequest(LeaseWork, kw_only=True):
    """The work failed."""

    error: Annotated[str, Meta(min_length=1)]
    failure_kind: FailureKind = "error"
    retryable: bool = True
    retry_after_seconds: Delay | None = None
    metadata: CauseMetadata | None = None

    def __post_init__(self) -> None:
        check_failure_kind(self.failure_kind)
        self.error = cut_error(self.error)


class LeaseReleaseRequest(LeaseWork):
    """The holder gives the run back."""

    reason: Reason | None = None
    note: Note | None = None
    delay_seconds: Delay = 0


class LeaseVerifyRequest(Request):
    """Whose lease a third party asks about."""

    run_id: Identifier
    fence: Count
    claim_token: str | None = None


def check_failure_kind(kind: str) -> None:
    """Refuses a kind that only the server may give."""
    if kind in RESERVED_FAILURE_KINDS:
        raise FieldError("failure_kind", "reserved", "is reserved to the server")


def cut_error(text: str) -> str:
    """An error text, cut where it is longer than what is kept."""
    whole = text.encode()
    if len(whole) <= limits.ERROR_CUT_AT_BYTES:
        return text
    return whole[: limits.ERROR_CUT_AT_BYTES].decode(errors="ignore") + "…[cut]"


def check_lease_seconds(seconds: int) -> None:
    """Refuses a lease that is too short to be renewed in time."""
    if 0 < seconds < limits.LEASE_MIN_SECONDS:
        raise FieldError("lease_seconds", "range", "must be 0, or 5 or more")
