"""Runs by hand: claimed one by one by people, started and ended under that claim."""

from typing import Annotated

from msgspec import Meta

from server import limits
from server.contract.base import (
    Answer,
    CauseMetadata,
    FreeJson,
    IdempotencyKey,
    Identifier,
    Name,
    Request,
)
from server.contract.leases import FailureKind, Lease, LeaseProof, check_failure_kind, cut_error
from server.contract.runs import Delay, Run


class RunLeaseResponse(Answer):
    """A run, and the lease on it with its token."""

    run: Run
    lease: Lease


class ManualClaimRequest(Request):
    """For how long a run is claimed by hand, and for which session, if for one."""

    idempotency_key: IdempotencyKey | None = None
    lease_seconds: Annotated[
        int, Meta(ge=limits.LEASE_MIN_SECONDS, le=limits.LEASE_LIMIT_SECONDS)
    ] = limits.LEASE_BY_HAND_SECONDS
    session_id: Identifier | None = None


class AttachSessionRequest(Request, kw_only=True):
    """Which session is to work on the run, and whose it is."""

    session_id: Identifier
    agent_name: Name | None = None


class RunStartRequest(LeaseProof):
    """The work begins; a repeat changes nothing, with or without a key."""

    idempotency_key: IdempotencyKey | None = None


class RunCompleteRequest(LeaseProof):
    """The work is done."""

    result: FreeJson | None = None


class RunFailRequest(LeaseProof, kw_only=True):
    """The work failed."""

    error: Annotated[str, Meta(min_length=1)]
    failure_kind: FailureKind = "error"
    retryable: bool = True
    retry_after_seconds: Delay | None = None
    metadata: CauseMetadata | None = None

    def __post_init__(self) -> None:
        check_failure_kind(self.failure_kind)
        self.error = cut_error(self.error)
