"""API keys."""

import time

import msgspec

from server.api.context import Context, KeyId
from server.api.paging import pages
from server.contract.base import Encoded
from server.contract.keys import (
    KeyCreateRequest,
    KeyListQuery,
    KeyListResponse,
    KeyResponse,
    KeyRotateRequest,
)
from server.errors import Problem
from server.rules.ids import new_id
from server.rules.tokens import api_key_hash, api_key_prefix, new_api_key
from server.store import keys


async def list_keys(ctx: Context, query: KeyListQuery) -> Encoded[KeyListResponse]:
    """Lists keys, newest first, never with a secret."""
    after = ctx.after(query)
    rows = await keys.list_keys(
        ctx.services.db,
        workspace_id=ctx.workspace_id,
        every=ctx.caller.every_workspace,
        all_workspaces=ctx.caller.all_workspaces,
        role=query.role,
        include_revoked=query.include_revoked,
        after=after[0] if after else None,
        limit=query.reach,
    )
    return pages(ctx, query, "keys", rows)


async def create_key(ctx: Context, body: KeyCreateRequest) -> Encoded[KeyResponse]:
    """Makes a key; its secret is in this answer only."""
    secret, new = _new_key()
    new |= {"name": body.name, "role": body.role, "expires_at": body.expires_at}
    new["workspace_id"] = await _workspace(ctx, body)
    new["agent_name"] = (body.agent_name or body.name) if body.role == "agent" else None
    new["actor_kind"] = (body.actor_kind or "human") if body.role != "agent" else None
    made, replayed = await keys.create_key(
        ctx.services.db,
        workspace_id=ctx.workspace_id,
        cause=ctx.cause,
        key=ctx.idempotency_key,
        request_hash=ctx.key_hash,
        new=msgspec.json.encode(new).decode(),
    )
    return _with_secret(made, secret, replayed)


async def rotate_key(ctx: Context, key_id: KeyId, body: KeyRotateRequest) -> Encoded[KeyResponse]:
    """Makes a key like this one, which ends after the overlap."""
    secret, new = _new_key()
    made, replayed = await keys.rotate_key(
        ctx.services.db,
        workspace_id=ctx.workspace_id,
        cause=ctx.cause,
        key=ctx.idempotency_key,
        request_hash=ctx.key_hash,
        reach=_reach(ctx),
        key_id=key_id,
        new=msgspec.json.encode(new).decode(),
        overlap_seconds=body.overlap_seconds,
    )
    return _with_secret(made, secret, replayed)


async def revoke_key(ctx: Context, key_id: KeyId) -> None:
    """Ends a key; leases of its agent stay valid until they end."""
    await keys.revoke_key(ctx.services.db, ctx.cause, _reach(ctx), key_id)


def _new_key() -> tuple[str, dict[str, object]]:
    key_id = new_id("key", time.time_ns() // 1_000_000)
    secret = new_api_key(key_id)
    told: dict[str, object] = {"id": key_id, "prefix": api_key_prefix(secret)}
    return secret, told | {"secret_hash": api_key_hash(secret).hex()}


async def _workspace(ctx: Context, body: KeyCreateRequest) -> str | None:
    """The workspace of the new key; None is all."""
    if body.workspace is None:
        return ctx.workspace_id
    if ctx.caller.all_workspaces:
        if body.workspace == "*":
            return None
        return (await ctx.services.identity.workspace(body.workspace)).workspace_id
    if body.workspace not in (ctx.workspace_id, ctx.caller.workspace_name):
        raise Problem("workspace_not_found", id=body.workspace)
    return ctx.workspace_id


def _reach(ctx: Context) -> str | None:
    """The workspace whose keys the caller may touch; None is all."""
    return None if ctx.caller.all_workspaces else ctx.workspace_id


def _with_secret(made: str, secret: str, replayed: bool) -> Encoded[KeyResponse]:
    shown = "null" if replayed else f'"{secret}"'
    return Encoded(f'{{"key":{made[:-1]},"secret":{shown}}}}}'.encode(), replayed=replayed)
