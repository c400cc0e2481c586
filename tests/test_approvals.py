"""Approval: a human gate before work. A test a row of the contract's table."""

from typing import Any

import pytest

from tests.factories import Agent, Workspace, refused


def _gated(workspace: Workspace, **fields: Any) -> str:
    task_id: str = workspace.task(approval_policy="manual", **fields).id
    return task_id


def _approve(workspace: Workspace, task_id: str, key: str | None = None, **body: Any) -> Any:
    return workspace.operator.post(f"/api/tasks/{task_id}/approve", key, **body)


def _reject(workspace: Workspace, task_id: str, **body: Any) -> Any:
    return workspace.operator.post(f"/api/tasks/{task_id}/reject", **body).task


def test_a_task_made_with_a_manual_policy_waits_for_its_approval(
    workspace: Workspace, agent: Agent
) -> None:
    """P6: it is blocked and not queued."""
    task = workspace.get(_gated(workspace, approval_timeout_seconds=90))
    assert (task.status, task.approval_state) == ("blocked", "pending")
    assert (task.approval_requested_at, task.approval_decided_at) == (task.created_at, None)
    assert agent.claims() == []
    assert workspace.told(task_id=task.id) == ["task.created", "task.approval_requested"]
    assert workspace.events(task_id=task.id)[-1].payload == {
        "approval_requested_at": task.created_at, "approval_timeout_seconds": 90,
        "on_approval_timeout": "wait", "task_status": "blocked",
    }  # fmt: skip


def test_an_approved_task_is_queued(workspace: Workspace, agent: Agent) -> None:
    """P7: in the same transaction, whatever auto_enqueue_on_ready says."""
    task_id = _gated(workspace, auto_enqueue_on_ready=False)
    told = _approve(workspace, task_id, network_channel="blue", metadata={"why": 1})
    assert (told.task.status, told.task.approval_state, told.task.version) == (
        "ready", "approved", 2,
    )  # fmt: skip
    assert told.task.approval_decided_by.kind == "human"
    assert (told.task.approval_reason, told.task.approval_expired) == (None, False)
    assert (told.run.network_channel, told.run.metadata) == ("blue", {"why": 1})
    assert agent.claim().run_id == told.run.id
    approved, queued = workspace.events(task_id=task_id)[2:4]
    assert approved.payload == {
        "previous_approval_state": "pending", "approval_state": "approved", "reason": None,
        "expired": False, "task_status": "ready",
    }  # fmt: skip
    assert (queued.event_type, queued.payload["cause"]) == ("task.run_enqueued", "approve")


def test_approving_while_dependencies_wait_queues_a_run_that_waits(
    workspace: Workspace, agent: Agent
) -> None:
    first = workspace.task("first")
    task_id = _gated(workspace, depends_on=[first.id])
    told = _approve(workspace, task_id)
    assert (told.task.status, told.run.status) == ("blocked", "queued")
    held = agent.claim()
    assert held.task_id == first.id
    assert agent.claims() == []
    held.complete()
    assert agent.claim().run_id == told.run.id


def test_both_gates_must_open(workspace: Workspace, agent: Agent) -> None:
    """P6: a dependency that is done does not open the gate of the approval."""
    first = workspace.task()
    task_id = _gated(workspace, depends_on=[first.id])
    agent.work(first.id)
    assert workspace.get(task_id).status == "blocked"
    assert agent.claims() == []
    reasons = ["awaiting_approval"]
    with workspace.unchanged(), refused(409, "task_blocked", reasons=reasons):
        workspace.operator.post(f"/api/tasks/{task_id}/start")


def test_an_open_run_is_answered_as_it_is(workspace: Workspace) -> None:
    task_id = _gated(workspace)
    run = workspace.operator.post(f"/api/tasks/{task_id}/runs").run
    assert _approve(workspace, task_id).run.id == run.id
    assert workspace.told(task_id=task_id).count("task.run_enqueued") == 1


def test_a_draft_is_approved_without_a_run(workspace: Workspace, agent: Agent) -> None:
    task_id = _gated(workspace, draft=True)
    reasons = ["awaiting_approval"]
    with workspace.unchanged(), refused(409, "task_blocked", reasons=reasons):
        workspace.operator.post(f"/api/tasks/{task_id}/publish")
    told = _approve(workspace, task_id)
    assert (told.task.status, told.task.approval_state, told.run) == ("draft", "approved", None)
    workspace.operator.post(f"/api/tasks/{task_id}/publish")
    assert agent.claim().task_id == task_id


def test_without_attempts_left_an_approval_queues_nothing(
    workspace: Workspace, agent: Agent
) -> None:
    task = workspace.task(max_attempts=1)
    agent.work(task.id)
    workspace.operator.patch(f"/api/tasks/{task.id}", approval_policy="manual")
    assert _approve(workspace, task.id).run is None
    assert workspace.get(task.id).status == "completed"


def test_an_approved_task_that_had_ended_runs_again(workspace: Workspace, agent: Agent) -> None:
    task = workspace.task()
    late = workspace.task(depends_on=[task.id])
    agent.work(task.id)
    workspace.operator.patch(f"/api/tasks/{task.id}", approval_policy="manual")
    told = _approve(workspace, task.id)
    assert (told.task.status, told.task.closed_at) == ("ready", None)
    assert workspace.get(late.id).dependencies_waiting == 1


