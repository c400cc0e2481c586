"""The lease protocol as it is on the wire; `agent_sdk.Lease` is the comfortable form."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Unpack

from msgspec import Struct

from agent_sdk import errors
from agent_sdk.api.reviews import Review
from agent_sdk.fields import (
    ClaimFields,
    FailFields,
    HeartbeatFields,
    ReleaseFields,
    ReportFields,
)
from agent_sdk.transport import (
    PATIENCE_SECONDS,
    TIMEOUT_SECONDS,
    Answer,
    Transport,
    new_key,
    segment,
)
from agent_sdk.types import BudgetRemaining, Claim, LeaseState, Run


class Claimed(Struct, frozen=True):
    """What a claim brought: no claims at all when there was nothing to do."""

    claims: list[Claim]
    server_time: datetime | None = None
    retry_after: float | None = None


class Heartbeat(Struct, frozen=True, kw_only=True):
    """What the holder of a lease must know."""

    lease: LeaseState
    lease_until: datetime
    server_time: datetime
    cancel_requested: bool = False
    stop_reason: str | None = None
    paused: bool = False
    budget_remaining: BudgetRemaining | None = None


class BulkHeartbeat(Struct, frozen=True, kw_only=True):
    """One lease's part of a bulk heartbeat: `error` is set when it was refused."""

    run_id: str
    ok: bool
    lease: LeaseState | None = None
    cancel_requested: bool | None = False
    stop_reason: str | None = None
    paused: bool | None = False
    budget_remaining: BudgetRemaining | None = None
    error: errors.Envelope | None = None


class BulkHeartbeats(Struct, frozen=True):
    """The answer to a bulk heartbeat, in its order."""

    results: list[BulkHeartbeat]
    server_time: datetime


class Completed(Struct, frozen=True):
    """The lease that ended, and the next claim where one was asked for and found."""

    lease: LeaseState
    claim: Claim | None = None
    claims: list[Claim] = []


class BulkCompleted(Struct, frozen=True, kw_only=True):
    """One lease's part of a bulk complete."""

    run_id: str
    ok: bool
    replayed: bool | None = False
    lease: LeaseState | None = None
    error: errors.Envelope | None = None


class BulkCompletes(Struct, frozen=True):
    """The answer to a bulk complete, in its order."""

    results: list[BulkCompleted]
    claim: Claim | None = None
    claims: list[Claim] = []


class Failed(Struct, frozen=True):
    """The lease that ended, and the run that tries again."""

    lease: LeaseState
    next_run: Run | None = None


class Verified(Struct, frozen=True, kw_only=True):
    """Whether a run's fence is the current one."""

    current: bool
    run_id: str
    fence: int
    current_fence: int | None
    run_status: str
    lease_until: datetime | None
    server_time: datetime


class LeasePage(Struct, frozen=True):
    """The live leases of a session, without their tokens, and the reviews that it holds."""

    leases: list[LeaseState]
    reviews: list[Review] = []
    next_cursor: str | None = None


class _Claim(Struct, frozen=True):
    claim: Claim
    server_time: datetime
    claims: list[Claim] | None = None


class _Lease(Struct, frozen=True):
    lease: LeaseState


