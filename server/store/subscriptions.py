"""Subscriptions: which events of a task go to a bridge."""

from typing import Any

from server.db.pool import Database

CREATE_SUBSCRIPTION = """
select body, status, replayed from create_subscription(
  %(workspace_id)s, %(cause)s::jsonb, %(key)s, %(request_hash)s, %(task_id)s, %(new)s::jsonb)
"""


async def create_subscription(db: Database, **call: Any) -> tuple[str, int, bool]:
    """Makes or replaces a subscription; its JSON, 201 or 200, and whether an earlier call did."""
    [row] = await db.many(CREATE_SUBSCRIPTION, **call)
    return row[0], row[1], row[2]


GET_SUBSCRIPTION = """
select json_build_object('subscription', s.body)::text from subscription_wire s
 where s.workspace_id = %(workspace_id)s and s.task_id = %(task_id)s
   and s.subscription_id = %(subscription_id)s
"""


async def get_subscription(
    db: Database, workspace_id: str, task_id: str, subscription_id: str
) -> str | None:
    """A subscription of this task as JSON."""
    row = await db.one(
        GET_SUBSCRIPTION,
        workspace_id=workspace_id,
        task_id=task_id,
        subscription_id=subscription_id,
    )
    return row[0] if row else None


LIST_SUBSCRIPTIONS = """
select s.body::text, s.created_at, s.subscription_id from subscription_wire s
 where s.workspace_id = %(workspace_id)s and s.task_id = %(task_id)s
   and (%(bridge_id)s::text is null or s.bridge_id = %(bridge_id)s)
   and (%(scope)s::text is null or s.body ->> 'scope' = %(scope)s)
   and (%(named)s::text is null or s.workspace_id = %(named)s)
   and (%(after_at)s::timestamptz is null
        or (s.created_at, s.subscription_id) > (%(after_at)s, %(after_id)s))
 order by s.created_at, s.subscription_id limit %(limit)s
"""


async def list_subscriptions(db: Database, **filters: Any) -> list[tuple[Any, ...]]:
    """The subscriptions of a task, oldest first, each as JSON and its sort values."""
    return await db.many(LIST_SUBSCRIPTIONS, **filters)


DELETE_SUBSCRIPTION = """
select delete_subscription(
  %(workspace_id)s, %(cause)s::jsonb, %(task_id)s, %(subscription_id)s)
"""


async def delete_subscription(
    db: Database, workspace_id: str, cause: str, task_id: str, subscription_id: str
) -> None:
    """Removes a subscription; its cursor stays."""
    await db.run(
        DELETE_SUBSCRIPTION,
        workspace_id=workspace_id,
        cause=cause,
        task_id=task_id,
        subscription_id=subscription_id,
    )
