"""Reviews: asked for, claimed, judged, and looked at."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from server.api.context import Context, ReviewId, RunId, TaskId, leaving
from server.api.holding import Fields, plain, proof
from server.api.manual import pads
from server.api.paging import BEHIND_ALL, pages
from server.contract.base import Encoded, to_json
from server.contract.leases import LeaseProof
from server.contract.reviews import (
    ReviewClaimRequest,
    ReviewClaimResponse,
    ReviewCreateRequest,
    ReviewCreateResponse,
    ReviewHeartbeatRequest,
    ReviewLeaseResponse,
    ReviewListQuery,
    ReviewListResponse,
    ReviewReleaseRequest,
    ReviewResponse,
    ReviewSearchQuery,
    VerdictRequest,
    VerdictResponse,
)
from server.errors import Problem, unfit
from server.store import reviews, runs, tasks
from server.store.reviews import Claimed
from server.telemetry import ClaimServed, ReviewRecorded, occur


async def list_task_reviews(
    ctx: Context, task_id: TaskId, query: ReviewListQuery
) -> Encoded[ReviewListResponse]:
    """Lists the reviews of a task, the last changed first."""
    if not await tasks.has_task(ctx.services.db, ctx.workspace_id, task_id):
        raise Problem("task_not_found", id=task_id)
    return await _list(ctx, query, task_id=task_id, run_id=None)


async def list_run_reviews(
    ctx: Context, run_id: RunId, query: ReviewListQuery
) -> Encoded[ReviewListResponse]:
    """Lists the reviews of a run, the last changed first."""
    if not await runs.has_run(ctx.services.db, ctx.workspace_id, run_id):
        raise Problem("run_not_found", id=run_id)
    return await _list(ctx, query, task_id=None, run_id=run_id)


async def search_reviews(ctx: Context, query: ReviewSearchQuery) -> Encoded[ReviewListResponse]:
    """Lists the reviews of the workspace, the last made first."""
    [after] = ctx.after(query) or [BEHIND_ALL]
    rows = await reviews.search_reviews(
        ctx.services.db, workspace_id=ctx.workspace_id, after=after, status=query.status,
        gating=query.gating, limit=query.reach,
    )  # fmt: skip
    return pages(ctx, query, "reviews", rows)


async def get_review(ctx: Context, review_id: ReviewId) -> Encoded[ReviewResponse]:
    """Shows a review."""
    found = await reviews.get_review(ctx.services.db, ctx.workspace_id, review_id)
    if found is None:
        raise Problem("review_not_found", id=review_id)
    return Encoded(f'{{"review":{found}}}'.encode())


async def request_review(
    ctx: Context, run_id: RunId, body: ReviewCreateRequest
) -> Encoded[ReviewCreateResponse]:
    """Asks for a review of a run; nothing waits for it."""
    if body.run_id not in (None, run_id):
        raise unfit("run_id", "match", "must be that of the path")
    made = await reviews.request_review(
        ctx.services.db, workspace_id=ctx.workspace_id, cause=ctx.cause, run_id=run_id,
        task_id=body.task_id, request=to_json(body), key=ctx.idempotency_key,
        request_hash=ctx.key_hash,
    )  # fmt: skip
    ctx.services.hub.changed(ctx.workspace_id, 0)
    told = f'{{"created":{"true" if made.status == 201 else "false"},"review":{made.body}}}'
    return Encoded(told.encode(), status=made.status, replayed=made.replayed)


async def claim_review(ctx: Context, body: ReviewClaimRequest) -> Encoded[ReviewClaimResponse]:
    """Claims the next review that the caller may do, or waits for one."""
    await ctx.services.identity.register(ctx.caller, body.channel, body.capabilities)
    got = await (_wait(ctx, body) if body.wait_seconds else _claim(ctx, body, ctx.has_left))
    result = ("replayed" if got.replayed else "claimed") if got.body else "empty"
    occur(ClaimServed, kind="review", result=result)
    if got.body is None:
        return Encoded(b"", status=204, headers=((b"retry-after", b"1"),))
    told = f'{{"claim":{got.body},"server_time":"{got.server_time}"}}'
    return Encoded(told.encode(), replayed=got.replayed)


async def heartbeat_review(
    ctx: Context, review_id: ReviewId, body: ReviewHeartbeatRequest
) -> Encoded[ReviewLeaseResponse]:
    """Renews a review lease; the first time the review begins."""
    call = _call(ctx, review_id, body, lease_seconds=body.lease_seconds or None)
    told = await reviews.heartbeat_review(ctx.services.db, ctx.workspace_id, call)
    ctx.services.hub.changed(ctx.workspace_id, 0)
    return Encoded(told.encode())


async def release_review(
    ctx: Context, review_id: ReviewId, body: ReviewReleaseRequest
) -> Encoded[ReviewLeaseResponse]:
    """Gives a review back; anybody else may claim it."""
    call = _call(ctx, review_id, body, reason=body.reason, note=body.note)
    told, replayed = await reviews.release_review(ctx.services.db, ctx.workspace_id, call)
    ctx.services.hub.changed(ctx.workspace_id, 0)
    return Encoded(told.encode(), replayed=replayed)


async def submit_review(
    ctx: Context, review_id: ReviewId, body: VerdictRequest
) -> Encoded[VerdictResponse]:
    """Judges a run: an agent under its review lease, a person at any time."""
    by_hand = ctx.caller.role != "agent"
    if not by_hand and ctx.caller.session_id is None:
        raise Problem("identity_required", header="X-Session-ID")
    verdict: Fields = msgspec.structs.asdict(body.verdict)
    verdict["missing_work"] = plain(body.verdict.missing_work)
    done = await reviews.submit_review(
        ctx.services.db, workspace_id=ctx.workspace_id, by_hand=by_hand,
        call=_call(ctx, review_id, body, run_id=body.run_id, **verdict),
        max_attempts=ctx.services.config.review_max_attempts,
    )  # fmt: skip
    for outcome in done.outcomes:
        occur(ReviewRecorded, outcome=outcome)
    ctx.services.hub.changed(ctx.workspace_id, done.offers)
    return Encoded(done.body.encode(), replayed=done.replayed)


async def _list(ctx: Context, query: ReviewListQuery, **of: Any) -> Encoded[ReviewListResponse]:
    after_at, after_id = ctx.after(query) or ("infinity", "")
    rows = await reviews.list_reviews(
        ctx.services.db, workspace_id=ctx.workspace_id, after_at=after_at, after_id=after_id,
        status=query.status, reviewer_session_id=query.reviewer_session_id, limit=query.reach,
        **of,
    )  # fmt: skip
    return pages(ctx, query, "reviews", rows)


async def _wait(ctx: Context, body: ReviewClaimRequest) -> Claimed:
    limit = await ctx.services.settings.of(ctx.workspace_id, "max_waiting_claims")
    async with leaving(ctx) as gone:
        return await ctx.services.reviewing.wait(
            ctx.workspace_id, lambda: _claim(ctx, body, gone.done), body.wait_seconds, gone, limit
        )


async def _claim(ctx: Context, body: ReviewClaimRequest, has_left: Callable[[], bool]) -> Claimed:
    """Takes what is there; what nobody hears of, nor can ask for again, is given back."""
    caller = ctx.caller
    wish = {
        "session_id": caller.session_id, "agent_name": caller.agent_name, "channel": body.channel,
        "peer_id": body.peer_id, "capabilities": body.capabilities,
        "lease_seconds": body.lease_seconds or None, "key": ctx.idempotency_key,
        "hash": ctx.key_hash, "cause": msgspec.Raw(ctx.cause.encode()),
    }  # fmt: skip
    got = await reviews.claim_review(
        ctx.services.db, workspace_id=ctx.workspace_id,
        reviewer=msgspec.json.encode(wish).decode(), **pads(ctx),
    )  # fmt: skip
    if got.body is not None and not got.replayed:
        ctx.services.hub.changed(ctx.workspace_id, 0)
    if got.body is not None and ctx.idempotency_key is None and has_left():
        await _undo(ctx, got.body)
    return got


async def _undo(ctx: Context, claim: str) -> None:
    """Gives back what was claimed for a caller who has left."""
    lease = msgspec.json.decode(claim)["lease"]
    proven = LeaseProof(claim_token=lease["claim_token"])
    call = _call(ctx, lease["review_id"], proven, reason="client_gone")
    await asyncio.shield(reviews.release_review(ctx.services.db, ctx.workspace_id, call))
    ctx.services.hub.changed(ctx.workspace_id, 0)


def _call(ctx: Context, review_id: str, body: LeaseProof, **more: Any) -> str:
    """A call about a review as the database takes it."""
    fields: Fields = {
        "review_id": review_id,
        "session_id": ctx.caller.session_id,
        "agent_name": ctx.caller.agent_name,
        "fence": body.fence,
        "cause": msgspec.Raw(ctx.cause.encode()),
    }
    if body.claim_token is not None:
        fields |= proof(ctx, review_id, body.claim_token)
    return msgspec.json.encode(fields | more).decode()