class Leases:
    """`client.leases`; every call that ends a lease may be repeated with the same token."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def claim_next(
        self,
        *,
        key: str | None = None,
        patience: float = PATIENCE_SECONDS,
        **fields: Unpack[ClaimFields],
    ) -> Claimed:
        """Claim up to `max_runs` runs, waiting up to `wait_seconds` for the first.

        The same session that repeats a claim with the same `key` gets the same leases.
        """
        answer = self._transport.send(
            "POST",
            "/api/agent/tasks/claim-next",
            body=_given(fields),
            key=key or new_key(),
            patience=patience,
            timeout=TIMEOUT_SECONDS + fields.get("wait_seconds", 0),
        )
        if answer.status == 204:
            return Claimed([], retry_after=answer.retry_after)
        decoded = answer.decode(_Claim)
        return Claimed(decoded.claims or [decoded.claim], decoded.server_time)

    def heartbeat(
        self,
        run_id: str,
        claim_token: str,
        *,
        patience: float = PATIENCE_SECONDS,
        timeout: float = TIMEOUT_SECONDS,
        **fields: Unpack[HeartbeatFields],
    ) -> Heartbeat:
        """Prolong a lease, and report progress, checkpoint and usage."""
        body = {"claim_token": claim_token, **fields}
        answer = self._send(run_id, "heartbeat", body, patience, timeout)
        return answer.decode(Heartbeat)

    def bulk_heartbeat(
        self,
        items: Sequence[Mapping[str, Any]],
        *,
        patience: float = PATIENCE_SECONDS,
        timeout: float = TIMEOUT_SECONDS,
    ) -> BulkHeartbeats:
        """Prolong up to 100 leases; items are heartbeats with their run_id and claim_token."""
        return self._transport.call(
            BulkHeartbeats,
            "POST",
            "/api/agent/tasks/bulk/heartbeat",
            body={"items": items},
            patience=patience,
            timeout=timeout,
        )

    def complete(
        self,
        run_id: str,
        claim_token: str,
        *,
        result: Any = None,
        claim_next: ClaimFields | None = None,
        patience: float = PATIENCE_SECONDS,
        **more: Unpack[ReportFields],
    ) -> Completed:
        """End a run with its result, and claim the next one in the same round trip."""
        body = {"claim_token": claim_token, "result": result, **more}
        if claim_next is not None:
            body["claim_next"] = _given(claim_next)
        waits = (claim_next or {}).get("wait_seconds", 0)
        answer = self._send(run_id, "complete", body, patience, TIMEOUT_SECONDS + waits)
        return answer.decode(Completed)

    def bulk_complete(
        self,
        items: Sequence[Mapping[str, Any]],
        *,
        claim_next: ClaimFields | None = None,
        patience: float = PATIENCE_SECONDS,
    ) -> BulkCompletes:
        """End up to 100 runs; items are completes with their run_id and claim_token."""
        body: dict[str, Any] = {"items": items}
        if claim_next is not None:
            body["claim_next"] = _given(claim_next)
        path = "/api/agent/tasks/bulk/complete"
        return self._transport.call(BulkCompletes, "POST", path, body=body, patience=patience)

    def fail(
        self,
        run_id: str,
        claim_token: str,
        *,
        error: str,
        patience: float = PATIENCE_SECONDS,
        **more: Unpack[FailFields],
    ) -> Failed:
        """End a run with an error; it is tried again while attempts are left."""
        body = {"claim_token": claim_token, "error": error, **more}
        answer = self._send(run_id, "fail", body, patience)
        return answer.decode(Failed)

    def release(
        self,
        run_id: str,
        claim_token: str,
        *,
        patience: float = PATIENCE_SECONDS,
        **more: Unpack[ReleaseFields],
    ) -> LeaseState:
        """Give a run back, without burning an attempt."""
        body = {"claim_token": claim_token, **more}
        answer = self._send(run_id, "release", body, patience)
        return answer.decode(_Lease).lease

    def list(self, *, limit: int = 50, cursor: str | None = None) -> LeasePage:
        """The live leases of this session."""
        query = {"limit": limit, "cursor": cursor}
        return self._transport.call(LeasePage, "GET", "/api/agent/leases", query=query)

    def verify(self, run_id: str, fence: int, *, claim_token: str | None = None) -> Verified:
        """Ask whether (run, fence) is current, for whoever guards a side effect."""
        body = {"run_id": run_id, "fence": fence, "claim_token": claim_token}
        return self._transport.call(Verified, "POST", "/api/leases/verify", body=body)

    def _send(
        self,
        run_id: str,
        verb: str,
        body: Any,
        patience: float,
        timeout: float = TIMEOUT_SECONDS,
    ) -> Answer:
        return self._transport.send(
            "POST",
            f"/api/agent/tasks/{segment(run_id)}/{verb}",
            body=body,
            patience=patience,
            timeout=timeout,
        )


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
