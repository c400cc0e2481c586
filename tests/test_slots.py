"""Concurrency keys: of the tasks with one key only so many are worked on at once."""

from collections.abc import Callable
from typing import Any

import pytest

from server.store.slots import forget_slots
from tests.factories import Agent, Held, Workspace, refused
from tests.world import World

FUTURE = "2999-01-01T00:00:00.000000Z"
SLOTS = "select concurrency_key from slot where workspace_id = %s"


def _keyed(workspace: Workspace, count: int, limit: int = 1, /, **fields: Any) -> list[str]:
    """Tasks that share slots; their ids."""
    fields = {"concurrency_key": "deploy", "concurrency_limit": limit, **fields}
    return [workspace.task(**fields).id for _ in range(count)]


def _run(workspace: Workspace, task_id: str) -> str:
    run_id: str = workspace.operator.get(f"/api/tasks/{task_id}/runs").runs[0].id
    return run_id


def _patch(workspace: Workspace, task_id: str, **fields: Any) -> Any:
    return workspace.operator.patch(f"/api/tasks/{task_id}", **fields).task


def test_no_more_tasks_of_a_key_are_claimed_than_the_limit_says(
    workspace: Workspace, agent: Agent
) -> None:
    """P6: a slot is a gate."""
    _keyed(workspace, 5, 2)
    assert len(agent.claims(max_runs=5)) == 2
    assert agent.claims(max_runs=5) == []


def test_a_key_alone_is_a_limit_of_one(workspace: Workspace) -> None:
    task = workspace.task(concurrency_key="deploy")
    assert (task.concurrency_key, task.concurrency_limit) == ("deploy", 1)
    payload = workspace.events(event_type="task.created")[0].payload
    assert (payload["concurrency_key"], payload["concurrency_limit"]) == ("deploy", 1)
    ids = workspace.graph({"a": [], "b": []}, concurrency_key="deploy", concurrency_limit=3)
    assert {workspace.get(task_id).concurrency_limit for task_id in ids.values()} == {3}


def test_a_limit_without_a_key_is_refused(workspace: Workspace) -> None:
    task = workspace.task()
    with workspace.unchanged():
        with refused(422, "validation_failed"):
            workspace.task(concurrency_limit=2)
        with refused(422, "validation_failed") as told:
            workspace.graph({"a": []}, concurrency_limit=2)
        assert told[0].evidence["errors"][0]["field"] == "tasks.0.concurrency_limit"
        with refused(422, "validation_failed"):
            _patch(workspace, task.id, concurrency_limit=2)
        with refused(422, "validation_failed"):
            _patch(workspace, task.id, concurrency_key="deploy", concurrency_limit=10_001)


def test_a_limit_can_be_patched_with_its_key_and_goes_with_it(workspace: Workspace) -> None:
    task_id = workspace.task().id
    assert _patch(workspace, task_id, concurrency_key="deploy").concurrency_limit == 1
    task = _patch(workspace, task_id, concurrency_key="build", concurrency_limit=4)
    assert (task.concurrency_key, task.concurrency_limit) == ("build", 4)
    assert _patch(workspace, task_id, concurrency_limit=None).concurrency_limit == 1
    task = _patch(workspace, task_id, concurrency_key=None)
    assert (task.concurrency_key, task.concurrency_limit) == (None, None)
    assert _patch(workspace, task_id, concurrency_key=None).version == task.version


def _lapse(held: Held, workspace: Workspace) -> None:
    workspace.world.advance(61)
    workspace.sweep()


ENDS: dict[str, Callable[[Held, Workspace], Any]] = {
    "complete": lambda held, _: held.complete(),
    "fail": lambda held, _: held.fail(retryable=False),
    "fail and retry": lambda held, _: held.fail(),
    "release": lambda held, _: held.release(delay_seconds=3600),
    "expiry": _lapse,
    "cancel run": lambda held, ws: ws.operator.post(f"/api/task-runs/{held.run_id}/cancel"),
    "cancel task": lambda held, ws: ws.cancel(held.task_id),
    "force release": lambda held, ws: ws.operator.post(
        f"/api/runs/{held.run_id}/release", delay_seconds=3600
    ),
    "force fail": lambda held, ws: ws.operator.post(f"/api/runs/{held.run_id}/fail", reason="x"),
    "patch": lambda held, ws: _patch(ws, held.task_id, concurrency_key="other"),
}