def test_a_repeated_approval_answers_the_same_run(workspace: Workspace) -> None:
    """P5."""
    task_id = _gated(workspace)
    first = _approve(workspace, task_id, "k")
    with workspace.unchanged():
        assert _approve(workspace, task_id, "k") == first
    assert workspace.operator.replayed


def test_a_rejected_task_stays_blocked(workspace: Workspace, agent: Agent) -> None:
    """No run is touched; what is queued waits."""
    task_id = _gated(workspace)
    run = workspace.operator.post(f"/api/tasks/{task_id}/runs").run
    task = _reject(workspace, task_id, reason="too early")
    assert (task.status, task.approval_state, task.approval_reason) == (
        "blocked", "rejected", "too early",
    )  # fmt: skip
    assert (task.approval_decided_at, task.version) == (task.updated_at, 2)
    assert agent.claims() == []
    assert workspace.run(run.id).status == "queued"
    [event] = workspace.events(event_type="task.rejected")
    assert (event.payload["reason"], event.payload["expired"]) == ("too early", False)


@pytest.mark.parametrize("how", ["approve", "reject"])
def test_what_is_not_pending_is_not_decided(workspace: Workspace, how: str) -> None:
    free, done, gone = workspace.task().id, _gated(workspace), _gated(workspace)
    _reject(workspace, done)
    workspace.cancel(gone)
    code = "approval_not_pending"
    with workspace.unchanged():
        with refused(409, code, approval_policy="none", approval_state="not_required"):
            workspace.operator.post(f"/api/tasks/{free}/{how}")
        with refused(409, code, approval_policy="manual", approval_state="rejected"):
            workspace.operator.post(f"/api/tasks/{done}/{how}")
        with refused(409, "task_canceled"):
            workspace.operator.post(f"/api/tasks/{gone}/{how}")


def test_a_policy_that_becomes_manual_closes_the_gate(workspace: Workspace, agent: Agent) -> None:
    """A queued run stays queued, a claimed one goes on."""
    queued, taken = workspace.task(), workspace.task(priority="urgent")
    held = agent.claim()
    for task in (queued, taken):
        told = workspace.operator.patch(f"/api/tasks/{task.id}", approval_policy="manual").task
        assert told.approval_state == "pending"
        kinds = [e.event_type for e in workspace.events(task_id=task.id)][-2:]
        assert kinds == ["task.updated", "task.approval_requested"]
    assert workspace.statuses({"q": queued.id, "t": taken.id}) == {
        "q": "blocked",
        "t": "in_progress",
    }
    assert agent.claims() == []
    held.complete()
    assert workspace.get(taken.id).status == "completed"
    assert workspace.run(_approve(workspace, queued.id).run.id).attempt == 1
    assert agent.claim().task_id == queued.id


@pytest.mark.parametrize("decided", ["pending", "approve", "reject"])
def test_a_policy_that_becomes_none_opens_the_gate(
    workspace: Workspace, agent: Agent, decided: str
) -> None:
    """P7: and asking again later asks anew."""
    task_id = _gated(workspace)
    if decided != "pending":
        workspace.operator.post(f"/api/tasks/{task_id}/{decided}")
    task = workspace.operator.patch(f"/api/tasks/{task_id}", approval_policy="none").task
    assert (task.status, task.approval_state, task.approval_decided_by) == (
        "ready", "not_required", None,
    )  # fmt: skip
    assert agent.claim().task_id == task_id
    again = workspace.operator.patch(f"/api/tasks/{task_id}", approval_policy="manual").task
    assert (again.approval_state, again.approval_decided_at) == ("pending", None)


def test_only_people_decide(workspace: Workspace, agent: Agent) -> None:
    """An agent is told that it is not its call, whoever made the task, and what to do instead."""
    task = agent.post("/api/tasks", title="mine", approval_policy="manual").task
    with workspace.unchanged():
        for how in ("approve", "reject"):
            denied = {"role": "agent", "action": f"tasks.{how}", "retryable": False}
            with refused(403, "forbidden_operator_action", **denied) as told:
                agent.post(f"/api/tasks/{task.id}/{how}")
            assert "the task's stream tells task.approved" in told[0].evidence["instead"]


def test_tasks_that_wait_for_approval_are_listed(workspace: Workspace) -> None:
    task_id, _ = _gated(workspace), workspace.task()
    told = workspace.operator.get("/api/tasks", approval_state="pending").tasks
    assert [task.id for task in told] == [task_id]
    assert len(workspace.operator.get("/api/tasks", approval_state="not_required").tasks) == 1


def test_an_agent_is_told_what_its_task_waits_for(workspace: Workspace, agent: Agent) -> None:
    """Every closed gate, so that it can see to what it can, and ask for the rest."""
    first = workspace.task()
    body = {"title": "mine", "approval_policy": "manual", "depends_on": [first.id]}
    task = agent.post("/api/tasks", **body, draft=True).task
    reasons = ["awaiting_approval", "awaiting_dependencies"]
    with workspace.unchanged():
        with refused(409, "task_blocked", reasons=reasons):
            agent.post(f"/api/tasks/{task.id}/publish")
        with refused(409, "task_draft") as told:
            agent.post(f"/api/tasks/{task.id}/start")
    assert "publish it first" in told[0].message
    _reject(workspace, task.id)
    agent.post(f"/api/tasks/{task.id}/publish", subtree=True)
    assert workspace.get(task.id).status == "blocked"
