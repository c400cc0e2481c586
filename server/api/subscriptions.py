"""Subscriptions: which events of a task go to a bridge."""

import time

import msgspec

from server.api.context import Context, SubscriptionId, TaskId
from server.api.paging import pages
from server.contract.base import Encoded
from server.contract.bridges import (
    SubscriptionCreateRequest,
    SubscriptionListQuery,
    SubscriptionListResponse,
    SubscriptionResponse,
)
from server.errors import Problem
from server.rules.ids import new_id
from server.store import subscriptions, tasks


async def list_subscriptions(
    ctx: Context, task_id: TaskId, query: SubscriptionListQuery
) -> Encoded[SubscriptionListResponse]:
    """Lists the subscriptions of a task, oldest first."""
    if not await tasks.has_task(ctx.services.db, ctx.workspace_id, task_id):
        raise Problem("task_not_found", id=task_id)
    after = ctx.after(query) or [None, None]
    rows = await subscriptions.list_subscriptions(
        ctx.services.db, workspace_id=ctx.workspace_id, task_id=task_id, scope=query.scope,
        bridge_id=query.bridge_instance_id, named=query.workspace_id, after_at=after[0],
        after_id=after[1], limit=query.reach,
    )  # fmt: skip
    return pages(ctx, query, "subscriptions", rows)


async def create_subscription(
    ctx: Context, task_id: TaskId, body: SubscriptionCreateRequest
) -> Encoded[SubscriptionResponse]:
    """Sends events of a task to a bridge, past ones too; an existing id is replaced."""
    new = msgspec.to_builtins(body)
    new["subscription_id"] = body.subscription_id or new_id("sub", time.time_ns() // 1_000_000)
    made, status, replayed = await subscriptions.create_subscription(
        ctx.services.db, workspace_id=ctx.workspace_id, cause=ctx.cause, key=ctx.idempotency_key,
        request_hash=ctx.key_hash, task_id=task_id, new=msgspec.json.encode(new).decode(),
    )  # fmt: skip
    ctx.services.hub.changed(ctx.workspace_id, 0)
    return Encoded(made.encode(), status=status, replayed=replayed)


async def get_subscription(
    ctx: Context, task_id: TaskId, subscription_id: SubscriptionId
) -> Encoded[SubscriptionResponse]:
    """Shows a subscription with its cursor."""
    db = ctx.services.db
    if not await tasks.has_task(db, ctx.workspace_id, task_id):
        raise Problem("task_not_found", id=task_id)
    found = await subscriptions.get_subscription(db, ctx.workspace_id, task_id, subscription_id)
    if found is None:
        raise Problem("subscription_not_found", id=subscription_id)
    return Encoded(found.encode())


async def delete_subscription(
    ctx: Context, task_id: TaskId, subscription_id: SubscriptionId
) -> None:
    """Removes a subscription; its cursor stays for one with the same id."""
    await subscriptions.delete_subscription(
        ctx.services.db, ctx.workspace_id, ctx.cause, task_id, subscription_id
    )
    ctx.services.hub.changed(ctx.workspace_id, 0)
