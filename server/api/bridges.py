"""Bridges: where notifications go."""

import time

import msgspec

from server.api.context import BridgeId, Context
from server.api.paging import pages
from server.contract.base import Encoded, to_json
from server.contract.bridges import (
    BridgeCreateRequest,
    BridgeListQuery,
    BridgeListResponse,
    BridgePatchRequest,
    BridgeResponse,
    DeliveryListQuery,
    DeliveryListResponse,
)
from server.errors import Problem
from server.rules.ids import new_id
from server.rules.targets import TargetRefused
from server.rules.webhooks import new_signing_secret
from server.store import bridges


async def list_bridges(ctx: Context, query: BridgeListQuery) -> Encoded[BridgeListResponse]:
    """Lists bridges, newest first, never with a secret."""
    after = ctx.after(query)
    rows = await bridges.list_bridges(
        ctx.services.db,
        workspace_id=ctx.workspace_id,
        after=after[0] if after else None,
        limit=query.reach,
    )
    return pages(ctx, query, "bridges", rows)


async def create_bridge(ctx: Context, body: BridgeCreateRequest) -> Encoded[BridgeResponse]:
    """Makes a bridge; its signing secret is in this answer only."""
    await _check(ctx, body.url)
    secret = new_signing_secret()
    new = msgspec.to_builtins(body) | {
        "id": new_id("br", time.time_ns() // 1_000_000),
        "secret": ctx.services.seal.close(secret),
    }
    made, version, replayed = await bridges.create_bridge(
        ctx.services.db, workspace_id=ctx.workspace_id, cause=ctx.cause, key=ctx.idempotency_key,
        request_hash=ctx.key_hash, new=msgspec.json.encode(new).decode(),
    )  # fmt: skip
    return _with_secret(made, None if replayed else secret, version, replayed)


async def get_bridge(ctx: Context, bridge_id: BridgeId) -> Encoded[BridgeResponse]:
    """Shows a bridge."""
    found = await bridges.get_bridge(ctx.services.db, ctx.workspace_id, bridge_id)
    if found is None:
        raise Problem("bridge_not_found", id=bridge_id)
    return Encoded(found[0].encode(), version=found[1])


async def patch_bridge(
    ctx: Context, bridge_id: BridgeId, body: BridgePatchRequest
) -> Encoded[BridgeResponse]:
    """Changes a bridge; a new secret is in this answer only."""
    if body.url is not msgspec.UNSET:
        await _check(ctx, body.url)
    secret = new_signing_secret() if body.rotate_secret is True else None
    changes = msgspec.json.decode(to_json(body), type=dict[str, object])
    if secret is not None:
        changes["secret"] = ctx.services.seal.close(secret)
    told, version = await bridges.patch_bridge(
        ctx.services.db, workspace_id=ctx.workspace_id, cause=ctx.cause, bridge_id=bridge_id,
        version=ctx.if_match, changes=msgspec.json.encode(changes).decode(),
    )  # fmt: skip
    return _with_secret(told, secret, version) if secret else Encoded(told.encode(), version)


async def delete_bridge(ctx: Context, bridge_id: BridgeId) -> None:
    """Removes a bridge with its subscriptions."""
    await bridges.delete_bridge(ctx.services.db, ctx.workspace_id, ctx.cause, bridge_id)
    ctx.services.hub.changed(ctx.workspace_id, 0)


async def list_deliveries(
    ctx: Context, bridge_id: BridgeId, query: DeliveryListQuery
) -> Encoded[DeliveryListResponse]:
    """Lists the attempts over a bridge, newest first."""
    if await bridges.get_bridge(ctx.services.db, ctx.workspace_id, bridge_id) is None:
        raise Problem("bridge_not_found", id=bridge_id)
    after = ctx.after(query) or [None, None]
    rows = await bridges.list_deliveries(
        ctx.services.db, workspace_id=ctx.workspace_id, bridge_id=bridge_id, status=query.status,
        subscription_id=query.subscription_id, after_at=after[0], after_id=after[1],
        limit=query.reach,
    )  # fmt: skip
    return pages(ctx, query, "deliveries", rows)


async def _check(ctx: Context, url: str) -> None:
    try:
        await ctx.services.outbound.check(url)
    except TargetRefused as refused:
        raise Problem("bridge_url_refused", rule=refused.rule) from None


def _with_secret(
    told: str, secret: str | None, version: int, replayed: bool = False
) -> Encoded[BridgeResponse]:
    """The answer of the database with the secret put into it."""
    shown = f'"{secret}"' if secret else "null"
    body = f'{told[:-2]},"signing_secret":{shown}}}}}'
    return Encoded(body.encode(), version=version, replayed=replayed)