@pytest.mark.parametrize("how", ENDS)
def test_whatever_ends_a_lease_frees_its_slot(workspace: Workspace, agent: Agent, how: str) -> None:
    """P7: for the next that waits, in the same transaction."""
    first, second, _ = _keyed(workspace, 3, retry={"strategy": "fixed", "base_seconds": 3600})
    held = agent.claim(lease_seconds=60)
    assert (held.task_id, agent.claims()) == (first, [])
    ENDS[how](held, workspace)
    assert [h.task_id for h in agent.claims(max_runs=3)] == [second]


def test_a_released_run_takes_its_turn_among_those_that_wait(
    workspace: Workspace, agent: Agent
) -> None:
    first, second, third = _keyed(workspace, 3)
    agent.claim().release()
    got = []
    while held := agent.claims():
        got.append(held[0].task_id)
        held[0].complete()
    assert got == [second, third, first]


def test_the_limit_of_the_claimed_task_counts(workspace: Workspace, agent: Agent) -> None:
    """Those with a lower limit are not in the way of those with a higher one."""
    strict = _keyed(workspace, 2, 1)
    lenient = _keyed(workspace, 3, 3)
    assert [h.task_id for h in agent.claims(max_runs=5)] == [strict[0], *lenient[:2]]
    assert agent.claims() == []


def test_keys_share_no_slots_with_each_other_nor_with_other_workspaces(
    world: World, workspace: Workspace, agent: Agent
) -> None:
    other = world.workspace()
    for home in (workspace, other):
        _keyed(home, 2)
        _keyed(home, 2, concurrency_key="build")
    assert len(agent.claims(max_runs=5)) == 2
    assert len(other.agent().claims(max_runs=5)) == 2


def test_tasks_without_a_key_are_claimed_past_those_whose_slots_are_full(
    workspace: Workspace, agent: Agent
) -> None:
    """In one claim too, and from lanes of their own."""
    keyed = [_keyed(workspace, 2, network_channel=name)[0] for name in ("a", "b", "c", "d")]
    free = [workspace.task().id for _ in range(3)]
    assert [h.task_id for h in agent.claims(max_runs=4)] == [keyed[0], *free]
    assert agent.claims() == []


def test_a_claimer_finds_what_it_may_take_among_those_that_wait(
    workspace: Workspace, agent: Agent
) -> None:
    """The first in the queue are of a priority, or a channel, that it does not take."""
    _keyed(workspace, 3)
    high = _keyed(workspace, 1, priority="high")[0]
    blue = _keyed(workspace, 1, network_channel="blue")[0]
    held = agent.claim(priority_min="high")
    assert held.task_id == high
    held.complete()
    held = agent.claim(channel="blue")
    assert held.task_id == blue
    assert agent.claims() == []


def test_a_run_asked_for_by_its_id_needs_a_slot_and_no_turn(
    workspace: Workspace, agent: Agent
) -> None:
    _, second, third = (_run(workspace, task_id) for task_id in _keyed(workspace, 3, 2))
    assert agent.claim(channel=f"coord-{third}").run_id == third
    assert agent.claims(channel=f"coord-{third}") == []
    assert agent.claim().run_id != second
    assert agent.claims(channel=f"coord-{second}") == []


def test_a_claim_by_hand_needs_a_slot_and_no_turn(workspace: Workspace) -> None:
    """P6: people are held by it too."""
    first, _, third = (_run(workspace, task_id) for task_id in _keyed(workspace, 3))
    claim = workspace.operator.post
    assert claim(f"/api/task-runs/{third}/claim").run.status == "claimed"
    with workspace.unchanged(), refused(409, "run_not_claimable", reasons=["concurrency_limit"]):
        claim(f"/api/task-runs/{first}/claim")
    claim(f"/api/task-runs/{third}/complete")
    assert claim(f"/api/task-runs/{first}/claim").run.status == "claimed"


