"""What happens to an approval that nobody gave in time."""

from typing import Any

import pytest

from tests.factories import Workspace, refused
from tests.world import World

EXPIRE = "select rejected from expire_approvals(%s, %s)"


def _gated(workspace: Workspace, **fields: Any) -> str:
    task_id: str = workspace.task(approval_policy="manual", **fields).id
    return task_id


def test_a_timeout_rejects_where_that_is_wished(workspace: Workspace, world: World) -> None:
    wish = {"approval_timeout_seconds": 60, "on_approval_timeout": "reject"}
    task_id, draft = _gated(workspace, **wish), _gated(workspace, draft=True, **wish)
    world.advance(59)
    world.expire_approvals()
    assert workspace.get(task_id).approval_state == "pending"
    world.advance(2)
    world.expire_approvals()
    task = workspace.get(task_id)
    assert (task.status, task.approval_state, task.approval_expired) == (
        "blocked",
        "rejected",
        True,
    )
    [event] = workspace.events(event_type="task.rejected")
    assert (event.actor.kind, event.actor.ref, event.payload["expired"]) == (
        "daemon", "approvals", True,
    )  # fmt: skip
    assert workspace.get(draft).approval_state == "pending"
    workspace.operator.post(f"/api/tasks/{draft}/publish", subtree=True)
    world.expire_approvals()
    assert workspace.get(draft).approval_state == "rejected"


def test_waiting_people_are_never_taken_for_a_no(workspace: Workspace, world: World) -> None:
    """Each timeout that is over is reminded of once."""
    task_id = _gated(workspace, approval_timeout_seconds=60)
    patient = _gated(workspace, on_approval_timeout="reject")
    for seconds, reminders in ((59, 0), (2, 1), (1, 1), (300, 2), (58, 3), (1, 3)):
        world.advance(seconds)
        world.expire_approvals()
        told = workspace.events(event_type="task.approval_overdue")
        assert [e.task_id for e in told] == [task_id] * reminders
    requested = workspace.get(task_id).approval_requested_at
    assert told[0].payload | {"task_status": None} == {
        "approval_requested_at": requested, "approval_timeout_seconds": 60, "task_status": None,
    }  # fmt: skip
    ids = {"a": task_id, "b": patient}
    assert {workspace.get(x).approval_state for x in ids.values()} == {"pending"}


def test_a_changed_timeout_counts_from_the_request(workspace: Workspace, world: World) -> None:
    task_id = _gated(workspace, on_approval_timeout="reject")
    world.advance(100)
    path = f"/api/tasks/{task_id}"
    workspace.operator.patch(path, approval_timeout_seconds=120)
    world.expire_approvals()
    assert workspace.get(task_id).approval_state == "pending"
    world.advance(21)
    workspace.operator.patch(path, approval_timeout_seconds=None)
    world.expire_approvals()
    assert workspace.get(task_id).approval_state == "pending"
    workspace.operator.patch(path, approval_timeout_seconds=90)
    world.expire_approvals()
    assert workspace.get(task_id).approval_state == "rejected"


def test_what_is_decided_or_canceled_is_left_alone_by_the_loop(
    workspace: Workspace, world: World
) -> None:
    wish = {"approval_timeout_seconds": 60, "on_approval_timeout": "reject"}
    done, gone = _gated(workspace, **wish), _gated(workspace, **wish)
    workspace.operator.post(f"/api/tasks/{done}/approve")
    workspace.cancel(gone)
    world.advance(61)
    with workspace.unchanged("task_body"):
        world.expire_approvals()
    assert (workspace.get(done).approval_state, workspace.get(gone).approval_state) == (
        "approved", "pending",
    )  # fmt: skip


def test_two_servers_reject_a_late_task_once(workspace: Workspace, world: World) -> None:
    task_id = _gated(workspace, approval_timeout_seconds=60, on_approval_timeout="reject")
    world.advance(61)
    assert workspace.at_two_servers(EXPIRE, [task_id]) == (1, 0)
    assert workspace.told(event_type="task.rejected") == ["task.rejected"]


@pytest.mark.parametrize("seconds", [59, 7_776_001])
def test_a_timeout_has_its_limits(workspace: Workspace, seconds: int) -> None:
    with workspace.unchanged(), refused(422, "validation_failed"):
        _gated(workspace, approval_timeout_seconds=seconds)
