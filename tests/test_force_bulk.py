"""Many runs against their holders' will in one call: each for itself."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.factories import Agent, Workspace, refused
from tests.world import World


def _bulk(workspace: Workspace, how: str, runs: list[str], key: str | None = None, **b: Any) -> Any:
    return workspace.operator.post(f"/api/runs/bulk/{how}", key, run_ids=runs, **b).results


def _failed(workspace: Workspace, agent: Agent, count: int) -> list[str]:
    """Failed runs of as many tasks."""
    tasks = [workspace.task() for _ in range(count)]
    return [agent.work(task.id, "fail", retryable=False).run_id for task in tasks]


def test_one_bad_run_does_not_spoil_the_others(workspace: Workspace, agent: Agent) -> None:
    """In input order; who is named twice is answered once."""
    for _ in range(3):
        workspace.task()
    held = [agent.claim() for _ in range(3)]
    held[1].complete()
    runs = [held[0].run_id, "run_nobody", held[1].run_id, held[0].run_id, held[2].run_id]
    told = _bulk(workspace, "release", runs, reason="all back", metadata={"n": 1})
    assert [result.run_id for result in told] == [runs[0], runs[1], runs[2], runs[4]]
    assert [result.ok for result in told] == [True, False, False, True]
    codes = [result.error and result.error.diagnostic.code for result in told]
    assert codes == [None, "run_not_found", "task_run_not_releasable", None]
    assert told[2].error.diagnostic.evidence == {"run_status": "completed"}
    assert [told[0].run.status, told[1].run, told[3].run.status] == ["queued", None, "queued"]
    events = workspace.events(event_type="task.run_released")
    assert [event.payload["reason"] for event in events] == ["all back"] * 2


def test_many_runs_are_failed_in_one_call(workspace: Workspace, agent: Agent) -> None:
    workspace.task()
    held = agent.claim()
    queued = workspace.operator.get(f"/api/tasks/{workspace.task().id}/runs").runs[0].id
    told = _bulk(workspace, "fail", [held.run_id, queued], reason="enough")
    assert [result.run.failure_kind for result in told] == ["operator_forced"] * 2
    again = _bulk(workspace, "fail", [held.run_id], reason="enough")
    assert again[0].error.diagnostic.code == "task_run_already_terminal"


def test_many_failed_runs_are_tried_again(workspace: Workspace, agent: Agent) -> None:
    runs = _failed(workspace, agent, 2)
    workspace.task()
    active = agent.claim().run_id
    told = _bulk(workspace, "retry", [*runs, active], metadata={"n": 1})
    assert [result.previous_run and result.previous_run.id for result in told] == [*runs, None]
    assert [result.run.metadata for result in told[:2]] == [{"n": 1}] * 2
    assert told[2].error.diagnostic.code == "task_run_still_active"
    assert {agent.claim().run_id, agent.claim().run_id} == {r.run.id for r in told[:2]}


def test_many_runs_are_recovered(world: World, workspace: Workspace, agent: Agent) -> None:
    tasks = [workspace.task(max_lease_expiries=1) for _ in range(2)]
    runs = [agent.claim(lease_seconds=5).run_id for _ in tasks]
    world.advance(6)
    assert workspace.sweep() == 2
    told = _bulk(workspace, "recover", runs, reason="I looked")
    assert [r.previous_run.error for r in told] == ["I looked"] * 2
    assert workspace.get(tasks[0].id).status == "ready"


def test_a_repeat_with_the_same_key_answers_the_same_runs(
    workspace: Workspace, agent: Agent
) -> None:
    """P5: what was refused is refused again, though it could be done by now."""
    runs = _failed(workspace, agent, 1)
    workspace.task()
    active = agent.claim()
    first = _bulk(workspace, "retry", [*runs, active.run_id], "k")
    replayed = [workspace.operator.replayed]
    assert first[0].run.idempotency_key == "k"
    active.fail(retryable=False)
    with workspace.unchanged():
        again = _bulk(workspace, "retry", [*runs, active.run_id], "k")
    assert [*replayed, workspace.operator.replayed] == [False, True]
    assert [r.run and r.run.id for r in again] == [first[0].run.id, None]
    assert again[1].error.diagnostic.code == "task_run_still_active"
    assert again[1].error.diagnostic.evidence == first[1].error.diagnostic.evidence


def test_a_key_is_for_one_request(workspace: Workspace, agent: Agent) -> None:
    runs = _failed(workspace, agent, 2)
    _bulk(workspace, "retry", runs[:1], "k")
    with workspace.unchanged():
        for how, wanted in (("retry", runs), ("retry", runs[1:]), ("recover", runs[:1])):
            with refused(422, "idempotency_key_reused"):
                _bulk(workspace, how, wanted, "k")
    _bulk(workspace, "retry", runs[1:], "other")


def test_two_calls_at_once_with_one_key_try_each_run_again_once(
    workspace: Workspace, agent: Agent, world: World
) -> None:
    """P5: the second is told to come back, or gets the first one's runs."""
    runs = _failed(workspace, agent, 2)
    with ThreadPoolExecutor(1) as pool:
        with workspace.locked("log"):
            first = pool.submit(_bulk, workspace, "retry", runs, "k")
            world.until_blocked()
            with refused(409, "idempotency_in_progress"):
                _bulk(workspace, "retry", runs, "k")
        made = [result.run.id for result in first.result()]
    assert [r.run.id for r in _bulk(workspace, "retry", runs, "k")] == made
    assert len(workspace.events(event_type="task.run_operator_retry")) == 2


def test_of_two_calls_at_once_a_repeat_tells_what_either_did(
    workspace: Workspace, agent: Agent, world: World
) -> None:
    """P5: what the one was refused, for the run was not over yet, the other did."""
    [failed] = _failed(workspace, agent, 1)
    task = workspace.task()
    active = agent.claim()
    runs = [active.run_id, failed]
    with ThreadPoolExecutor(1) as pool:
        with workspace.holding(workspace.run(failed).task_id):
            first = pool.submit(_bulk, workspace, "retry", runs, "k")
            world.until_blocked()
            active.fail(retryable=False)
            with refused(409, "idempotency_in_progress"):
                _bulk(workspace, "retry", runs, "k")
        assert [result.ok for result in first.result()] == [False, True]
    made = workspace.operator.get(f"/api/tasks/{task.id}/runs").runs[0]
    with workspace.unchanged():
        again = _bulk(workspace, "retry", runs, "k")
    assert [result.run.id for result in again] == [made.id, first.result()[1].run.id]


@pytest.mark.parametrize("how", ["release", "fail", "retry", "recover"])
def test_a_call_names_at_most_fifty_runs(workspace: Workspace, how: str) -> None:
    with workspace.unchanged():
        with refused(422, "bulk_too_large", limit=50, count=51):
            _bulk(workspace, how, [f"run_{n}" for n in range(51)], reason="x")
        with refused(422, "validation_failed"):
            _bulk(workspace, how, [], reason="x")
        told = _bulk(workspace, how, [f"run_{n}" for n in range(50)], reason="x")
    assert {result.error.diagnostic.code for result in told} == {"run_not_found"}
