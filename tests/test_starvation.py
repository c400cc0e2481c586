"""Starvation: a run that nobody takes for long is told of, once, and stays as it is."""

from typing import Any

from server import telemetry
from tests.factories import Agent, Workspace
from tests.world import World


def _starved(workspace: Workspace) -> list[Any]:
    return workspace.events(event_type="task.run_starved")


def _count(workspace: Workspace) -> int:
    count: int = workspace.operator.get("/api/scheduler").scheduler.starved_run_count
    return count


def _codes(workspace: Workspace, task_id: str) -> list[str]:
    told = workspace.operator.get(f"/api/tasks/{task_id}/inspect").inspect
    return [diagnostic.code for diagnostic in told.diagnostics]


def test_a_run_that_waits_for_long_is_told_of_once(
    world: World, workspace: Workspace, agent: Agent
) -> None:
    task = workspace.task()
    world.advance(119)
    world.starve()
    assert (_starved(workspace), _count(workspace)) == ([], 0)
    world.advance(2)
    for _ in range(2):
        world.starve()
    [event] = _starved(workspace)
    assert (event.task_id, event.actor.ref, event.payload["status"]) == (
        task.id, "starvation", "queued",
    )  # fmt: skip
    assert 121_000 <= event.payload["queued_age_ms"] < 180_000
    assert (_count(workspace), _codes(workspace, task.id)) == (1, ["task_run_starved"])
    assert agent.claim().run_id == event.run_id


def test_a_run_that_is_queued_again_is_told_of_again(
    world: World, workspace: Workspace, agent: Agent
) -> None:
    workspace.task()
    for count in (1, 2):
        world.advance(121)
        world.starve()
        assert len(_starved(workspace)) == count
        agent.claim().release()
    assert _count(workspace) == 0


def test_a_run_that_moves_in_the_queue_is_told_of_once(world: World, workspace: Workspace) -> None:
    """Its offer is made anew by another priority, and by a pause; its queueing is the same."""
    task = workspace.task()
    world.advance(121)
    world.starve()
    workspace.operator.patch(f"/api/tasks/{task.id}", priority="urgent")
    world.starve()
    for how in ("pause", "resume"):
        workspace.operator.post(f"/api/tasks/{task.id}/{how}", reason="x")
    assert _count(workspace) == 0
    world.advance(121)
    world.starve()
    assert (len(_starved(workspace)), _count(workspace)) == (1, 1)


def test_what_a_gate_holds_does_not_starve(world: World, workspace: Workspace) -> None:
    """Nor what has waited only since it became ready, due, or resumed."""
    later = workspace.task(available_at="2999-01-01T00:00:00Z")
    paused = workspace.task()
    workspace.operator.post(f"/api/tasks/{paused.id}/pause", reason="x")
    waiting = workspace.task(approval_policy="manual")
    workspace.operator.post(f"/api/tasks/{waiting.id}/runs")
    world.advance(500)
    workspace.operator.post(f"/api/tasks/{paused.id}/resume")
    workspace.operator.post(f"/api/tasks/{waiting.id}/approve")
    workspace.operator.patch(f"/api/tasks/{later.id}", available_at=None)
    world.starve()
    assert (_starved(workspace), _count(workspace)) == ([], 0)
    world.advance(121)
    world.starve()
    assert {event.task_id for event in _starved(workspace)} == {later.id, paused.id, waiting.id}


def test_the_time_in_which_the_scheduler_is_paused_does_not_count(
    world: World, workspace: Workspace
) -> None:
    task = workspace.task()
    workspace.operator.post("/api/scheduler/pause")
    world.advance(500)
    world.starve()
    assert (_starved(workspace), _count(workspace)) == ([], 0)
    workspace.operator.post("/api/scheduler/resume")
    assert (_count(workspace), _codes(workspace, task.id)) == (0, [])
    world.starve()
    assert _starved(workspace) == []
    world.advance(121)
    world.starve()
    assert (len(_starved(workspace)), _count(workspace)) == (1, 1)
    assert _codes(workspace, task.id) == ["task_run_starved"]


def test_each_workspace_has_its_own_patience(world: World, workspace: Workspace) -> None:
    hasty = world.workspace(starvation_seconds=10)
    hasty.task()
    workspace.task()
    world.advance(11)
    world.starve()
    assert (len(_starved(hasty)), len(_starved(workspace))) == (1, 0)


def test_many_starved_runs_are_told_of_in_batches(world: World, workspace: Workspace) -> None:
    """P8, and none of them is left out or told of twice."""
    ids = workspace.graph({f"{n}": [] for n in range(25)})
    world.advance(121)
    world.starve(runs=10)
    assert sorted(event.task_id for event in _starved(workspace)) == sorted(ids.values())
    world.starve(runs=10)
    assert len(_starved(workspace)) == 25


def test_a_run_that_another_call_holds_is_told_of_later(world: World, workspace: Workspace) -> None:
    held, free = workspace.task(), workspace.task()
    world.advance(121)
    with workspace.holding(held.id):
        world.starve()
        assert [event.task_id for event in _starved(workspace)] == [free.id]
    world.starve()
    assert [event.task_id for event in _starved(workspace)] == [free.id, held.id]


def test_runs_that_share_a_slot_starve_when_it_is_their_turn(
    world: World, workspace: Workspace, agent: Agent
) -> None:
    keyed = [workspace.task(concurrency_key="k").id for _ in range(2)]
    world.advance(121)
    world.starve()
    assert [event.task_id for event in _starved(workspace)] == keyed[:1]
    assert _count(workspace) == 1
    agent.work(keyed[0])
    world.starve()
    assert [event.task_id for event in _starved(workspace)] == keyed


def test_the_gauge_counts_the_starved_runs_of_all_workspaces(lonely: World) -> None:
    for _ in range(2):
        lonely.workspace().task()
    lonely.advance(121)
    for _ in range(2):
        lonely.starve()
        assert b"worklease_starved_runs 2.0" in telemetry.exposition()
