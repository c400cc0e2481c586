"""What operators look at."""

from server.db.pool import Database

READ_TREE = "select read_tree(%(workspace_id)s, %(task_id)s, %(limit)s)"


async def read_tree(db: Database, workspace_id: str, task_id: str, limit: int) -> str | None:
    """A task and what is below it; None if there is no such task."""
    [row] = await db.many(READ_TREE, workspace_id=workspace_id, task_id=task_id, limit=limit)
    tree: str | None = row[0]
    return tree


READ_GRAPH = """
select read_graph(%(workspace_id)s, %(task_id)s, %(up)s, %(down)s, %(depth)s, %(limit)s)
"""


async def read_graph(
    db: Database, workspace_id: str, task_id: str, *, up: bool, down: bool, depth: int, limit: int
) -> str | None:
    """The dependencies around a task; None if there is no such task."""
    [row] = await db.many(
        READ_GRAPH, workspace_id=workspace_id, task_id=task_id, up=up, down=down, depth=depth,
        limit=limit,
    )  # fmt: skip
    graph: str | None = row[0]
    return graph


READ_FACTS = """
select body::text from claim_facts where workspace_id = %(workspace_id)s and task_id = %(task_id)s
"""


async def read_facts(db: Database, workspace_id: str, task_id: str) -> str | None:
    """What decides whether a run of the task can be claimed; None if there is no such task."""
    row = await db.one(READ_FACTS, workspace_id=workspace_id, task_id=task_id)
    return row[0] if row else None
