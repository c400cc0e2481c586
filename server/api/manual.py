"""Runs by hand: an operator claims one run, and whoever holds it starts, completes or fails it."""

from typing import Any

import msgspec

from server.api.context import Context, RunId
from server.api.holding import lease_call, plain
from server.contract.base import Encoded
from server.contract.leases import LeaseProof
from server.contract.manual import (
    AttachSessionRequest,
    ManualClaimRequest,
    RunCompleteRequest,
    RunFailRequest,
    RunLeaseResponse,
    RunStartRequest,
)
from server.contract.runs import RunResponse
from server.errors import Problem, unfit
from server.store import manual
from server.store.base import Repeatable
from server.telemetry import ClaimServed, LeaseOperation, occur


async def claim_run(
    ctx: Context, run_id: RunId, body: ManualClaimRequest
) -> Encoded[RunLeaseResponse]:
    """Claims this very run by hand, whatever it demands of a claimer."""
    told, replayed, offers = await manual.claim_run(
        ctx.services.db, workspace_id=ctx.workspace_id, cause=ctx.cause, run_id=run_id,
        session_id=_session(ctx, body.session_id), lease_seconds=body.lease_seconds,
        key=ctx.idempotency_key, request_hash=ctx.key_hash,
        **pads(ctx),
    )  # fmt: skip
    occur(ClaimServed, kind="manual", result="replayed" if replayed else "claimed")
    ctx.services.hub.changed(ctx.workspace_id, offers)
    return Encoded(told.encode(), replayed=replayed)


async def attach_session(
    ctx: Context, run_id: RunId, body: AttachSessionRequest
) -> Encoded[RunLeaseResponse]:
    """Gives a session to a run that was claimed by hand without one."""
    told = await manual.attach_session(
        ctx.services.db, workspace_id=ctx.workspace_id, cause=ctx.cause, run_id=run_id,
        session_id=body.session_id, agent_name=body.agent_name, **pads(ctx),
    )  # fmt: skip
    ctx.services.hub.changed(ctx.workspace_id, 0)
    return Encoded(told.encode())


async def start_run(ctx: Context, run_id: RunId, body: RunStartRequest) -> Encoded[RunResponse]:
    """Says that the work on a claimed run has begun."""
    return _told(await _hold(ctx, "start", run_id, body))


async def complete_run(
    ctx: Context, run_id: RunId, body: RunCompleteRequest
) -> Encoded[RunResponse]:
    """Ends a run with its result."""
    return _told(await _end(ctx, "complete", run_id, body, result=plain(body.result)))


async def fail_run(ctx: Context, run_id: RunId, body: RunFailRequest) -> Encoded[RunResponse]:
    """Ends a run with its error; it is tried again while attempts are left."""
    held = await _end(
        ctx, "fail", run_id, body, error=body.error, failure_kind=body.failure_kind,
        retryable=body.retryable, retry_after_seconds=body.retry_after_seconds,
        metadata=plain(body.metadata),
    )  # fmt: skip
    return _told(held)


async def _end(
    ctx: Context, operation: str, run_id: str, body: LeaseProof, **fields: Any
) -> Repeatable:
    try:
        held = await _hold(ctx, operation, run_id, body, **fields)
    except Problem as problem:
        occur(LeaseOperation, operation=operation, result=problem.code)
        raise
    occur(LeaseOperation, operation=operation, result="replayed" if held.replayed else "ok")
    return held


async def _hold(
    ctx: Context, operation: str, run_id: str, body: LeaseProof, **fields: Any
) -> Repeatable:
    """An agent proves its lease, as on its own routes; an operator needs a claim by hand."""
    by_hand = ctx.caller.role != "agent"
    if not by_hand and ctx.caller.session_id is None:
        raise Problem("identity_required", header="X-Session-ID")
    call = lease_call(ctx, run_id, body)
    held = await manual.hold_run(
        ctx.services.db, workspace_id=ctx.workspace_id, operation=operation, by_hand=by_hand,
        call=msgspec.json.encode(call.fields | fields).decode(),
    )  # fmt: skip
    ctx.services.hub.changed(ctx.workspace_id, held.offers)
    return held


def _told(held: Repeatable) -> Encoded[RunResponse]:
    return Encoded(held.body.encode(), replayed=held.replayed)


def pads(ctx: Context) -> dict[str, bytes]:
    """What claim tokens are derived with."""
    names = ("outer", "inner", "outer_previous", "inner_previous")
    return dict(zip(names, ctx.services.claiming.key, strict=True))


def _session(ctx: Context, given: str | None) -> str | None:
    """The session that a claim by hand is for: told in the body, or in an agent's header."""
    own = ctx.caller.session_id if ctx.caller.agent_name else None
    if given is not None and own is not None and given != own:
        raise unfit("session_id", "exclusive", "differs from the header")
    return given or own
