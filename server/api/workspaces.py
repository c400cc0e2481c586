"""Workspaces."""

import time

import msgspec

from server.api.context import Context, WorkspaceId
from server.api.paging import pages
from server.contract.base import Encoded, to_json
from server.contract.workspaces import (
    WorkspaceCreateRequest,
    WorkspaceListQuery,
    WorkspaceListResponse,
    WorkspacePatchRequest,
    WorkspaceResponse,
)
from server.errors import Problem
from server.rules.ids import new_id
from server.store import workspaces


async def list_workspaces(
    ctx: Context, query: WorkspaceListQuery
) -> Encoded[WorkspaceListResponse]:
    """Lists the workspaces that the caller may act in, by name."""
    after = ctx.after(query)
    reach = None if ctx.caller.all_workspaces else ctx.workspace_id
    rows = await workspaces.list_workspaces(
        ctx.services.db, reach, after[0] if after else None, query.reach
    )
    return pages(ctx, query, "workspaces", rows)


async def create_workspace(
    ctx: Context, body: WorkspaceCreateRequest
) -> Encoded[WorkspaceResponse]:
    """Makes a workspace."""
    if not ctx.caller.all_workspaces:
        raise Problem("forbidden", role=ctx.caller.role, action=ctx.action)
    given = msgspec.to_builtins(body)
    new = {name: value for name, value in given.items() if value is not None}
    new["id"] = new_id("ws", time.time_ns() // 1_000_000)
    made, version, replayed = await workspaces.create_workspace(
        ctx.services.db,
        workspace_id=ctx.workspace_id,
        cause=ctx.cause,
        key=ctx.idempotency_key,
        request_hash=ctx.key_hash,
        workspace=msgspec.json.encode(new).decode(),
    )
    return Encoded(made.encode(), version=version, replayed=replayed)


async def get_workspace(ctx: Context, workspace_id: WorkspaceId) -> Encoded[WorkspaceResponse]:
    """Shows a workspace, named by its id or name."""
    body, version = await workspaces.get_workspace(
        ctx.services.db, await _reached(ctx, workspace_id)
    )
    return Encoded(body.encode(), version=version)


async def patch_workspace(
    ctx: Context, workspace_id: WorkspaceId, body: WorkspacePatchRequest
) -> Encoded[WorkspaceResponse]:
    """Changes a workspace; settings that are not given stay."""
    reached = await _reached(ctx, workspace_id)
    made, version = await workspaces.patch_workspace(
        ctx.services.db, reached, ctx.cause, ctx.if_match, to_json(body)
    )
    return Encoded(made.encode(), version=version)


async def _reached(ctx: Context, named: str) -> str:
    """The workspace in the path, if the caller may act there."""
    if ctx.caller.all_workspaces:
        return (await ctx.services.identity.workspace(named)).workspace_id
    # Not looked up: how long that takes would tell whether another workspace has this name.
    if named not in (ctx.workspace_id, ctx.caller.workspace_name):
        raise Problem("workspace_not_found", id=named)
    return ctx.workspace_id
