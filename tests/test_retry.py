"""What follows a failure: a further run while attempts are left, after its back-off."""

from typing import Any

import pytest

from tests.factories import Agent, Held, Workspace, refused, seconds
from tests.world import World

LADDERS: dict[str, tuple[dict[str, Any], list[float]]] = {
    "none": ({"strategy": "none"}, [0, 0, 0]),
    "fixed": ({"strategy": "fixed", "base_seconds": 30}, [30, 30, 30]),
    "linear": ({"strategy": "linear", "base_seconds": 20}, [20, 40, 60]),
    "capped": ({"strategy": "linear", "base_seconds": 20, "max_seconds": 50}, [20, 40, 50]),
}


def _waits(workspace: Workspace, held: Held) -> float:
    told = held.fail()
    assert told.next_run is not None
    return seconds(told.next_run.available_at, workspace.run(held.run_id).ended_at)


@pytest.mark.parametrize("name", LADDERS)
def test_the_back_off_follows_its_strategy(world: World, workspace: Workspace, name: str) -> None:
    retry, ladder = LADDERS[name]
    workspace.task(retry=retry, max_attempts=4)
    agent = workspace.agent()
    waits = []
    for _ in ladder:
        waits.append(_waits(workspace, agent.claim()))
        world.advance(3601)
    assert waits == ladder


def test_the_default_back_off_doubles_and_scatters(world: World, workspace: Workspace) -> None:
    workspace.task(retry={"base_seconds": 100, "max_seconds": 350}, max_attempts=5)
    agent = workspace.agent()
    for highest in (100, 200, 350, 350):
        assert highest / 2 <= _waits(workspace, agent.claim()) <= highest
        world.advance(3601)


def test_the_back_off_of_expiries_counts_expiries(world: World, workspace: Workspace) -> None:
    workspace.task(retry={"strategy": "linear", "base_seconds": 20}, max_lease_expiries=5)
    agent = workspace.agent()
    for wait in (20, 40, 60):
        held = agent.claim(lease_seconds=60)
        world.advance(61)
        workspace.sweep()
        run = workspace.run(held.run_id)
        assert seconds(run.available_at, run.queued_at) == wait
        world.advance(61)


def test_a_failure_is_tried_again_while_attempts_are_left(
    workspace: Workspace, agent: Agent
) -> None:
    task = workspace.task(max_attempts=2, retry={"strategy": "none"})
    first = agent.claim()
    told = first.fail("no luck", failure_kind="network", metadata={"code": 7})
    assert (told.lease.status, told.next_run.previous_run_id) == ("failed", first.run_id)
    assert workspace.get(task.id).status == "ready"
    second = agent.claim()
    assert (second.claim.run.attempt, second.claim.previous_error) == (2, "no luck")
    assert second.fail("no luck").next_run is None
    after = workspace.get(task.id)
    assert (after.status, after.attempts_used) == ("failed", 2)
    [failed, _] = workspace.events(event_type="task.run_failed")
    assert (failed.payload["failure_kind"], failed.payload["metadata"]) == ("network", {"code": 7})
    assert failed.payload["next_run_id"] == second.run_id


def test_a_failure_for_good_is_not_tried_again(workspace: Workspace, agent: Agent) -> None:
    task = workspace.task()
    held = agent.claim()
    assert held.fail(retryable=False).next_run is None
    run = workspace.run(held.run_id)
    assert (run.failure_kind, run.retryable, run.error) == ("error", False, "it broke")
    assert workspace.get(task.id).status == "failed"


def test_the_holder_may_say_when_to_try_again(workspace: Workspace, agent: Agent) -> None:
    workspace.task(retry={"strategy": "fixed", "base_seconds": 10})
    held = agent.claim()
    told = held.fail(retry_after_seconds=777)
    assert seconds(told.next_run.available_at, told.next_run.queued_at) == 777


def test_no_attempt_is_made_before_the_tasks_own_time(workspace: Workspace, agent: Agent) -> None:
    task = workspace.task(retry={"strategy": "none"})
    held = agent.claim()
    workspace.operator.patch(f"/api/tasks/{task.id}", available_at="2099-01-01T00:00:00Z")
    told = held.fail()
    assert told.next_run.available_at == "2099-01-01T00:00:00.000000Z"


