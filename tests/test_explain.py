"""Explain: every rule of claiming that does not hold, in its order, with its code."""

from typing import Any

import pytest

from tests.factories import Agent, Workspace

FUTURE = "2999-01-01T00:00:00.000000Z"


def _codes(workspace: Workspace, task_id: str, **asked: Any) -> list[str]:
    told = workspace.operator.get(f"/api/tasks/{task_id}/explain", **asked).explain
    assert told.claimable == (not told.reasons)
    return [reason.code for reason in told.reasons]


def _evidence(workspace: Workspace, task_id: str, **asked: Any) -> dict[str, Any]:
    told = workspace.operator.get(f"/api/tasks/{task_id}/explain", **asked).explain
    [reason] = told.reasons
    assert reason.message
    evidence: dict[str, Any] = reason.evidence
    return evidence


def test_a_task_in_the_queue_is_claimable(workspace: Workspace, agent: Agent) -> None:
    task = workspace.task()
    told = workspace.operator.get(f"/api/tasks/{task.id}/explain").explain
    assert (told.task_id, told.claimable, told.reasons) == (task.id, True, [])
    assert agent.claim().run_id == told.run_id


def test_a_task_says_what_became_of_its_run(workspace: Workspace, agent: Agent) -> None:
    idle = workspace.task(auto_enqueue_on_ready=False)
    assert _codes(workspace, idle.id) == ["no_run"]
    task = workspace.task()
    held = agent.claim(lease_seconds=60)
    assert _codes(workspace, task.id) == ["run_active"]
    evidence = _evidence(workspace, task.id)
    assert (evidence["run_status"], evidence["session_id"]) == ("claimed", agent.session)
    assert evidence["lease_until"] == held.claim.lease.lease_until
    held.complete()
    assert _codes(workspace, task.id) == ["task_terminal"]
    workspace.cancel(idle.id)
    assert _codes(workspace, idle.id) == ["task_canceled", "task_terminal"]


def test_a_quarantined_run_is_told(workspace: Workspace, agent: Agent) -> None:
    task = workspace.task(max_lease_expiries=1)
    agent.claim(lease_seconds=60)
    workspace.world.advance(61)
    workspace.sweep()
    assert _codes(workspace, task.id) == ["run_needs_attention"]


def test_what_a_task_waits_for_is_told(workspace: Workspace, agent: Agent) -> None:
    ids = workspace.graph({"a": [], "b": [], "c": ["a", "b"]}, retry={"strategy": "none"})
    workspace.operator.post(f"/api/tasks/{ids['c']}/runs")
    agent.work(ids["a"], "fail", retryable=False)
    evidence = _evidence(workspace, ids["c"])
    assert (evidence["count"], evidence["failed_count"]) == (2, 1)
    states = {ids["a"]: "failed", ids["b"]: "ready"}
    assert {w["task_id"]: w["status"] for w in evidence["waiting"]} == states


def test_a_run_that_waits_for_its_time_says_why(workspace: Workspace, agent: Agent) -> None:
    later = workspace.task(available_at=FUTURE)
    assert _evidence(workspace, later.id) == {"available_at": FUTURE, "cause": "scheduled"}
    failed = workspace.task(retry={"strategy": "fixed", "base_seconds": 60, "max_seconds": 60})
    agent.work(failed.id, "fail")
    assert _evidence(workspace, failed.id)["cause"] == "back_off"
    released = workspace.task()
    agent.work(released.id, "release", delay_seconds=60)
    assert _evidence(workspace, released.id)["cause"] == "delay"


def test_a_gate_that_a_person_holds_is_told(workspace: Workspace) -> None:
    operator = workspace.operator
    draft = workspace.task(draft=True)
    assert _codes(workspace, draft.id) == ["task_draft", "no_run"]
    asked = workspace.task(approval_policy="manual")
    operator.post(f"/api/tasks/{asked.id}/runs")
    assert _codes(workspace, asked.id) == ["awaiting_approval"]
    operator.post(f"/api/tasks/{asked.id}/reject")
    assert _evidence(workspace, asked.id) == {"approval_state": "rejected"}
    root = workspace.task()
    child = workspace.task(parent_task_id=root.id)
    operator.post(f"/api/tasks/{root.id}/pause", reason="wait")
    assert _codes(workspace, root.id) == ["task_paused"]
    assert _codes(workspace, child.id) == ["ancestor_paused"]
    assert _evidence(workspace, child.id) == {"paused_by_task_id": root.id}
    operator.post(f"/api/tasks/{root.id}/resume")
    assert _codes(workspace, child.id) == []


@pytest.mark.parametrize(
    ("task", "asked", "code"),
    [
        ({"priority": "low"}, {"priority_min": "high"}, "priority_too_low"),
        ({"priority": "low"}, {"priority_min": 11}, "priority_too_low"),
        ({"network_channel": "blue"}, {"channel": "red"}, "channel_mismatch"),
        ({"owner": {"kind": "pool", "ref": "x"}}, {"agent_name": "y"}, "owned_by_other"),
        ({"owner": {"kind": "human", "ref": "x"}}, {"agent_name": "x"}, "owned_by_other"),
        (
            {"execution_profile": {"worker": {"mode": "select", "agent_name": "x"}}},
            {"agent_name": "y"}, "agent_not_allowed",
        ),
        (
            {"execution_profile": {"participants": {"allowed_peer_ids": ["p"]}}},
            {"peer_id": "q"}, "agent_not_allowed",
        ),
        (
            {"execution_profile": {"worker": {"required_capabilities": ["gpu"]}}},
            {"capabilities": "cpu"}, "missing_capabilities",
        ),
        (
            {"execution_profile": {"worker": {"required_capabilities": ["gpu"]}}},
            {"capabilities": ""}, "missing_capabilities",
        ),
    ],
)  # fmt: skip
def test_a_rule_of_routing_is_checked_for_whom_is_named(
    workspace: Workspace, task: dict[str, Any], asked: dict[str, Any], code: str
) -> None:
    made = workspace.task(**task)
    assert _codes(workspace, made.id) == []
    assert _codes(workspace, made.id, **asked) == [code]


def test_explain_and_a_claim_agree(workspace: Workspace) -> None:
    """P6: who is told that nothing stands in the way gets the run, and nobody else does."""
    agent = workspace.agent("worker")
    profile = {"worker": {"required_capabilities": ["gpu"], "allowed_agent_names": ["worker"]}}
    workspace.task(execution_profile=profile, network_channel="blue", priority="high")
    task_id = workspace.operator.get("/api/tasks").tasks[0].id
    wish = {"capabilities": ["gpu"], "channel": "blue", "priority_min": "high"}
    for name, worse in (("capabilities", ["cpu"]), ("channel", "red"), ("priority_min", "urgent")):
        asked = wish | {name: worse}
        told = asked | {"capabilities": ",".join(asked["capabilities"])}
        assert len(_codes(workspace, task_id, agent_name="worker", **told)) == 1
        assert agent.claims(**asked) == []
    told = wish | {"capabilities": "gpu"}
    assert _codes(workspace, task_id, agent_name="worker", **told) == []
    assert agent.claim(**wish).task_id == task_id
