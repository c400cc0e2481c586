"""P2: a lease is proven. P3: fences only rise. P4: ended is ended."""

from secrets import token_hex
from typing import Any

import pytest

from tests.client import RefusedError
from tests.factories import Agent, Held, Workspace, refused


def _held(w: Workspace, **task: Any) -> Held:
    w.task(**task)
    return w.agent().claim(lease_seconds=60)


def test_faults_are_told_in_the_order_of_the_contract(workspace: Workspace) -> None:
    held = _held(workspace)
    stranger = workspace.client("agent", X_Agent_Name="worker")
    held.run_id = "run_0"
    with refused(422, "validation_failed"):
        held.by(stranger, "heartbeat", lease_seconds=3)
    with refused(401, "identity_required", header="X-Session-ID"):
        held.by(stranger, "heartbeat")
    with refused(403, "identity_mismatch", session_id=held.agent.session):
        held.by(workspace.agent("other", held.agent.session), "heartbeat")
    with refused(404, "run_not_found", id="run_0"):
        held.by(workspace.agent(), "heartbeat", claim_token="wlt_1_x")


def test_the_token_may_be_left_out_while_there_is_only_one_lease(workspace: Workspace) -> None:
    held = _held(workspace)
    held.heartbeat(claim_token=None)
    held.heartbeat(claim_token=None, fence=held.fence)
    held.complete(claim_token=None, result=1)


def test_the_token_may_come_as_a_header(workspace: Workspace) -> None:
    held = _held(workspace)
    shown = held.agent.also(X_Claim_Token=held.token)
    held.by(shown, "heartbeat", claim_token=None)
    with refused(422, "validation_failed"):
        held.by(shown, "heartbeat", claim_token="another")


def test_a_bad_item_never_touches_the_others(workspace: Workspace, agent: Agent) -> None:
    """P2: each item of a bulk call stands for itself."""
    for _ in range(3):
        workspace.task()
    good, lost, other = agent.claims(max_runs=3)
    lost.release()
    items = [{"run_id": h.run_id, "claim_token": h.token} for h in (good, lost, other)]
    items.append({"run_id": "run_0"})
    told = agent.post("/api/agent/tasks/bulk/heartbeat", items=items)
    assert [r.ok for r in told.results] == [True, False, True, False]
    assert [r.run_id for r in told.results] == [item["run_id"] for item in items]
    codes = [r.error.diagnostic.code for r in told.results if r.error]
    assert codes == ["lease_released", "run_not_found"]
    done = agent.post("/api/agent/tasks/bulk/complete", items=items)
    assert [r.ok for r in done.results] == [True, False, True, False]
    with workspace.unchanged():
        again = agent.post("/api/agent/tasks/bulk/complete", items=items)
    assert [r.replayed for r in again.results] == [True, False, True, False]


def test_bulk_calls_have_limits(agent: Agent) -> None:
    for path in ("heartbeat", "complete"):
        with refused(422, "duplicate_item", run_id="run_1"):
            agent.post(f"/api/agent/tasks/bulk/{path}", items=[{"run_id": "run_1"}] * 2)
        items = [{"run_id": f"run_{n}"} for n in range(101)]
        with refused(422, "bulk_too_large", limit=100, count=101):
            agent.post(f"/api/agent/tasks/bulk/{path}", items=items)


def test_the_fence_of_a_task_only_rises(workspace: Workspace, agent: Agent) -> None:
    """P3: release, expiry, failure, retry, recovery and cancellation never reset it."""
    task = workspace.task(max_attempts=10, retry={"strategy": "none"}, max_lease_expiries=1)
    fences = []
    for end in ("release", "expire", "fail", "cancel", "complete"):
        fences.append((held := agent.claim(lease_seconds=60)).fence)
        if end == "expire":
            workspace.world.advance(61)
            workspace.sweep()
            workspace.operator.post(f"/api/runs/{held.run_id}/recover", reason="seen")
        elif end == "cancel":
            workspace.operator.post(f"/api/task-runs/{held.run_id}/cancel")
            workspace.operator.post(f"/api/tasks/{task.id}/start")
        else:
            held.call(end, **({"error": "no"} if end == "fail" else {}))
        assert workspace.get(task.id).fence == fences[-1]
    assert fences == [1, 2, 3, 4, 5]


def test_an_ended_run_stays_as_it_ended(workspace: Workspace, agent: Agent) -> None:
    """P4: result, error, usage and times are never touched again, whatever happens around it."""
    task = workspace.task(max_attempts=3, retry={"strategy": "none"})
    first = agent.claim()
    first.fail("no luck", usage={"input_tokens": 5})
    second = agent.claim()
    second.complete(result={"n": 1}, usage={"output_tokens": 7})
    ended = [workspace.run(first.run_id), workspace.run(second.run_id)]
    workspace.operator.post(f"/api/tasks/{task.id}/start")
    agent.claim().heartbeat(usage={"input_tokens": 1})
    workspace.operator.patch(f"/api/tasks/{task.id}", title="renamed", deadline_seconds=5)
    workspace.operator.post(f"/api/tasks/{task.id}/cancel")
    assert [workspace.run(first.run_id), workspace.run(second.run_id)] == ended


def test_a_session_that_comes_to_be_anothers_is_no_proof(workspace: Workspace) -> None:
    """P2: nor is it while a process still takes the caller for who it was a moment ago."""
    session = token_hex(8)
    eve, ann = (workspace.agent(name, session) for name in ("eve", "ann"))
    assert eve.leases() == []
    workspace.task()
    held = ann.claim()
    for end, body in {"heartbeat": {}, "complete": {}, "fail": {"error": "no"}}.items():
        with workspace.unchanged(), pytest.raises(RefusedError) as caught:
            held.by(eve, end, claim_token=None, **body)
        assert caught.value.code in ("foreign_run", "identity_mismatch")
    held.complete(claim_token=None)
