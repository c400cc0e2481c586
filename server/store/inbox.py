"""Triage and the inbox."""

from typing import Any, NamedTuple

from server.db.pool import Database


class Lane(NamedTuple):
    """A lane with a page of its tasks, as JSON; last: the sort values of the page's last one."""

    name: str
    total: int
    unread_total: int
    items: str
    found: int
    last: list[Any] | None


READ_INBOX = """
select name, total, unread_total, items, found, last from read_inbox(%(call)s::json, %(lanes)s)
"""


async def read_inbox(db: Database, call: str, lanes: list[str], workspace_id: str) -> list[Lane]:
    """The lanes asked for."""
    # The workspace stands in the call; here it takes its turn in the pool.
    rows = await db.many(READ_INBOX, call=call, lanes=lanes, workspace_id=workspace_id)
    return [Lane(*row) for row in rows]


TRIAGE_TASK = """
select triage_task(%(workspace_id)s, %(actor_kind)s, %(actor_ref)s, %(task_id)s, %(action)s)
"""


async def triage_task(db: Database, **call: str) -> str:
    """Notes what an actor did to a task; the triage as it is then."""
    [row] = await db.many(TRIAGE_TASK, **call)
    state: str = row[0]
    return state
