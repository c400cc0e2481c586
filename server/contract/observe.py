"""What operators look at: trees, graphs, and why a run is not claimed."""

from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta

from server import limits
from server.contract.base import Answer, Query, Time
from server.contract.references import RunSummary, TaskReference


class TaskTreeNode(Answer):
    """A task in its tree."""

    task: TaskReference
    parent_task_id: str | None
    depth: int
    child_count: int
    active_run: RunSummary | None
    last_activity_at: Time


class Tree(Answer):
    """A task and all below it, breadth first."""

    root: TaskTreeNode
    descendants: list[TaskTreeNode]
    truncated: bool


class TreeResponse(Answer):
    """The tree below a task."""

    tree: Tree


class GraphNode(TaskReference):
    """A task and how far it is from the root; below zero: the root waits for it."""

    distance: int


class GraphEdge(Answer):
    """One task waits for another."""

    task_id: str
    depends_on_task_id: str
    kind: Literal["blocks"]
    satisfied: bool


class Graph(Answer):
    """What a task waits for, and what waits for it."""

    root_id: str
    nodes: list[GraphNode]
    edges: list[GraphEdge]
    truncated: bool
    as_of: Time


class GraphResponse(Answer):
    """The dependencies around a task."""

    graph: Graph


class GraphQuery(Query):
    """Which way and how far to go from a task."""

    direction: Literal["both", "upstream", "downstream"] = "both"
    depth: Annotated[int, Meta(ge=1, le=limits.GRAPH_DEPTH_LIMIT_EDGES)] = 100
    max_nodes: Annotated[int, Meta(ge=1, le=limits.GRAPH_LIMIT_NODES)] = 1000


class Reason(Answer):
    """A rule of claiming that does not hold."""

    code: str
    message: str
    evidence: dict[str, Any]


class Explanation(Answer):
    """Whether a run of the task can be claimed, and what stands in the way."""

    task_id: str
    run_id: str | None
    claimable: bool
    reasons: list[Reason]
    as_of: Time


class ExplainResponse(Answer):
    """Why a task is not claimed."""

    explain: Explanation


class ExplainQuery(Query):
    """A claimer to check the rules of routing for; what is not given is not checked."""

    # A claimer may say that it has none.
    kept_empty: ClassVar[frozenset[str]] = frozenset({"capabilities"})

    agent_name: str | None = None
    capabilities: list[str] | None = None
    channel: str | None = None
    priority_min: int | Literal["low", "medium", "high", "urgent"] | None = None
    session_id: str | None = None
    peer_id: str | None = None
