"""What operators look at: trees, graphs, and why a run is not claimed."""

import msgspec

from server import limits
from server.api.context import Context, TaskId
from server.contract.base import Encoded
from server.contract.observe import (
    ExplainQuery,
    ExplainResponse,
    GraphQuery,
    GraphResponse,
    TreeResponse,
)
from server.errors import Problem
from server.rules.explain import PRIORITIES, Asker, Facts, faults
from server.store import observe


async def get_tree(ctx: Context, task_id: TaskId) -> Encoded[TreeResponse]:
    """Shows a task and all below it, breadth first."""
    limit = limits.TREE_LIMIT_NODES
    tree = await observe.read_tree(ctx.services.db, ctx.workspace_id, task_id, limit)
    if tree is None:
        raise Problem("task_not_found", id=task_id)
    return Encoded(f'{{"tree":{tree}}}'.encode())


async def get_graph(ctx: Context, task_id: TaskId, query: GraphQuery) -> Encoded[GraphResponse]:
    """Shows what a task waits for and what waits for it."""
    graph = await observe.read_graph(
        ctx.services.db, ctx.workspace_id, task_id, up=query.direction != "downstream",
        down=query.direction != "upstream", depth=query.depth, limit=query.max_nodes,
    )  # fmt: skip
    if graph is None:
        raise Problem("task_not_found", id=task_id)
    return Encoded(f'{{"graph":{graph}}}'.encode())


async def explain_task(
    ctx: Context, task_id: TaskId, query: ExplainQuery
) -> Encoded[ExplainResponse]:
    """Tells whether a run of the task can be claimed, and what stands in the way."""
    found = await observe.read_facts(ctx.services.db, ctx.workspace_id, task_id)
    if found is None:
        raise Problem("task_not_found", id=task_id)
    facts = msgspec.json.decode(found, type=Facts)
    reasons = faults(facts, _asker(query))
    told = {
        "task_id": task_id, "run_id": facts.run_id, "claimable": not reasons, "reasons": reasons,
        "as_of": facts.as_of,
    }  # fmt: skip
    return Encoded(msgspec.json.encode({"explain": told}))


def _asker(query: ExplainQuery) -> Asker:
    least = query.priority_min
    return Asker(
        agent_name=query.agent_name,
        session_id=query.session_id,
        capabilities=query.capabilities,
        channel=query.channel,
        priority_min=PRIORITIES[least] if isinstance(least, str) else least,
        peer_id=query.peer_id,
    )
