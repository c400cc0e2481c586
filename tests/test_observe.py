"""What operators look at: trees, graphs, and lists of runs and sessions."""

from typing import Any

import pytest

from tests.factories import Workspace, refused


def test_a_tree_is_shown_breadth_first_the_latest_activity_first(workspace: Workspace) -> None:
    root = workspace.task("root", auto_enqueue_on_ready=False)
    quiet = workspace.task("quiet", parent_task_id=root.id, auto_enqueue_on_ready=False)
    busy = workspace.task("busy", parent_task_id=root.id)
    below = workspace.task("below", parent_task_id=quiet.id, auto_enqueue_on_ready=False)
    agent = workspace.agent()
    agent.claim()
    workspace.world.advance(1)
    workspace.operator.patch(f"/api/tasks/{quiet.id}", title="still quiet")
    tree = workspace.operator.get(f"/api/tasks/{root.id}/tree").tree
    nodes = [(n.task.id, n.depth, n.child_count) for n in (tree.root, *tree.descendants)]
    assert nodes == [(root.id, 0, 2), (quiet.id, 1, 1), (busy.id, 1, 0), (below.id, 2, 0)]
    assert [bool(n.active_run) for n in tree.descendants] == [False, True, False]
    assert (tree.truncated, tree.descendants[2].parent_task_id) == (False, quiet.id)
    inner = workspace.operator.get(f"/api/tasks/{quiet.id}/tree").tree
    assert (inner.root.depth, [n.depth for n in inner.descendants]) == (0, [1])


def test_a_large_tree_is_cut(workspace: Workspace) -> None:
    root = workspace.task(auto_enqueue_on_ready=False)
    items = [{"ref": str(n), "title": "t"} for n in range(5001)]
    defaults = {"parent_task_id": root.id, "auto_enqueue_on_ready": False}
    workspace.operator.post("/api/tasks/bulk", tasks=items, defaults=defaults)
    tree = workspace.operator.get(f"/api/tasks/{root.id}/tree").tree
    assert (len(tree.descendants), tree.truncated) == (5000, True)


DIAMOND = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"], "e": ["d"]}


@pytest.mark.parametrize(
    ("query", "distances", "edges", "truncated"),
    [
        ({}, {"d": 0, "b": -1, "c": -1, "a": -2, "e": 1}, 5, False),
        ({"direction": "upstream"}, {"d": 0, "b": -1, "c": -1, "a": -2}, 4, False),
        ({"direction": "downstream"}, {"d": 0, "e": 1}, 1, False),
        ({"depth": 1}, {"d": 0, "b": -1, "c": -1, "e": 1}, 3, True),
        ({"depth": 1, "direction": "downstream"}, {"d": 0, "e": 1}, 1, False),
        ({"max_nodes": 1}, {"d": 0}, 0, True),
    ],
)  # fmt: skip
def test_a_graph_shows_what_a_task_waits_for_and_what_waits_for_it(
    workspace: Workspace, query: dict[str, Any], distances: dict[str, int], edges: int,
    truncated: bool,
) -> None:  # fmt: skip
    ids = workspace.graph(DIAMOND)
    graph = workspace.operator.get(f"/api/tasks/{ids['d']}/graph", **query).graph
    assert {n.id: n.distance for n in graph.nodes} == {ids[k]: v for k, v in distances.items()}
    assert [abs(n.distance) for n in graph.nodes] == sorted(abs(n.distance) for n in graph.nodes)
    assert (graph.root_id, len(graph.edges), graph.truncated) == (ids["d"], edges, truncated)


def test_an_edge_of_a_graph_says_whether_it_is_satisfied(workspace: Workspace) -> None:
    ids = workspace.graph({"a": [], "b": [], "c": ["a", "b"]})
    workspace.agent().work(ids["a"])
    graph = workspace.operator.get(f"/api/tasks/{ids['c']}/graph").graph
    told = {edge.depends_on_task_id: edge.satisfied for edge in graph.edges}
    assert told == {ids["a"]: True, ids["b"]: False}


@pytest.mark.parametrize("view", ["tree", "graph", "explain"])
def test_nothing_of_another_workspace_is_shown(workspace: Workspace, view: str) -> None:
    """P12."""
    other = workspace.world.workspace().task()
    for task_id in (other.id, "nobody"):
        with refused(404, "task_not_found", id=task_id):
            workspace.operator.get(f"/api/tasks/{task_id}/{view}")


def test_the_runs_of_a_workspace_are_listed_by_what_they_are(workspace: Workspace) -> None:
    agent, other = workspace.agent(), workspace.agent("other")
    tasks = [workspace.task() for _ in range(4)]
    done, held = agent.work(tasks[0].id), other.claim(lease_seconds=60)
    every = workspace.operator.get("/api/task-runs").runs
    assert [run.id for run in every] == sorted((run.id for run in every), reverse=True)
    assert len(every) == 4
    for query, wanted in (
        ({"status": "completed"}, [done.run_id]),
        ({"status": "claimed,running"}, [held.run_id]),
        ({"agent_name": "other"}, [held.run_id]),
        ({"session_id": agent.session}, [done.run_id]),
        ({"session_id": other.session, "status": "claimed"}, [held.run_id]),
        ({"task_id": tasks[0].id}, [done.run_id]),
        ({"task_id": held.task_id, "status": "claimed"}, [held.run_id]),
        ({"stuck": "true"}, []),
    ):
        told = workspace.operator.get("/api/task-runs", **query).runs
        assert [run.id for run in told] == wanted, query


def test_a_run_is_stuck_when_it_missed_a_heartbeat(workspace: Workspace) -> None:
    workspace.task()
    held = workspace.agent().claim(lease_seconds=60)
    for seconds, stuck in ((29, []), (2, [held.run_id])):
        workspace.world.advance(seconds)
        told = workspace.operator.get("/api/task-runs", stuck=True).runs
        assert [run.id for run in told] == stuck
        free = workspace.operator.get("/api/task-runs", stuck=False).runs
        assert [run.id for run in free] == ([] if stuck else [held.run_id])
    held.heartbeat()
    assert workspace.operator.get("/api/task-runs", stuck=True).runs == []


@pytest.mark.parametrize("query", [{}, {"status": "claimed"}])
def test_a_list_of_runs_has_each_once(workspace: Workspace, query: dict[str, str]) -> None:
    for _ in range(7):
        workspace.task()
    claims = workspace.agent().claims(max_runs=7)
    seen, cursor = [], None
    while True:
        page = workspace.operator.get("/api/task-runs", limit=3, cursor=cursor, **query)
        seen += [run.id for run in page.runs]
        if (cursor := page.next_cursor) is None:
            break
    assert seen == sorted((held.run_id for held in claims), reverse=True)


def test_sessions_are_listed_with_their_leases(workspace: Workspace) -> None:
    busy, idle = workspace.agent("busy"), workspace.agent("idle")
    workspace.task()
    workspace.task()
    busy.claims(max_runs=2, capabilities=["gpu"])
    idle.claims()
    told = workspace.operator.get("/api/sessions").sessions
    assert [s.session_id for s in told] == sorted((busy.session, idle.session), reverse=True)
    assert {s.agent_name: s.lease_count for s in told} == {"busy": 2, "idle": 0}
    [only] = workspace.operator.get("/api/sessions", agent_name="busy").sessions
    assert (only.capabilities, only.state) == (["gpu"], "active")
    workspace.world.advance(301)
    for state, count in (("active", 0), ("stopped", 2)):
        assert len(workspace.operator.get("/api/sessions", state=state).sessions) == count
