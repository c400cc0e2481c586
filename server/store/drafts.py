"""Drafts."""

from typing import Any

from server.db.pool import Database
from server.store.base import Started

PUBLISH_TASK = """
select task_body, run_body, version, replayed, offers from publish_task(
  %(workspace_id)s, %(cause)s::jsonb, %(role)s, %(task_id)s, %(subtree)s, %(channel)s,
  %(metadata)s::json, %(key)s, %(request_hash)s)
"""


async def publish_task(db: Database, **call: Any) -> Started:
    """Makes a task of a draft, or of all drafts of a subtree, each with a queued run."""
    [row] = await db.many(PUBLISH_TASK, **call)
    return Started(*row)
