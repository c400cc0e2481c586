"""Runs against their holders' will: released, failed, tried again; many at once in force_bulk."""

from server.api.context import Context, RunId
from server.contract.base import CauseMetadata, Encoded, Metadata
from server.contract.force import (
    ForceFailRequest,
    ForceReleaseRequest,
    ForceRetryRequest,
    RunPairResponse,
)
from server.contract.runs import RunResponse
from server.store import force


async def force_release(
    ctx: Context, run_id: RunId, body: ForceReleaseRequest
) -> Encoded[RunResponse]:
    """Takes a run from its holder; it is queued again and no attempt is burned."""
    return await release(ctx, run_id, body.reason, body.metadata, body.note, body.delay_seconds)


async def force_fail(ctx: Context, run_id: RunId, body: ForceFailRequest) -> Encoded[RunResponse]:
    """Ends a run as failed, whoever holds it; nothing tries it again by itself."""
    return await fail(ctx, run_id, body.reason, body.metadata)


async def retry_run(
    ctx: Context, run_id: RunId, body: ForceRetryRequest
) -> Encoded[RunPairResponse]:
    """Tries a failed run again."""
    return await again(ctx, run_id, False, body.reason, body.metadata, body.delay_seconds)


async def recover_run(
    ctx: Context, run_id: RunId, body: ForceRetryRequest
) -> Encoded[RunPairResponse]:
    """Fails a run that needs attention, and tries again."""
    return await again(ctx, run_id, True, body.reason, body.metadata, body.delay_seconds)


async def release(
    ctx: Context, run_id: str, reason: str | None, metadata: CauseMetadata | None,
    note: str | None = None, delay_seconds: int = 0,
) -> Encoded[RunResponse]:  # fmt: skip
    """Takes one run from its holder."""
    done = await force.force_release_run(
        ctx.services.db,
        workspace_id=ctx.workspace_id,
        cause=ctx.cause,
        run_id=run_id,
        reason=reason,
        note=note,
        delay_seconds=delay_seconds,
        metadata=metadata.text if metadata else None,
    )
    ctx.services.hub.changed(ctx.workspace_id, done.offers)
    return Encoded(done.body.encode())


async def fail(
    ctx: Context, run_id: str, reason: str | None, metadata: CauseMetadata | None
) -> Encoded[RunResponse]:
    """Ends one run as failed."""
    done = await force.force_fail_run(
        ctx.services.db,
        workspace_id=ctx.workspace_id,
        cause=ctx.cause,
        run_id=run_id,
        reason=reason,
        metadata=metadata.text if metadata else None,
    )
    ctx.services.hub.changed(ctx.workspace_id, done.offers)
    return Encoded(done.body.encode())


async def again(
    ctx: Context, run_id: str, recover: bool, reason: str | None, metadata: Metadata | None,
    delay_seconds: int = 0, bulk: bool = False,
) -> Encoded[RunPairResponse]:  # fmt: skip
    """Tries one run again; bulk: the key stands for many, of which this is one."""
    made = await force.retry_run(
        ctx.services.db,
        workspace_id=ctx.workspace_id,
        cause=ctx.cause,
        run_id=run_id,
        recover=recover,
        reason=reason,
        metadata=metadata.text if metadata else None,
        delay_seconds=delay_seconds,
        key=ctx.idempotency_key,
        request_hash=ctx.key_hash,
        bulk=bulk,
    )
    ctx.services.hub.changed(ctx.workspace_id, made.offers)
    return Encoded(made.body.encode(), replayed=made.replayed)
