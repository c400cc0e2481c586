"""Approvals."""

from typing import Any, NamedTuple

from server.db.pool import Asked, Database
from server.store.base import Changed, Started

APPROVE_TASK = """
select task_body, run_body, version, replayed, offers from approve_task(
  %(workspace_id)s, %(cause)s::jsonb, %(task_id)s, %(channel)s, %(metadata)s::json, %(key)s,
  %(request_hash)s)
"""


async def approve_task(db: Database, **call: Any) -> Started:
    """Opens the gate of a task and queues a run."""
    [row] = await db.many(APPROVE_TASK, **call)
    return Started(*row)


REJECT_TASK = """
select body, version, offers from reject_task(
  %(workspace_id)s, %(cause)s::jsonb, %(task_id)s, %(reason)s)
"""


async def reject_task(db: Database, **call: Any) -> Changed:
    """Leaves the gate of a task closed."""
    [row] = await db.many(REJECT_TASK, **call)
    return Changed(*row)


LATE_APPROVALS = """
select x.workspace_id, array_agg(x.task_id order by x.task_id)
  from (select b.workspace_id, b.task_id from task_body b
         where b.approval_due_at <= (select lease_now())
           and b.workspace_id <> all (%(without)s)
         order by b.approval_due_at limit %(limit)s) x
 group by x.workspace_id
"""


async def late_approvals(db: Asked, limit: int, without: list[str]) -> list[tuple[str, list[str]]]:
    """The tasks whose time for an approval is over, by workspace; not of those held up."""
    rows = await db.many(LATE_APPROVALS, limit=limit, without=without)
    return [(row[0], row[1]) for row in rows]


class Late(NamedTuple):
    """How many tasks were rejected, and of how many was reminded."""

    rejected: int
    reminded: int


EXPIRE_APPROVALS = "select rejected, reminded from expire_approvals(%(workspace_id)s, %(tasks)s)"


async def expire_approvals(db: Asked, workspace_id: str, tasks: list[str]) -> Late:
    """Does what the late ones among these tasks ask for, judged again under their locks."""
    [row] = await db.many(EXPIRE_APPROVALS, workspace_id=workspace_id, tasks=tasks)
    return Late(*row)


SET_APPROVAL_ASIDE = """
update task_body set approval_due_at = lease_now() + interval '1 minute'
 where workspace_id = %(workspace_id)s and task_id = %(task_id)s and approval_due_at is not null
returning task_id
"""


async def set_approval_aside(db: Asked, workspace_id: str, task_id: str) -> None:
    """Leaves a task whose approval cannot be dealt with for a later pass."""
    await db.many(SET_APPROVAL_ASIDE, workspace_id=workspace_id, task_id=task_id)
