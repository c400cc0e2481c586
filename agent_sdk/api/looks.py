"""Looking at a task: what is below and around it, why it is not claimed, what is wrong."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from msgspec import Struct

from agent_sdk.errors import Diagnostic
from agent_sdk.fields import Priority
from agent_sdk.transport import Transport, segment
from agent_sdk.types import RunSummary, TaskReference, TaskSummary


class TreeNode(Struct, frozen=True, kw_only=True):
    """A task in its tree; the root has depth 0."""

    task: TaskReference
    parent_task_id: str | None = None
    depth: int = 0
    child_count: int = 0
    active_run: RunSummary | None = None
    last_activity_at: datetime | None = None


class Tree(Struct, frozen=True):
    """A task and all below it, breadth first; `truncated` after 5,000."""

    root: TreeNode
    descendants: list[TreeNode]
    truncated: bool = False


class GraphNode(TaskReference, frozen=True, kw_only=True):
    """A task and how far it is from the root; below zero: the root waits for it."""

    distance: int = 0


class Edge(Struct, frozen=True):
    """One task waits for another."""

    task_id: str
    depends_on_task_id: str
    kind: str = "blocks"
    satisfied: bool = False


class Surroundings(Struct, frozen=True, kw_only=True):
    """What a task waits for, and what waits for it."""

    root_id: str
    nodes: list[GraphNode]
    edges: list[Edge]
    truncated: bool = False
    as_of: datetime | None = None


class Reason(Struct, frozen=True):
    """A rule of claiming that does not hold."""

    code: str
    message: str = ""
    evidence: dict[str, Any] = {}


class Explanation(Struct, frozen=True, kw_only=True):
    """Whether a run of the task can be claimed, and what stands in the way."""

    task_id: str
    claimable: bool
    reasons: list[Reason]
    run_id: str | None = None
    as_of: datetime | None = None


class InspectedRun(Struct, frozen=True, kw_only=True):
    """A run in the words of an operator."""

    run_id: str
    task_id: str
    status: str
    attempt: int = 1
    retries: int = 0
    claim_token_hash_truncated: str | None = None
    fence: int | None = None
    lease_until: datetime | None = None
    heartbeat_at: datetime | None = None
    heartbeat_age_seconds: int | None = None
    lease_expiries: int = 0
    last_error_summary: str | None = None
    failure_kind: str | None = None
    bound_session_id: str | None = None
    previous_run_id: str | None = None
    queued_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None


class BoundSession(Struct, frozen=True, kw_only=True):
    """The session that works, or worked, on a run."""

    session_id: str
    state: str
    agent_name: str | None = None
    provider_name: str | None = None
    workspace_id: str | None = None
    started_at: datetime | None = None
    last_activity_at: datetime | None = None
    stop_reason: str | None = None
    failure_kind: str | None = None


class InspectedEvent(Struct, frozen=True, kw_only=True):
    """An event in few words."""

    id: str
    type: str
    summary: str = ""
    session_id: str | None = None
    task_id: str | None = None
    run_id: str | None = None
    outcome: str | None = None
    timestamp: datetime | None = None


class InspectedScheduler(Struct, frozen=True, kw_only=True):
    """Whether claims are stopped."""

    paused: bool
    paused_by: str | None = None
    paused_at: datetime | None = None
    reason: str | None = None
    updated_at: datetime | None = None


class Inspection(Struct, frozen=True, kw_only=True):
    """What a task or run looks like, what is wrong with it, and what to do next."""

    target: str
    task: TaskSummary
    next_action: str
    current_run: InspectedRun | None = None
    recent_runs: list[InspectedRun] = []
    bound_session: BoundSession | None = None
    recent_events: list[InspectedEvent] = []
    scheduler: InspectedScheduler | None = None
    diagnostics: list[Diagnostic] = []
    as_of: datetime | None = None


class _Tree(Struct, frozen=True):
    tree: Tree


class _Graph(Struct, frozen=True):
    graph: Surroundings


class _Explain(Struct, frozen=True):
    explain: Explanation


class _Inspect(Struct, frozen=True):
    inspect: Inspection


class Looks:
    """The part of `client.tasks` that explains."""

    _transport: Transport

    def tree(self, task_id: str) -> Tree:
        """A task and all below it."""
        return self._transport.call(_Tree, "GET", _path(task_id, "tree")).tree

    def graph(
        self,
        task_id: str,
        *,
        direction: Literal["both", "upstream", "downstream"] = "both",
        depth: int = 100,
        max_nodes: int = 1000,
    ) -> Surroundings:
        """What a task waits for (upstream), and what waits for it (downstream)."""
        query = {"direction": direction, "depth": depth, "max_nodes": max_nodes}
        return self._transport.call(_Graph, "GET", _path(task_id, "graph"), query=query).graph

    def explain(
        self,
        task_id: str,
        *,
        agent_name: str | None = None,
        capabilities: Sequence[str] | None = None,
        channel: str | None = None,
        priority_min: int | Priority | None = None,
        session_id: str | None = None,
        peer_id: str | None = None,
    ) -> Explanation:
        """Why a task is not claimed; of a claimer only what is given is checked."""
        query = {
            "agent_name": agent_name,
            "capabilities": capabilities,
            "channel": channel,
            "priority_min": priority_min,
            "session_id": session_id,
            "peer_id": peer_id,
        }
        path = _path(task_id, "explain")
        return self._transport.call(_Explain, "GET", path, query=query).explain

    def inspect(self, task_id: str) -> Inspection:
        """What is wrong with a task, and what to do about it; `client.runs.inspect` for a run."""
        return inspection(self._transport, _path(task_id, "inspect"))


def inspection(transport: Transport, path: str) -> Inspection:
    """What a route of inspection answers."""
    return transport.call(_Inspect, "GET", path).inspect


def _path(task_id: str, view: str) -> str:
    return f"/api/tasks/{segment(task_id)}/{view}"