def test_a_raised_limit_is_used_at_once_and_a_lowered_one_ends_no_lease(
    workspace: Workspace, agent: Agent
) -> None:
    """P7, P6: in the transaction of the patch."""
    first, second, third = _keyed(workspace, 3)
    held = agent.claim()
    _patch(workspace, second, concurrency_limit=2)
    assert agent.claim().task_id == second
    _patch(workspace, first, concurrency_limit=1)
    assert agent.claims() == []
    held.heartbeat()
    held.complete()
    assert agent.claims() == []
    _patch(workspace, third, concurrency_limit=2)
    assert agent.claim().task_id == third


def test_a_task_takes_its_slot_along_to_another_key(workspace: Workspace, agent: Agent) -> None:
    """While it is worked on, and while it waits."""
    first, second, third = _keyed(workspace, 3)
    (other,) = _keyed(workspace, 1, concurrency_key="build")
    held = agent.claim(channel=f"coord-{_run(workspace, first)}")
    _patch(workspace, first, concurrency_key="build")
    assert [h.task_id for h in agent.claims(max_runs=5)] == [second]
    held.complete()
    assert agent.claim().task_id == other
    _patch(workspace, third, concurrency_key=None)
    assert agent.claim().task_id == third


def test_what_may_not_be_claimed_anyway_holds_up_nobody(workspace: Workspace, agent: Agent) -> None:
    """P7: paused, waiting, not due, not approved: the first that is free gets the slot."""
    paused, canceled, first, second = _keyed(workspace, 4)
    workspace.operator.post(f"/api/tasks/{paused}/pause", reason="x")
    workspace.cancel(canceled)
    _keyed(workspace, 1, approval_policy="manual", priority="urgent")
    late = _keyed(workspace, 1, available_at=FUTURE, priority="urgent")[0]
    held = agent.claim()
    assert held.task_id == first
    _patch(workspace, late, available_at=None)
    workspace.operator.post(f"/api/tasks/{paused}/resume")
    held.complete()
    got = []
    while claims := agent.claims():
        got.append(claims[0].task_id)
        claims[0].complete()
    assert got == [late, paused, second]


def test_a_run_whose_time_comes_contends_from_then_on(
    world: World, workspace: Workspace, agent: Agent
) -> None:
    """P7: whoever promotes it."""
    _keyed(workspace, 1)
    agent.claim().release(delay_seconds=60)
    assert agent.claims() == []
    world.advance(61)
    agent.claim().release(delay_seconds=60)
    world.advance(61)
    assert world.promote() >= 1
    assert len(agent.claims(max_runs=2)) == 1


def test_explain_tells_of_a_slot_that_is_not_free(workspace: Workspace, agent: Agent) -> None:
    _, second = _keyed(workspace, 2)
    path = f"/api/tasks/{second}/explain"
    assert workspace.operator.get(path).explain.claimable
    agent.claim()
    [reason] = workspace.operator.get(path).explain.reasons
    assert reason.code == "concurrency_limit"
    assert reason.evidence == {"concurrency_key": "deploy", "limit": 1, "active": 1}


def test_slots_that_nobody_needs_are_forgotten(
    world: World, workspace: Workspace, agent: Agent
) -> None:
    """And come again with the next task of their key."""
    _keyed(workspace, 1)
    world.run(lambda db: forget_slots(db, 1000))
    held = agent.claim()
    world.run(lambda db: forget_slots(db, 1000))
    assert world.db.execute(SLOTS, [workspace.id]).fetchall() == [("deploy",)]
    held.complete()
    world.run(lambda db: forget_slots(db, 1000))
    assert world.db.execute(SLOTS, [workspace.id]).fetchall() == []
    _keyed(workspace, 2)
    assert len(agent.claims(max_runs=2)) == 1


def test_a_task_freed_by_two_that_end_together_contends_once(
    workspace: Workspace, agent: Agent
) -> None:
    first = workspace.task(auto_enqueue_on_ready=False)
    shy = workspace.task(depends_on=[first.id], on_dependency_failure="cancel")
    waits = {"depends_on": [first.id, shy.id], "on_dependency_failure": "run"}
    last = workspace.task(concurrency_key="one", **waits)
    workspace.cancel(first.id)
    assert workspace.get(shy.id).status == "canceled"
    assert workspace.faults() == {}
    assert agent.claim().task_id == last.id
