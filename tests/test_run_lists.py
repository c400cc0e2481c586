"""The runs and sessions of a workspace, listed."""

from typing import Any

from tests.factories import Agent, Workspace, refused
from tests.world import World

SESSION_TTL_SECONDS = 300


def _listed(workspace: Workspace, **query: Any) -> list[str]:
    return [run.id for run in workspace.operator.get("/api/task-runs", **query).runs]


def _sessions(workspace: Workspace, **query: Any) -> dict[str, Any]:
    told = workspace.operator.get("/api/sessions", **query).sessions
    return {session.session_id: session for session in told}


def test_runs_of_all_tasks_are_listed_newest_first(workspace: Workspace, agent: Agent) -> None:
    for _ in range(5):
        workspace.task()
    runs = sorted((agent.claim().run_id for _ in range(5)), reverse=True)
    assert _listed(workspace) == runs
    first = workspace.operator.get("/api/task-runs", limit=3)
    rest = _listed(workspace, limit=3, cursor=first.next_cursor)
    assert [*(run.id for run in first.runs), *rest] == runs
    with refused(400, "invalid_cursor"):
        _listed(workspace, status="queued", cursor=first.next_cursor)


def test_runs_are_found_by_what_they_are_and_who_holds_them(workspace: Workspace) -> None:
    ann, bob = workspace.agent("ann"), workspace.agent("bob")
    tasks = [workspace.task(retry={"strategy": "none"}) for _ in range(3)]
    one, two = ann.claim(), bob.claim()
    two.complete()
    released = ann.claim()
    released.release()
    assert _listed(workspace, status="claimed") == [one.run_id]
    both = sorted((one.run_id, two.run_id), reverse=True)
    assert _listed(workspace, status="claimed,completed") == both
    assert _listed(workspace, agent_name="bob") == [two.run_id]
    assert _listed(workspace, session_id=bob.session) == [two.run_id]
    assert _listed(workspace, session_id=ann.session) == [one.run_id]
    assert set(_listed(workspace, agent_name="ann")) == {one.run_id, released.run_id}
    assert _listed(workspace, task_id=two.task_id) == [two.run_id]
    assert _listed(workspace, task_id=two.task_id, status="failed") == []
    assert _listed(workspace, task_id="nobody") == []
    assert {one.task_id, two.task_id, released.task_id} == {task.id for task in tasks}


def test_a_run_is_stuck_when_a_heartbeat_was_missed(
    workspace: Workspace, agent: Agent, world: World
) -> None:
    """Later than half of its lease, that is."""
    task = workspace.task()
    held = agent.claim(lease_seconds=60)
    done = workspace.agent().work(workspace.task().id).run_id
    world.advance(20)
    assert _listed(workspace, stuck=True) == []
    world.advance(11)
    assert _listed(workspace, stuck=True) == [held.run_id]
    assert _listed(workspace, stuck=False) == [done]
    assert _listed(workspace, stuck=True, task_id=task.id) == [held.run_id]
    assert _listed(workspace, stuck=True, agent_name="nobody") == []
    held.heartbeat()
    assert _listed(workspace, stuck=True) == []


def test_long_results_are_cut_in_the_list(workspace: Workspace, agent: Agent) -> None:
    agent.work(workspace.task().id, result="x" * 9000)
    [run] = workspace.operator.get("/api/task-runs").runs
    assert (run.result, run.result_bytes) == (None, 9002)


def test_sessions_are_listed_with_what_they_hold(workspace: Workspace, world: World) -> None:
    for _ in range(2):
        workspace.task()
    idle, busy = workspace.agent("ann", "s-1"), workspace.agent("bob", "s-2")
    idle.claims(channel="blue", capabilities=["b", "a"])
    for _ in range(2):
        busy.claim()
    told = _sessions(workspace)
    assert list(told) == ["s-2", "s-1"]
    assert [session.lease_count for session in told.values()] == [2, 0]
    assert (told["s-1"].agent_name, told["s-1"].channel, told["s-1"].capabilities) == (
        "ann", "blue", ["a", "b"],
    )  # fmt: skip
    assert list(_sessions(workspace, agent_name="ann")) == ["s-1"]
    first = workspace.operator.get("/api/sessions", limit=1)
    assert list(_sessions(workspace, limit=1, cursor=first.next_cursor)) == ["s-1"]


def test_a_session_that_was_not_seen_lately_is_stopped(workspace: Workspace, world: World) -> None:
    workspace.agent("ann", "s-1").claims()
    assert _sessions(workspace)["s-1"].state == "active"
    world.advance(SESSION_TTL_SECONDS + 1)
    workspace.agent("bob", "s-2").claims()
    assert list(_sessions(workspace, state="stopped")) == ["s-1"]
    assert list(_sessions(workspace, state="active")) == ["s-2"]


def test_lists_of_runs_and_sessions_hold_nothing_of_other_workspaces(
    workspace: Workspace, world: World
) -> None:
    """P12."""
    there = world.workspace()
    task = there.task()
    there.agent().claim()
    world.advance(301)
    assert _listed(workspace) == _listed(workspace, stuck=True) == []
    assert _listed(workspace, task_id=task.id) == []
    assert _sessions(workspace) == {}
