"""Reviews: judgements on the results of runs, and the leases under which agents judge."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, Unpack

from msgspec import Struct
from msgspec.structs import asdict

from agent_sdk.fields import ReviewClaimFields, ReviewFields, ReviewFilter
from agent_sdk.transport import PATIENCE_SECONDS, TIMEOUT_SECONDS, Transport, new_key, segment
from agent_sdk.types import Ref, Run, TaskReference

Outcome = Literal["approved", "rejected", "blocked", "error", "timeout", "invalid_output"]


class Review(Struct, frozen=True, kw_only=True):
    """A judgement on a run: asked for, held by a reviewer, or given."""

    review_id: str
    task_id: str
    run_id: str
    status: str
    policy: str = "always"
    review_round: int = 1
    attempt: int = 1
    parent_review_id: str | None = None
    outcome: Outcome | None = None
    confidence: float | None = None
    reason: str | None = None
    delivery_id: str | None = None
    missing_work: list[str] | None = []
    missing_work_bytes: int | None = None
    next_round_guidance: str | None = None
    review_text: str | None = None
    reviewer_session_id: str | None = None
    reviewer_agent_name: str | None = None
    reviewer_peer_id: str | None = None
    reviewer_channel_id: str | None = None
    reviewed_by: Ref | None = None
    requested_at: datetime | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    routed_at: datetime | None = None
    started_at: datetime | None = None
    reviewed_at: datetime | None = None
    deadline_at: datetime | None = None
    gating: bool = True
    fence: int | None = None
    lease_until: datetime | None = None
    heartbeat_at: datetime | None = None
    lease_expiries: int = 0


class Verdict(Struct, frozen=True):
    """What a reviewer says; `rejected` needs missing_work or next_round_guidance, `approved` none.

    `confidence` is from 0 to 1.
    """

    outcome: Outcome
    reason: str
    confidence: float = 1.0
    missing_work: Sequence[str] = ()
    next_round_guidance: str | None = None
    review_text: str | None = None


class ReviewPage(Struct, frozen=True):
    """A page of reviews."""

    reviews: list[Review]
    next_cursor: str | None = None


class ReviewCreated(Struct, frozen=True):
    """A review that was asked for; `created` is False if there was one already."""

    created: bool
    review: Review


class Judged(Struct, frozen=True, kw_only=True):
    """What a verdict led to: a rejection makes a run that goes on with the work."""

    review: Review
    continuation_run: Run | None = None
    circuit_opened: bool = False


class ReviewLeaseState(Struct, frozen=True, kw_only=True):
    """The time-limited right to judge, as the server sees it."""

    review_id: str
    claim_token: str | None = None
    claim_token_hash: str | None = None
    fence: int | None = None
    lease_until: datetime | None = None
    lease_seconds: int | None = None


class ReviewClaim(Struct, frozen=True, kw_only=True):
    """A review with its lease, and everything that is to be judged."""

    review: Review
    run: Run
    task: TaskReference
    lease: ReviewLeaseState
    payload: Any = None
    description: str | None = None
    result: Any = None
    previous_reviews: list[Review] = []
    execution_profile: Any = None


class ReviewClaimed(Struct, frozen=True):
    """What a claim brought: None when there was nothing to judge."""

    claim: ReviewClaim | None = None
    server_time: datetime | None = None
    retry_after: float | None = None


class ReviewHeld(Struct, frozen=True):
    """A review and its lease, after a heartbeat or a release."""

    review: Review
    lease: ReviewLeaseState


class _Review(Struct, frozen=True):
    review: Review


class Reviews:
    """`client.reviews`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(
        self,
        *,
        status: str | Sequence[str] | None = None,
        gating: bool | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> ReviewPage:
        """A page of the workspace's reviews, the newest first."""
        query = {"status": status, "gating": gating, "limit": limit, "cursor": cursor}
        return self._transport.call(ReviewPage, "GET", "/api/task-reviews", query=query)

    def of_task(self, task_id: str, **filters: Unpack[ReviewFilter]) -> ReviewPage:
        """A page of the reviews of a task's runs, the last changed first."""
        path = f"/api/tasks/{segment(task_id)}/reviews"
        return self._transport.call(ReviewPage, "GET", path, query=filters)

    def of_run(self, run_id: str, **filters: Unpack[ReviewFilter]) -> ReviewPage:
        """A page of the reviews of a run, the last changed first."""
        path = f"/api/task-runs/{segment(run_id)}/reviews"
        return self._transport.call(ReviewPage, "GET", path, query=filters)

    def get(self, review_id: str) -> Review:
        """A review."""
        path = f"/api/task-reviews/{segment(review_id)}"
        return self._transport.call(_Review, "GET", path).review

    def request(
        self, run_id: str, *, key: str | None = None, **fields: Unpack[ReviewFields]
    ) -> ReviewCreated:
        """Ask for a review of a run that has ended; its task does not wait for it."""
        path = f"/api/task-runs/{segment(run_id)}/reviews"
        return self._transport.call(ReviewCreated, "POST", path, body=fields, key=key or new_key())

    def verdict(
        self,
        review: Review,
        verdict: Verdict,
        *,
        delivery_id: str | None = None,
        claim_token: str | None = None,
        patience: float = PATIENCE_SECONDS,
    ) -> Judged:
        """Judge a run; agents show the token of their claim, operators need none.

        With a `delivery_id` of the caller's the call may be repeated.
        """
        said = {**asdict(verdict), "delivery_id": delivery_id or new_key()}
        body = {"run_id": review.run_id, "verdict": said, "claim_token": claim_token}
        path = f"/api/task-reviews/{segment(review.review_id)}/verdict"
        return self._transport.call(Judged, "POST", path, body=body, patience=patience)

    def claim_next(
        self,
        *,
        key: str | None = None,
        patience: float = PATIENCE_SECONDS,
        **fields: Unpack[ReviewClaimFields],
    ) -> ReviewClaimed:
        """Claim a review of somebody else's work, waiting up to `wait_seconds` for one.

        The same session that repeats a claim with the same `key` gets the same lease.
        """
        answer = self._transport.send(
            "POST",
            "/api/agent/reviews/claim-next",
            body=fields,
            key=key or new_key(),
            patience=patience,
            timeout=TIMEOUT_SECONDS + fields.get("wait_seconds", 0),
        )
        if answer.status == 204:
            return ReviewClaimed(retry_after=answer.retry_after)
        return answer.decode(ReviewClaimed)

    def heartbeat(
        self,
        review_id: str,
        claim_token: str,
        *,
        lease_seconds: int | None = None,
        patience: float = PATIENCE_SECONDS,
        timeout: float = TIMEOUT_SECONDS,
    ) -> ReviewHeld:
        """Prolong the lease of a review."""
        body = {"claim_token": claim_token, "lease_seconds": lease_seconds}
        return self._act(review_id, "heartbeat", body, patience, timeout)

    def release(
        self,
        review_id: str,
        claim_token: str,
        *,
        reason: str | None = None,
        note: str | None = None,
        patience: float = PATIENCE_SECONDS,
    ) -> ReviewHeld:
        """Give a review back, for another reviewer."""
        body = {"claim_token": claim_token, "reason": reason, "note": note}
        return self._act(review_id, "release", body, patience)

    def _act(
        self,
        review_id: str,
        verb: str,
        body: Any,
        patience: float,
        timeout: float = TIMEOUT_SECONDS,
    ) -> ReviewHeld:
        path = f"/api/agent/reviews/{segment(review_id)}/{verb}"
        return self._transport.call(
            ReviewHeld, "POST", path, body=body, patience=patience, timeout=timeout
        )
