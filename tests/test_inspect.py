"""Inspect: what is wrong with a run, by which rule, and what to do next."""

from typing import Any

import httpx2
import pytest

from server.rules.inspect import FINDINGS
from tests.factories import Agent, Workspace, refused


def _seen(workspace: Workspace, task_id: str) -> Any:
    return workspace.operator.get(f"/api/tasks/{task_id}/inspect").inspect


def _found(workspace: Workspace, task_id: str) -> tuple[list[str], str]:
    """The diagnostics of a task, and what is to be done."""
    seen = _seen(workspace, task_id)
    for diagnostic in seen.diagnostics:
        assert diagnostic.id == f"task.inspect.{diagnostic.code}.{seen.current_run.run_id}"
        assert diagnostic.evidence["run_id"] == seen.current_run.run_id
    return [diagnostic.code for diagnostic in seen.diagnostics], seen.next_action


def test_a_task_is_shown_with_its_runs_session_and_events(
    workspace: Workspace, agent: Agent
) -> None:
    task = workspace.task(retry={"strategy": "none"})
    first = agent.claim()
    first.fail("x" * 500)
    second = agent.claim(lease_seconds=60)
    workspace.world.advance(7)
    seen = _seen(workspace, task.id)
    assert (seen.target, seen.task.id, seen.next_action) == ("task", task.id, "running")
    assert [r.run_id for r in seen.recent_runs] == [second.run_id, first.run_id]
    assert seen.recent_runs[1].last_error_summary == "x" * 160
    run = seen.current_run
    assert (run.retries, run.heartbeat_age_seconds, run.fence) == (1, 7, second.fence)
    assert len(run.claim_token_hash_truncated) == 8
    assert (seen.bound_session.session_id, seen.bound_session.state) == (agent.session, "active")
    assert [e.type for e in seen.recent_events] == workspace.told(task_id=task.id)[::-1][:10]
    assert seen.scheduler.paused is False


def test_a_run_is_inspected_as_the_run_it_is(workspace: Workspace, agent: Agent) -> None:
    workspace.task(retry={"strategy": "none"})
    first = agent.claim()
    first.fail()
    seen = workspace.operator.get(f"/api/runs/{first.run_id}/inspect").inspect
    assert (seen.target, seen.current_run.run_id) == ("run", first.run_id)
    assert seen.diagnostics == []
    with refused(404, "run_not_found", id="nobody"):
        workspace.operator.get("/api/runs/nobody/inspect")
    with refused(404, "task_not_found", id="nobody"):
        workspace.operator.get("/api/tasks/nobody/inspect")


def test_a_missed_heartbeat_a_lapsed_lease_and_a_lost_session_are_found(
    workspace: Workspace, agent: Agent
) -> None:
    task = workspace.task()
    agent.claim(lease_seconds=60)
    assert _found(workspace, task.id) == ([], "running")
    workspace.world.advance(31)
    assert _found(workspace, task.id) == (["task_run_stuck"], "recovery_required")
    workspace.world.advance(30)
    assert _found(workspace, task.id)[0] == ["task_run_stuck", "task_run_stale_lease"]
    workspace.world.advance(300)
    assert _found(workspace, task.id)[0][2:] == ["task_run_orphan"]
    assert _seen(workspace, task.id).bound_session.stop_reason == "unseen"


def test_a_quarantined_and_a_failed_run_want_recovery(workspace: Workspace, agent: Agent) -> None:
    task = workspace.task(max_lease_expiries=1)
    agent.claim(lease_seconds=60)
    workspace.world.advance(61)
    workspace.sweep()
    assert _found(workspace, task.id) == (["task_run_needs_attention"], "recovery_required")
    [diagnostic] = _seen(workspace, task.id).diagnostics
    assert diagnostic.evidence["lease_expiries"] == 1
    failed = workspace.task(max_attempts=1)
    agent.work(failed.id, "fail")
    assert _found(workspace, failed.id) == (["task_run_crashed"], "recovery_required")


def test_a_queued_run_is_starved_when_it_waits_and_stranded_when_nobody_fits(
    workspace: Workspace,
) -> None:
    profile = {"worker": {"mode": "select", "required_capabilities": ["gpu"]}}
    task = workspace.task(execution_profile=profile)
    assert _found(workspace, task.id) == ([], "waiting_for_session")
    workspace.agent("cpu").claims(capabilities=["cpu"])
    assert _found(workspace, task.id) == ([], "waiting_for_session")
    workspace.world.advance(120)
    assert _found(workspace, task.id) == (["task_run_starved"], "waiting_for_session")
    workspace.world.advance(180)
    both = ["task_run_stranded", "task_run_starved"]
    assert _found(workspace, task.id) == (both, "stranded")
    workspace.agent("gpu").claims(capabilities=["gpu"], priority_min="urgent")
    assert _found(workspace, task.id) == (["task_run_starved"], "claim_available")


@pytest.mark.parametrize(
    ("fields", "action"),
    [
        ({"approval_policy": "manual"}, "approval_required"),
        ({"auto_enqueue_on_ready": False}, "start_required"),
        ({"available_at": "2999-01-01T00:00:00.000000Z"}, "waiting_for_gate"),
        ({}, "waiting_for_session"),
    ],
)
def test_inspect_says_what_comes_next(
    workspace: Workspace, fields: dict[str, Any], action: str
) -> None:
    task = workspace.task(**fields)
    assert _found(workspace, task.id) == ([], action)
    workspace.cancel(task.id)
    assert _found(workspace, task.id) == ([], "terminal")


def test_every_diagnostic_is_explained(workspace: Workspace) -> None:
    page = httpx2.get(f"{workspace.world.server.url}/docs/errors", trust_env=False).text
    assert all(f'<section id="{code}">' in page for code in FINDINGS)
