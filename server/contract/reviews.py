"""A review: a judgement on the result of a run."""

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType, field

from server import limits
from server.contract.base import (
    BYTES,
    Actor,
    Answer,
    FieldError,
    FreeJson,
    IdempotencyKey,
    Identifier,
    Json,
    Note,
    PageQuery,
    Reason,
    Request,
    Selectors,
    Time,
    TimeInput,
    in_utc,
)
from server.contract.leases import Lease, LeaseProof, LeaseSeconds, check_lease_seconds
from server.contract.profiles import ExecutionProfile, Guidance
from server.contract.references import ReviewPolicy, TaskReference
from server.contract.runs import Run

ReviewStatus = Literal["requested", "routed", "in_review", "recorded", "circuit_opened", "canceled"]
Outcome = Literal["approved", "rejected", "blocked", "error", "timeout", "invalid_output"]
Rounds = Annotated[int, Meta(ge=1, le=limits.REVIEW_ROUNDS_LIMIT_COUNT)]
ReviewTimeout = Annotated[
    int, Meta(ge=limits.REVIEW_TIMEOUT_MIN_SECONDS, le=limits.REVIEW_TIMEOUT_LIMIT_SECONDS)
]
# Each rejection adds one: the limit is far from where the database's numbers end.
Ordinal = Annotated[int, Meta(ge=1, le=limits.REVIEW_ORDINAL_LIMIT)]
DeliveryId = Annotated[
    str, Meta(min_length=1, max_length=limits.DELIVERY_ID_LIMIT_BYTES, extra=BYTES)
]
ReviewText = Annotated[str, Meta(max_length=limits.REVIEW_TEXT_LIMIT_BYTES, extra=BYTES)]


class Review(Answer):
    """What is asked about a run, who looks at it, and what was said."""

    review_id: str
    task_id: str
    run_id: str
    parent_review_id: str | None
    policy: ReviewPolicy
    review_round: int
    attempt: int
    status: ReviewStatus
    outcome: Outcome | None
    confidence: float | None
    reason: str | None
    delivery_id: str | None
    missing_work: list[str] | None
    missing_work_bytes: int
    next_round_guidance: str | None
    review_text: str | None
    reviewer_session_id: str | None
    reviewer_agent_name: str | None
    reviewer_peer_id: str | None
    reviewer_channel_id: str | None
    reviewed_by: Actor | None
    requested_at: Time
    created_at: Time
    updated_at: Time
    routed_at: Time | None
    started_at: Time | None
    reviewed_at: Time | None
    deadline_at: Time | None
    gating: bool
    fence: int | None
    lease_until: Time | None
    heartbeat_at: Time | None
    lease_expiries: int


class ReviewLease(Answer):
    """The right to judge; claim_token only in claim answers."""

    review_id: str
    claim_token_hash: str
    fence: int
    lease_until: Time | None
    lease_seconds: int
    claim_token: str | UnsetType = UNSET


class ReviewClaim(Answer):
    """All that a reviewer needs to begin."""

    review: Review
    run: Run
    task: TaskReference
    lease: ReviewLease
    payload: Json
    description: str | None
    result: Json
    previous_reviews: list[Review]
    execution_profile: ExecutionProfile | None


class ReviewClaimResponse(Answer):
    """The review that was claimed."""

    claim: ReviewClaim
    server_time: Time


class ReviewLeaseResponse(Answer):
    """A review with its lease, without the token."""

    review: Review
    lease: ReviewLease
    server_time: Time


class ReviewResponse(Answer):
    """One review."""

    review: Review


class ReviewListResponse(Answer):
    """A page of reviews."""

    reviews: list[Review]
    next_cursor: str | None


class ReviewCreateResponse(Answer):
    """A review, and whether this call asked for it."""

    created: bool
    review: Review


class VerdictResponse(Answer):
    """A review as it was judged, and what follows."""

    review: Review
    continuation_run: Run | None
    circuit_opened: bool


class LeaseListResponse(Answer):
    """The live leases of a session, on runs and on reviews."""

    leases: list[Lease]
    reviews: list[Review]
    next_cursor: str | None


class ReviewListQuery(PageQuery):
    """Which reviews of a task or run to list."""

    status: list[ReviewStatus] | None = None
    reviewer_session_id: str | None = None


class ReviewSearchQuery(PageQuery):
    """Which reviews of the workspace to list."""

    status: list[ReviewStatus] | None = None
    gating: bool | None = None


class ReviewClaimRequest(Request):
    """Which reviews to claim, and for how long."""

    capabilities: Selectors = field(default_factory=list)
    channel: Annotated[str, Meta(max_length=128)] | None = None
    peer_id: Annotated[str, Meta(max_length=limits.PEER_ID_LIMIT_BYTES, extra=BYTES)] | None = None
    lease_seconds: LeaseSeconds = 0
    wait_seconds: Annotated[int, Meta(ge=0, le=limits.CLAIM_WAIT_LIMIT_SECONDS)] = 0
    idempotency_key: IdempotencyKey | None = None

    def __post_init__(self) -> None:
        check_lease_seconds(self.lease_seconds)


class ReviewHeartbeatRequest(LeaseProof):
    """The reviewer lives and goes on."""

    lease_seconds: LeaseSeconds = 0

    def __post_init__(self) -> None:
        check_lease_seconds(self.lease_seconds)


class ReviewReleaseRequest(LeaseProof):
    """The reviewer gives the review back."""

    reason: Reason | None = None
    note: Note | None = None


class ReviewCreateRequest(Request):
    """A review that is asked for by hand."""

    policy: Literal["on_success", "on_failure", "always"] = "always"
    review_round: Ordinal | None = None
    attempt: Ordinal = 1
    parent_review_id: Identifier | None = None
    reason: Reason | None = None
    deadline_at: TimeInput | None = None
    run_id: Identifier | None = None
    task_id: Identifier | None = None
    idempotency_key: IdempotencyKey | None = None

    def __post_init__(self) -> None:
        self.deadline_at = in_utc("deadline_at", self.deadline_at)


class MissingWork(FreeJson):
    """What is not done yet: a list of texts."""

    __slots__ = ()
    limit_bytes = limits.MISSING_WORK_LIMIT_BYTES


class Verdict(Request, kw_only=True):
    """What somebody says of a run."""

    outcome: Outcome
    confidence: Annotated[float, Meta(ge=0, le=1)]
    reason: Annotated[str, Meta(min_length=1, max_length=limits.REASON_LIMIT_BYTES, extra=BYTES)]
    delivery_id: DeliveryId
    missing_work: MissingWork | None = None
    next_round_guidance: Guidance | None = None
    review_text: ReviewText | None = None

    def __post_init__(self) -> None:
        missing = _texts(self.missing_work)
        if self.outcome == "approved" and missing:
            raise FieldError("missing_work", "empty", "must be empty in an approval")
        if self.outcome == "rejected" and not missing and not self.next_round_guidance:
            message = "must say something in a rejection, or next_round_guidance must"
            raise FieldError("missing_work", "required", message)


class VerdictRequest(LeaseProof, kw_only=True):
    """A verdict on a review; an agent proves that it holds it."""

    run_id: Identifier
    verdict: Verdict


def _texts(missing_work: MissingWork | None) -> list[str]:
    if missing_work is None:
        return []
    try:
        texts = msgspec.json.decode(missing_work.text, type=list[str])
    except msgspec.ValidationError:
        raise FieldError("missing_work", "type", "must be a list of texts") from None
    if not all(text.strip() for text in texts):
        raise FieldError("missing_work", "length", "must have no blank text in it")
    return texts
