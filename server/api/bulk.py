"""Many leases in one request: each item stands for itself."""

import asyncio

import msgspec

from server.api.context import Context
from server.api.holding import lease_call, plain
from server.api.leases import heartbeat_call, next_claim
from server.contract.base import Encoded
from server.contract.bulk import (
    BulkCompleteRequest,
    BulkCompleteResponse,
    BulkHeartbeatRequest,
    BulkHeartbeatResponse,
    CompleteItem,
    HeartbeatItem,
)
from server.errors import Problem, envelope
from server.store.leases import CallAnswer
from server.store.operations import server_now


async def bulk_heartbeat(
    ctx: Context, body: BulkHeartbeatRequest
) -> Encoded[BulkHeartbeatResponse]:
    """Renews many leases."""
    results = await asyncio.gather(*(_heartbeat(ctx, item) for item in body.items))
    server_time = next((answer.server_time for answer, _ in results if answer), None)
    server_time = server_time or await server_now(ctx.services.db)
    told = ",".join(text for _, text in results)
    return Encoded(f'{{"results":[{told}],"server_time":"{server_time}"}}'.encode())


async def bulk_complete(ctx: Context, body: BulkCompleteRequest) -> Encoded[BulkCompleteResponse]:
    """Ends many runs with their results; claims the next ones if asked."""
    told = ",".join(await asyncio.gather(*(_complete(ctx, item) for item in body.items)))
    claim = ',"claim":null'
    if body.claim_next is not None:
        claim = await next_claim(ctx, body.claim_next, None)
    return Encoded(f'{{"results":[{told}]{claim}}}'.encode())


async def _heartbeat(ctx: Context, item: HeartbeatItem) -> tuple[CallAnswer | None, str]:
    start = f'{{"run_id":"{item.run_id}","ok":'
    try:
        call = heartbeat_call(ctx, item.run_id, item)
        done = await ctx.services.holding.heartbeat(ctx.workspace_id, call)
    except Problem as problem:
        error = _error(ctx, problem)
        return None, (
            f'{start}false,"lease":null,"cancel_requested":false,"stop_reason":null,'
            f'"paused":false,"budget_remaining":null,"error":{error}}}'
        )
    told = msgspec.json.decode(done.body or "", type=dict[str, msgspec.Raw])
    del told["lease_until"]
    return done, f'{start}true,{msgspec.json.encode(told).decode()[1:-1]},"error":null}}'


async def _complete(ctx: Context, item: CompleteItem) -> str:
    start = f'{{"run_id":"{item.run_id}","ok":'
    try:
        call = lease_call(ctx, item.run_id, item)
        call.fields["result"] = plain(item.result)
        done = await ctx.services.holding.complete(ctx.workspace_id, call)
    except Problem as problem:
        error = _error(ctx, problem)
        return f'{start}false,"replayed":false,"lease":null,"error":{error}}}'
    replayed = "true" if done.replayed else "false"
    return f'{start}true,"replayed":{replayed},{(done.body or "")[1:-1]},"error":null}}'


def _error(ctx: Context, problem: Problem) -> str:
    told = envelope(problem, ctx.request_id, ctx.services.config.url)
    return msgspec.json.encode(told).decode()