def test_a_release_burns_no_attempt(workspace: Workspace, agent: Agent) -> None:
    task = workspace.task(max_attempts=1)
    for _ in range(3):
        agent.claim().release(reason="busy", note="try the other door")
    held = agent.claim()
    assert (held.claim.run.attempt, held.claim.note) == (1, "try the other door")
    assert (held.claim.run.claim_count, held.fence) == (4, 4)
    held.complete()
    assert workspace.get(task.id).attempts_used == 1


def test_a_released_run_waits_as_long_as_asked(
    world: World, workspace: Workspace, agent: Agent
) -> None:
    workspace.task()
    held = agent.claim()
    told = held.release(delay_seconds=600, checkpoint={"page": 3})
    assert (told.lease.status, told.lease.lease_until) == ("queued", None)
    run = workspace.run(held.run_id)
    assert seconds(run.available_at, run.queued_at) == 600
    world.advance(601)
    assert agent.claim().claim.checkpoint == {"page": 3}


def test_an_operator_tries_a_failed_run_again(workspace: Workspace, agent: Agent) -> None:
    task = workspace.task(max_attempts=1)
    held = agent.claim()
    held.fail()
    told = workspace.operator.post(
        f"/api/runs/{held.run_id}/retry", reason="fixed it", metadata={"a": 1}, delay_seconds=0
    )
    assert (told.previous_run.id, told.previous_run.status) == (held.run_id, "failed")
    assert (told.run.previous_run_id, told.run.metadata) == (held.run_id, {"a": 1})
    assert workspace.get(task.id).attempts_used == 2
    assert workspace.told(run_id=told.run.id) == ["task.run_operator_retry"]
    assert agent.claim().run_id == told.run.id


def test_what_may_not_be_retried(workspace: Workspace, agent: Agent) -> None:
    """In the order of the contract: a retry of it, a newer run, an open run."""
    retry = workspace.operator.post
    workspace.task(max_attempts=2, retry={"strategy": "none"})
    first = agent.claim()
    with refused(409, "task_run_still_active", run_status="claimed"):
        retry(f"/api/runs/{first.run_id}/retry")
    first.fail()
    second = agent.claim()
    with refused(409, "run_already_retried", newest_run_id=second.run_id):
        retry(f"/api/runs/{first.run_id}/retry")
    second.complete()
    with refused(409, "task_run_already_terminal", run_status="completed"):
        retry(f"/api/runs/{second.run_id}/retry")
    with refused(409, "task_run_not_recoverable", run_status="completed"):
        retry(f"/api/runs/{second.run_id}/recover")
    with refused(404, "run_not_found", id="run_0"):
        retry("/api/runs/run_0/retry")


def test_a_run_with_a_newer_one_is_superseded(workspace: Workspace, agent: Agent) -> None:
    task = workspace.task()
    held = agent.claim()
    held.fail(retryable=False)
    newer = workspace.operator.post(f"/api/tasks/{task.id}/start").run
    with refused(409, "run_superseded", newest_run_id=newer.id):
        workspace.operator.post(f"/api/runs/{held.run_id}/retry")


def test_a_canceled_task_is_never_tried_again(workspace: Workspace, agent: Agent) -> None:
    task = workspace.task()
    held = agent.claim()
    held.fail(retryable=False)
    newer = workspace.operator.post(f"/api/tasks/{task.id}/start").run
    workspace.operator.post(f"/api/tasks/{task.id}/cancel")
    with refused(409, "task_run_already_terminal", run_status="canceled"):
        workspace.operator.post(f"/api/runs/{newer.id}/retry")
    with refused(409, "task_canceled"):
        workspace.operator.post(f"/api/tasks/{task.id}/start")


def test_a_chain_of_retries_ends(workspace: Workspace, agent: Agent) -> None:
    workspace.task(max_attempts=1)
    held = agent.claim()
    for _ in range(99):
        held.fail(retryable=False)
        workspace.operator.post(f"/api/runs/{held.run_id}/retry")
        held = agent.claim()
    held.fail(retryable=False)
    with refused(422, "retry_chain_too_deep", run_id=held.run_id, depth=100):
        workspace.operator.post(f"/api/runs/{held.run_id}/retry")
