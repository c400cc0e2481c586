"""Many runs against their holders' will: one transaction each, and no run spoils another's."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from server.api.context import Context
from server.api.force import again, fail, release
from server.contract.base import Encoded
from server.contract.force import (
    BulkFailRequest,
    BulkReleaseRequest,
    BulkRetryRequest,
    BulkRunPairResponse,
    BulkRunResponse,
)
from server.errors import Problem, envelope
from server.store import force

# These are about the call, not about one of its runs.
OF_THE_CALL: Final = frozenset({"idempotency_in_progress", "idempotency_key_reused"})
Refusals = dict[str, tuple[str, dict[str, Any]]]
Force = Callable[[str], Awaitable[Encoded[Any]]]


async def bulk_release(ctx: Context, body: BulkReleaseRequest) -> Encoded[BulkRunResponse]:
    """Takes many runs from their holders."""
    return await _each(ctx, body.run_ids, lambda n: release(ctx, n, body.reason, body.metadata))


async def bulk_fail(ctx: Context, body: BulkFailRequest) -> Encoded[BulkRunResponse]:
    """Ends many runs as failed."""
    return await _each(ctx, body.run_ids, lambda n: fail(ctx, n, body.reason, body.metadata))


async def bulk_retry(ctx: Context, body: BulkRetryRequest) -> Encoded[BulkRunPairResponse]:
    """Tries many failed runs again."""
    return await _again(ctx, body, recover=False)


async def bulk_recover(ctx: Context, body: BulkRetryRequest) -> Encoded[BulkRunPairResponse]:
    """Fails many runs that need attention, and tries again."""
    return await _again(ctx, body, recover=True)


async def _again(ctx: Context, body: BulkRetryRequest, recover: bool) -> Encoded[Any]:
    async def once(run_id: str) -> Encoded[Any]:
        return await again(ctx, run_id, recover, body.reason, body.metadata, bulk=True)

    if ctx.idempotency_key is None:
        return await _each(ctx, body.run_ids, once, pairs=True)
    key = {
        "workspace_id": ctx.workspace_id, "cause": ctx.cause, "key": ctx.idempotency_key,
        "request_hash": ctx.key_hash,
    }  # fmt: skip
    kept = await force.find_bulk_key(ctx.services.db, **key)
    refusals = msgspec.json.decode(kept, type=Refusals) if kept else {}
    told = await _each(ctx, body.run_ids, once, refusals, pairs=True)
    # What an outage kept from being done is to be done by a repeat.
    if kept is None and all(Problem(code).status < 500 for code, _ in refusals.values()):
        text = msgspec.json.encode(refusals).decode()
        await force.keep_bulk_key(ctx.services.db, refusals=text, **key)
    return Encoded(told.body, replayed=kept is not None)


async def _each(
    ctx: Context, run_ids: list[str], do: Force, refusals: Refusals | None = None,
    pairs: bool = False,
) -> Encoded[Any]:  # fmt: skip
    """The results in input order; refusals: what is refused without being tried, and is added."""
    refusals = {} if refusals is None else refusals
    results = []
    for run_id in dict.fromkeys(run_ids):
        try:
            if run_id in refusals:
                code, evidence = refusals[run_id]
                raise Problem(code, **evidence)
            done = (await do(run_id)).body.decode()
            told = f'"ok":true,"error":null,{done[1:]}'
        except Problem as problem:
            if problem.code in OF_THE_CALL:
                raise
            refusals[run_id] = (problem.code, problem.evidence)
            error = envelope(problem, ctx.request_id, ctx.services.config.url)
            none = '"previous_run":null,"run":null' if pairs else '"run":null'
            told = f'"ok":false,"error":{msgspec.json.encode(error).decode()},{none}}}'
        results.append(f'{{"run_id":"{run_id}",{told}')
    return Encoded(f'{{"results":[{",".join(results)}]}}'.encode())
