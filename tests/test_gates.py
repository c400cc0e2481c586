"""One list of gates: explain, inspect and the refusals of claims and starts tell the same."""

from collections.abc import Callable

import pytest

from tests.factories import Workspace, refused

FUTURE = "2999-01-01T00:00:00.000000Z"


def _asked(workspace: Workspace) -> str:
    task = workspace.task(approval_policy="manual")
    workspace.operator.post(f"/api/tasks/{task.id}/runs")
    return task.id


def _rejected(workspace: Workspace) -> str:
    task_id = _asked(workspace)
    workspace.operator.post(f"/api/tasks/{task_id}/reject")
    return task_id


def _waiting(workspace: Workspace) -> str:
    task = workspace.task()
    workspace.depend(task.id, workspace.task().id)
    return task.id


def _paused(workspace: Workspace) -> str:
    task = workspace.task()
    workspace.operator.post(f"/api/tasks/{task.id}/pause", reason="x")
    return task.id


def _below(workspace: Workspace) -> str:
    task = workspace.task()
    child = workspace.task(parent_task_id=task.id)
    workspace.operator.post(f"/api/tasks/{task.id}/pause", reason="x")
    return child.id


def _later(workspace: Workspace) -> str:
    return workspace.task(available_at=FUTURE).id


CLOSED: dict[str, Callable[[Workspace], str]] = {
    "awaiting_approval": _asked,
    "approval_rejected": _rejected,
    "awaiting_dependencies": _waiting,
    "task_paused": _paused,
    "ancestor_paused": _below,
    "not_yet_available": _later,
}


@pytest.mark.parametrize("code", CLOSED)
def test_a_closed_gate_is_told_alike_wherever_it_is_met(workspace: Workspace, code: str) -> None:
    """P6: by explain, by inspect, and by the refusal of a claim."""
    task_id = CLOSED[code](workspace)
    operator = workspace.operator
    explained = operator.get(f"/api/tasks/{task_id}/explain").explain
    assert [reason.code for reason in explained.reasons] == [code]
    with refused(409, "run_not_claimable", reasons=[code]):
        operator.post(f"/api/task-runs/{explained.run_id}/claim")
    action = operator.get(f"/api/tasks/{task_id}/inspect").inspect.next_action
    awaited = code == "awaiting_approval"
    assert action == ("approval_required" if awaited else "waiting_for_gate")
    claimed = workspace.agent().claims(max_runs=5)
    assert explained.run_id not in [held.run_id for held in claimed]


@pytest.mark.parametrize("code", list(CLOSED)[:3])
def test_what_blocks_a_task_refuses_its_start_by_the_same_name(
    workspace: Workspace, code: str
) -> None:
    task_id = CLOSED[code](workspace)
    run_id = workspace.operator.get(f"/api/tasks/{task_id}/explain").explain.run_id
    workspace.operator.post(f"/api/task-runs/{run_id}/cancel")
    with refused(409, "task_blocked", reasons=[code]):
        workspace.operator.post(f"/api/tasks/{task_id}/start")


def test_every_closed_gate_is_told_in_the_order_of_the_rules(workspace: Workspace) -> None:
    task_id = CLOSED["task_paused"](workspace)
    workspace.depend(task_id, workspace.task().id)
    workspace.operator.patch(f"/api/tasks/{task_id}", approval_policy="manual", available_at=FUTURE)
    told = workspace.operator.get(f"/api/tasks/{task_id}/explain").explain
    closed = ["awaiting_approval", "awaiting_dependencies", "task_paused", "not_yet_available"]
    assert [reason.code for reason in told.reasons] == closed
    with refused(409, "run_not_claimable", reasons=closed):
        workspace.operator.post(f"/api/task-runs/{told.run_id}/claim")
