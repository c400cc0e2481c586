"""P2: calls made in the name of a lease (X-Run-ID, X-Claim-Token) are refused with it."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.client import Client
from tests.factories import Agent, Held, Workspace, refused

Make = Callable[[Client, Workspace, str], Any]

CALLS: dict[str, Make] = {
    "create": lambda by, w, parent: by.post("/api/tasks", title="t", parent_task_id=parent),
    "children": lambda by, w, parent: by.post(f"/api/tasks/{parent}/children", title="t"),
    "bulk": lambda by, w, parent: by.post("/api/tasks/bulk", tasks=[{"ref": "a", "title": "t"}]),
    "dependency": lambda by, w, parent: by.post(
        f"/api/tasks/{parent}/dependencies", depends_on_task_id="other"
    ),
}
ENDS: dict[str, tuple[Callable[[Workspace, Held], Any], int, str]] = {
    "complete": (lambda w, h: h.complete(), 409, "task_run_already_terminal"),
    "fail": (lambda w, h: h.fail(retryable=False), 409, "task_run_already_terminal"),
    "release": (lambda w, h: h.release(delay_seconds=60), 409, "lease_released"),
    "cancel": (
        lambda w, h: w.operator.post(f"/api/task-runs/{h.run_id}/cancel"), 409, "run_canceled",
    ),
    "expiry": (lambda w, h: _lapse(w), 409, "lease_expired"),
}  # fmt: skip


def _lapse(workspace: Workspace) -> None:
    workspace.world.advance(301)
    assert workspace.sweep() == 1


def _under(held: Held, **headers: str) -> Client:
    """The holder, calling under its lease."""
    return held.agent.also(**{"X_Run_ID": held.run_id, "X_Claim_Token": held.token, **headers})


@pytest.fixture
def held(workspace: Workspace) -> Held:
    """A lease on a task, beside a task named `other`."""
    workspace.task(id="other", auto_enqueue_on_ready=False)
    workspace.task()
    return workspace.agent().claim()


@pytest.mark.parametrize("call", CALLS)
def test_what_is_made_under_a_lease_says_so(workspace: Workspace, held: Held, call: str) -> None:
    CALLS[call](_under(held), workspace, held.task_id)
    made = [t for t in workspace.operator.get("/api/tasks").tasks if t.title == "t"]
    assert [t.created_by_run_id for t in made] == ([] if call == "dependency" else [held.run_id])
    assert held.heartbeat().lease.status == "running"


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("call", CALLS)
def test_nothing_is_made_under_a_lease_that_is_over(
    workspace: Workspace, held: Held, call: str, end: str
) -> None:
    """P2: no children in the name of a lease that its agent has lost."""
    act, status, code = ENDS[end]
    act(workspace, held)
    with workspace.unchanged(), refused(status, code):
        CALLS[call](_under(held), workspace, held.task_id)


def test_a_lease_taken_over_by_another_is_no_guard(workspace: Workspace, held: Held) -> None:
    held.release()
    workspace.agent().claim()
    with workspace.unchanged(), refused(409, "stale_fence", fence=1, current_fence=2):
        _under(held).post("/api/tasks", title="t")


def test_a_late_guard_is_good_until_the_sweep(workspace: Workspace, held: Held) -> None:
    workspace.world.advance(301)
    assert _under(held).post("/api/tasks", title="t").task.created_by_run_id == held.run_id


def test_a_guard_is_proof_of_ones_own_lease(workspace: Workspace, held: Held) -> None:
    with workspace.unchanged():
        with refused(403, "foreign_run", run_id=held.run_id):
            _under(held, X_Session_ID="another").post("/api/tasks", title="t")
        with refused(409, "invalid_claim_token", run_id=held.run_id):
            _under(held, X_Claim_Token="wlt_1_x").post("/api/tasks", title="t")
        with refused(404, "run_not_found", id="run_0"):
            _under(held, X_Run_ID="run_0").post("/api/tasks", title="t")


def test_a_guard_needs_the_session_whose_lease_it_is(workspace: Workspace, held: Held) -> None:
    headers = {"X_Run_ID": held.run_id, "X_Claim_Token": held.token, "X_Agent_Name": "worker"}
    with workspace.unchanged(), refused(401, "identity_required", header="X-Session-ID"):
        workspace.client("agent", **headers).post("/api/tasks", title="t")


@pytest.mark.parametrize("missing", ["X-Run-ID", "X-Claim-Token"])
def test_half_a_guard_is_none(workspace: Workspace, held: Held, missing: str) -> None:
    half = {"X-Run-ID": held.run_id, "X-Claim-Token": held.token}
    del half[missing]
    with workspace.unchanged(), refused(400, "invalid_query", parameter=missing):
        held.agent.also(**half).post("/api/tasks", title="t")


def test_a_repeat_under_a_key_is_answered_though_the_lease_is_over(
    workspace: Workspace, held: Held
) -> None:
    """P5: a lost reply of a creation, asked for again after the run was completed."""
    made = _under(held).post("/api/tasks", "k1", title="t").task
    held.complete()
    with workspace.unchanged():
        assert _under(held).post("/api/tasks", "k1", title="t").task == made


def test_the_holder_may_let_its_task_wait(workspace: Workspace, agent: Agent) -> None:
    """The session that holds a task's lease may add edges to it, and nobody else's agent."""
    task, other = workspace.task(), workspace.task(auto_enqueue_on_ready=False)
    held = agent.claim()
    path = f"/api/tasks/{task.id}/dependencies"
    with refused(403, "forbidden", role="agent"):
        workspace.agent().post(path, depends_on_task_id=other.id)
    agent.post(path, depends_on_task_id=other.id)
    with refused(403, "forbidden", role="agent"):
        agent.delete(f"{path}/{other.id}")
    held.release()
    with refused(403, "forbidden", role="agent"):
        agent.post(path, depends_on_task_id=task.id)
