"""Leases: claim, heartbeat, complete, fail, release, and who holds what."""

import hashlib
from typing import Any

import msgspec

from server import limits
from server.api.claiming import Claimed, Wish, make_claimer
from server.api.context import Context, RunId, leaving
from server.api.holding import lease_call, plain
from server.api.paging import pages
from server.contract.base import Encoded
from server.contract.leases import (
    ClaimNextRequest,
    ClaimResponse,
    ClaimWish,
    HeartbeatRequest,
    HeartbeatResponse,
    LeaseCompleteRequest,
    LeaseCompleteResponse,
    LeaseFailRequest,
    LeaseFailResponse,
    LeaseListQuery,
    LeaseReleaseRequest,
    LeaseResponse,
    LeaseVerifyRequest,
    LeaseVerifyResponse,
)
from server.contract.reviews import LeaseListResponse
from server.errors import Problem
from server.store import leases, reviews


class Fenced(msgspec.Struct):
    """The part of a lease that names the next claim."""

    fence: int


class Ended(msgspec.Struct):
    """The part of a completion's answer that names the next claim."""

    lease: Fenced


async def claim_next(ctx: Context, body: ClaimNextRequest) -> Encoded[ClaimResponse]:
    """Claims the next run that fits, or waits for one."""
    got = await claim(ctx, body, ctx.idempotency_key, ctx.key_hash)
    if not got.claims:
        wait = ctx.services.claiming.retry_after(ctx.workspace_id)
        return Encoded(b"", status=204, headers=((b"retry-after", b"%d" % wait),))
    told = f'{{"claim":{got.claims[0]},"server_time":"{got.server_time}"{_all(body, got)}}}'
    return Encoded(told.encode(), replayed=got.replayed)


async def claim(
    ctx: Context, body: ClaimWish, key: str | None, request_hash: str | None
) -> Claimed:
    """One claim of the calling session."""
    services, caller = ctx.services, ctx.caller
    await services.identity.register(caller, body.channel, body.capabilities)
    wish = Wish(
        make_claimer(caller, body.channel, body.peer_id, body.capabilities),
        body.least_weight,
        body.max_runs,
        body.lease_seconds or None,
        key,
        request_hash,
        ctx.cause,
    )
    if not body.wait_seconds:
        return await services.claiming.claim(ctx.workspace_id, wish, ctx.has_left)
    async with leaving(ctx) as gone:
        limit = await services.settings.of(ctx.workspace_id, "max_waiting_claims")
        return await services.claiming.wait(ctx.workspace_id, wish, body.wait_seconds, gone, limit)


async def heartbeat(
    ctx: Context, run_id: RunId, body: HeartbeatRequest
) -> Encoded[HeartbeatResponse]:
    """Renews a lease, and tells its holder what it must know."""
    call = heartbeat_call(ctx, run_id, body)
    done = await ctx.services.holding.heartbeat(ctx.workspace_id, call)
    return Encoded(f'{(done.body or "")[:-1]},"server_time":"{done.server_time}"}}'.encode())


def heartbeat_call(ctx: Context, run_id: str, body: HeartbeatRequest) -> Any:
    """A heartbeat as the database takes it."""
    call = lease_call(ctx, run_id, body)
    call.fields["lease_seconds"] = body.lease_seconds or None
    call.fields["progress"] = body.progress
    return call


async def complete(
    ctx: Context, run_id: RunId, body: LeaseCompleteRequest
) -> Encoded[LeaseCompleteResponse]:
    """Ends a run with its result; claims the next one if asked."""
    call = lease_call(ctx, run_id, body)
    call.fields["result"] = plain(body.result)
    done = await ctx.services.holding.complete(ctx.workspace_id, call)
    told = (done.body or "")[:-1]
    if body.claim_next is None:
        return Encoded(f'{told},"claim":null}}'.encode(), replayed=done.replayed)
    fence = msgspec.json.decode(done.body or "", type=Ended).lease.fence
    told += await next_claim(ctx, body.claim_next, f"complete:{run_id}:{fence}")
    return Encoded(f"{told}}}".encode(), replayed=done.replayed)


async def next_claim(ctx: Context, wish: ClaimWish, key: str | None) -> str:
    """The claim that follows a completion, as members of its answer; its failure is no claim.

    Raises database_unavailable for one under a key: perhaps it was committed, and whoever repeats
    the completion is told so.
    """
    key = wish.idempotency_key or key
    digest = hashlib.sha256(repr(wish).encode()).hexdigest()
    try:
        got = await claim(ctx, wish, key, digest)
    except Problem as problem:
        if key is not None and problem.code == "database_unavailable":
            raise
        return ',"claim":null'
    return f',"claim":{got.claims[0] if got.claims else "null"}{_all(wish, got)}'


async def fail(ctx: Context, run_id: RunId, body: LeaseFailRequest) -> Encoded[LeaseFailResponse]:
    """Ends a run with its error; it is tried again while attempts are left."""
    call = lease_call(ctx, run_id, body)
    call.fields.update(
        error=body.error,
        failure_kind=body.failure_kind,
        retryable=body.retryable,
        retry_after_seconds=body.retry_after_seconds,
        metadata=plain(body.metadata),
    )
    done = await ctx.services.holding.fail(ctx.workspace_id, call)
    return Encoded((done.body or "").encode(), replayed=done.replayed)


async def release(ctx: Context, run_id: RunId, body: LeaseReleaseRequest) -> Encoded[LeaseResponse]:
    """Gives a run back; it is queued again and no attempt is burned."""
    call = lease_call(ctx, run_id, body)
    call.fields.update(reason=body.reason, note=body.note, delay_seconds=body.delay_seconds)
    done = await ctx.services.holding.release(ctx.workspace_id, call)
    return Encoded((done.body or "").encode(), replayed=done.replayed)


async def list_leases(ctx: Context, query: LeaseListQuery) -> Encoded[LeaseListResponse]:
    """Lists the live leases of the calling session, without tokens."""
    after_at, after_id = ctx.after(query) or ("-infinity", "")
    rows = await leases.list_leases(
        ctx.services.db,
        workspace_id=ctx.workspace_id,
        session_id=ctx.caller.session_id,
        after_at=after_at,
        after_id=after_id,
        limit=query.reach,
    )
    held = [] if query.cursor else await reviews.held_reviews(
        ctx.services.db, workspace_id=ctx.workspace_id, session_id=ctx.caller.session_id,
        limit=limits.REVIEWS_HELD_LIMIT_COUNT,
    )  # fmt: skip
    return pages(ctx, query, "leases", rows, extra=f'"reviews":[{",".join(held)}],')


async def verify(ctx: Context, body: LeaseVerifyRequest) -> Encoded[LeaseVerifyResponse]:
    """Says whether a fence is the current one, for third parties that guard side effects."""
    digest = hashlib.sha256(body.claim_token.encode()).hexdigest() if body.claim_token else None
    told = await leases.verify_lease(
        ctx.services.db, ctx.workspace_id, body.run_id, body.fence, digest
    )
    if told is None:
        raise Problem("run_not_found", id=body.run_id)
    return Encoded(told.encode())


def _all(wish: ClaimWish, got: Claimed) -> str:
    return f',"claims":[{",".join(got.claims)}]' if wish.max_runs > 1 else ""
