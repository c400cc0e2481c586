"""What a worker may do: work on tasks, or review the work of others."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from msgspec import Struct

from agent_sdk import errors
from agent_sdk.api.reviews import Verdict
from agent_sdk.async_lease import AsyncLease
from agent_sdk.client import Client
from agent_sdk.fields import ClaimFields, ReviewClaimFields
from agent_sdk.hold import Hold
from agent_sdk.lease import Lease
from agent_sdk.outcome import NotJson, clean, describe, ending_of
from agent_sdk.review_lease import ReviewLease
from agent_sdk.types import Claim

BULK_MAX = 100
REASON_LIMIT_BYTES = 4096
# A review that its handler could not do is there again at once: the pause before the next claim.
REST_FIRST_SECONDS = 1.0
REST_MAX_SECONDS = 60.0

L = TypeVar("L", bound="Held")


class Held(Protocol):
    """A lease in the hands of the worker."""

    @property
    def hold(self) -> Hold:
        """Whether it is still held."""

    @property
    def ended(self) -> bool:
        """Whether its holder ended it."""

    def release(self, note: str | None = None, *, patience: float) -> None:
        """Give it back."""


class Found(Struct, Generic[L], frozen=True):
    """What a claim brought."""

    leases: Sequence[L]
    retry_after: float | None = None


class Duty(Protocol[L]):
    """How leases of one kind are claimed, and what becomes of them."""

    # Whether the stream of the session tells when such a lease is taken away.
    listens: bool

    def claim(
        self, claimer: Client, *, key: str, free: int, wait_seconds: int, patience: float
    ) -> Found[L]:
        """Claim as many as `free`; a repeat with the key brings the same."""

    def has_claimed(self, key: str, patience: float) -> bool:
        """Whether a claim with this key has brought something; makes none itself."""

    def context(self, lease: L, *, awaits: bool) -> Any:
        """What the handler gets."""

    def finish(self, lease: L, result: Any, *, more: bool) -> L | None:
        """End a lease with what its handler returned; the next one, if that brings one."""

    def fail(self, lease: L, error: BaseException) -> None:
        """End a lease with what its handler raised."""

    def rest_seconds(self) -> float:
        """How long to wait before the next claim."""


class TaskDuty:
    """Runs of tasks."""

    listens = True

    def __init__(self, client: Client, fields: ClaimFields) -> None:
        self._client = client
        self._fields = fields

    def claim(
        self, claimer: Client, *, key: str, free: int, wait_seconds: int, patience: float
    ) -> Found[Lease]:
        """Claim runs."""
        fields: ClaimFields = {
            **self._fields,
            "wait_seconds": wait_seconds,
            "max_runs": min(free, BULK_MAX),
        }
        claimed = claimer.leases.claim_next(key=key, patience=patience, **fields)
        return Found([self._lease(claim) for claim in claimed.claims], claimed.retry_after)

    def has_claimed(self, key: str, patience: float) -> bool:
        """Whether the key is taken: asked with a wish that nothing can fulfil."""
        return _is_taken(self._client.leases.claim_next, key, patience)

    def context(self, lease: Lease, *, awaits: bool) -> Any:
        """The lease, in its async form for handlers that await."""
        return AsyncLease(lease) if awaits else lease

    def finish(self, lease: Lease, result: Any, *, more: bool) -> Lease | None:
        """Complete the run, and claim the next in the same round trip."""
        claim = lease.complete(result, claim_next=self._fields if more else None)
        return self._lease(claim) if claim else None

    def fail(self, lease: Lease, error: BaseException) -> None:
        """End the run as the exception says."""
        lease.end(ending_of(error))

    def rest_seconds(self) -> float:
        """None: a failed run waits by itself."""
        return 0

    def _lease(self, claim: Claim) -> Lease:
        return Lease(self._client, claim, self._client.heartbeats)


class ReviewDuty:
    """Reviews of runs."""

    listens = False

    def __init__(self, client: Client, fields: ClaimFields) -> None:
        if fields.get("priority_min"):
            raise ValueError("reviews are claimed by their deadline: priority_min has no meaning")
        self._client = client
        self._fields: ReviewClaimFields = {
            "capabilities": fields.get("capabilities", ()),
            "channel": fields.get("channel"),
            "peer_id": fields.get("peer_id"),
            "lease_seconds": fields.get("lease_seconds"),
        }
        self._failures = 0

    def claim(
        self, claimer: Client, *, key: str, free: int, wait_seconds: int, patience: float
    ) -> Found[ReviewLease]:
        """Claim a review; they are handed out one by one."""
        fields: ReviewClaimFields = {**self._fields, "wait_seconds": wait_seconds}
        claimed = claimer.reviews.claim_next(key=key, patience=patience, **fields)
        if claimed.claim is None:
            return Found([], claimed.retry_after)
        return Found([ReviewLease(self._client, claimed.claim, self._client.heartbeats)])

    def has_claimed(self, key: str, patience: float) -> bool:
        """Whether the key is taken: as with runs."""
        return _is_taken(self._client.reviews.claim_next, key, patience)

    def context(self, lease: ReviewLease, *, awaits: bool) -> Any:
        """The lease: nothing in it has to be awaited."""
        return lease

    def finish(self, lease: ReviewLease, result: Any, *, more: bool) -> ReviewLease | None:
        """Give the verdict; what is none is recorded as `invalid_output`."""
        self._failures = 0
        if not isinstance(result, Verdict):
            lease.judge(_unusable(f"the reviewer returned {type(result).__name__}, not a Verdict"))
            return None
        try:
            lease.judge(result)
        except (errors.Invalid, NotJson) as refusal:
            lease.judge(_unusable(f"the verdict was refused: {refusal}"))
            raise
        return None

    def fail(self, lease: ReviewLease, error: BaseException) -> None:
        """Give the review back; what raised Fail cannot be judged, which is a verdict too."""
        if isinstance(error, errors.Fail):
            reason = clean(str(error.error), REASON_LIMIT_BYTES) or str(error.kind)
            lease.judge(Verdict("error", reason, 0))
            return
        self._failures += 1
        note = error.note if isinstance(error, errors.Release) else describe(error)
        lease.release(note)

    def rest_seconds(self) -> float:
        """Longer with each handler in a row that failed."""
        if not self._failures:
            return 0
        # The exponent is capped, since a model may be away for days.
        rest: float = REST_FIRST_SECONDS * 2 ** min(self._failures - 1, 10)
        return min(REST_MAX_SECONDS, rest)


def _is_taken(claim_next: Callable[..., object], key: str, patience: float) -> bool:
    try:
        claim_next(key=key, channel=key, patience=patience)
    except errors.Invalid as refusal:
        if refusal.code != "idempotency_key_reused":
            raise
        return True
    return False


def _unusable(reason: str) -> Verdict:
    return Verdict("invalid_output", clean(reason, REASON_LIMIT_BYTES), 0)
