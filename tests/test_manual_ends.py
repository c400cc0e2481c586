"""Runs started, completed and failed by hand: claims by hand by operators, their own by agents."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.factories import Agent, Workspace, refused
from tests.replay import replay
from tests.test_misuse import REPEATS, TABLE, Misuse, Row, _too_large
from tests.world import World

BODIES: dict[str, dict[str, Any]] = {
    "start": {},
    "complete": {"result": 1},
    "fail": {"error": "no"},
}
each_operation = pytest.mark.parametrize("operation", BODIES)


def _path(run_id: str, operation: str) -> str:
    return f"/api/task-runs/{run_id}/{operation}"


def _claimed(workspace: Workspace, **task: Any) -> Any:
    made = workspace.task(**task)
    run_id = workspace.operator.get(f"/api/tasks/{made.id}/runs").runs[0].id
    return workspace.operator.post(_path(run_id, "claim"))


def _do(workspace: Workspace, run_id: str, operation: str, **body: Any) -> Any:
    return workspace.operator.post(_path(run_id, operation), **BODIES[operation] | body).run


def test_a_run_is_started_once(workspace: Workspace) -> None:
    run_id = _claimed(workspace).run.id
    run = _do(workspace, run_id, "start", idempotency_key="k")
    assert (run.status, run.started_at is None) == ("running", False)
    assert workspace.told(run_id=run_id)[-1] == "task.run_started"
    with workspace.unchanged():
        assert _do(workspace, run_id, "start") == run


def test_any_operator_completes_a_claim_by_hand(workspace: Workspace) -> None:
    """P7: and who waited for it may go on."""
    told = _claimed(workspace)
    after = workspace.task(depends_on=[told.run.task_id])
    other = workspace.client("operator", X_Origin_Kind="web")
    run = other.post(_path(told.run.id, "complete"), result={"n": 1}).run
    assert (run.status, run.result, run.started_at is None) == ("completed", {"n": 1}, False)
    assert (run.lease_until, run.fence) == (None, told.lease.fence)
    assert workspace.get(after.id).status == "ready"


def test_any_operator_fails_a_claim_by_hand(workspace: Workspace) -> None:
    told = _claimed(workspace, max_attempts=2)
    more = {"failure_kind": "network", "metadata": {"code": 7}, "retry_after_seconds": 60}
    run = _do(workspace, told.run.id, "fail", **more)
    assert (run.status, run.error, run.failure_kind) == ("failed", "no", "network")
    [event] = workspace.events(event_type="task.run_failed")
    assert event.payload["metadata"] == {"code": 7}
    assert workspace.run(event.payload["next_run_id"]).status == "queued"


def test_a_failure_for_good_by_hand_is_not_tried_again(workspace: Workspace) -> None:
    told = _claimed(workspace)
    _do(workspace, told.run.id, "fail", retryable=False)
    assert workspace.get(told.run.task_id).status == "failed"
    again = _claimed(workspace).run.id
    with workspace.unchanged(), refused(422, "validation_failed"):
        _do(workspace, again, "fail", failure_kind="operator_forced")


@pytest.mark.parametrize("operation", ["complete", "fail"])
def test_an_end_by_hand_may_be_repeated(workspace: Workspace, operation: str) -> None:
    """P4, P5: with the same content, by any operator; nothing else is done twice."""
    run_id = _claimed(workspace).run.id
    final: dict[str, Any] = {"retryable": False} if operation == "fail" else {}
    _do(workspace, run_id, operation, **final)
    other: dict[str, Any] = {"error": "yes"} if operation == "fail" else {"result": 2}
    with workspace.unchanged():
        _do(workspace, run_id, operation)
        assert workspace.operator.replayed
        with refused(409, "task_run_already_terminal"):
            _do(workspace, run_id, operation, **other)
        with refused(409, "task_run_already_terminal"):
            _do(workspace, run_id, "start")


@each_operation
def test_an_agents_claim_is_not_ended_by_hand(
    workspace: Workspace, agent: Agent, operation: str
) -> None:
    """Not even with its token; that takes force."""
    workspace.task()
    held = agent.claim()
    with workspace.unchanged():
        for proof in ({}, {"claim_token": held.token}):
            with refused(409, "lease_held", run_id=held.run_id, session_id=agent.session):
                _do(workspace, held.run_id, operation, **proof)
    held.complete(result=1)
    with workspace.unchanged(), refused(409, "task_run_already_terminal", run_status="completed"):
        _do(workspace, held.run_id, operation)


@each_operation
def test_a_run_that_nobody_holds_is_not_ended_by_hand(workspace: Workspace, operation: str) -> None:
    run_id = _claimed(workspace).run.id
    workspace.operator.post(f"/api/runs/{run_id}/release")
    with workspace.unchanged(), refused(409, "run_not_claimed", run_status="queued"):
        _do(workspace, run_id, operation)
    workspace.operator.post(_path(run_id, "cancel"))
    with workspace.unchanged(), refused(409, "task_run_already_terminal", run_status="canceled"):
        _do(workspace, run_id, operation)


@each_operation
def test_proof_that_an_operator_brings_must_fit(workspace: Workspace, operation: str) -> None:
    """P2: a token of an older claim by hand changes nothing."""
    old = _claimed(workspace)
    run_id = old.run.id
    workspace.operator.post(f"/api/runs/{run_id}/release")
    new = workspace.operator.post(_path(run_id, "claim")).lease
    with workspace.unchanged():
        with refused(409, "stale_fence", fence=1, current_fence=2):
            _do(workspace, run_id, operation, claim_token=old.lease.claim_token)
        with refused(409, "stale_fence", fence=1, current_fence=2):
            _do(workspace, run_id, operation, fence=1)
        with refused(409, "invalid_claim_token", run_id=run_id):
            _do(workspace, run_id, operation, claim_token="wlt_2_" + "x" * 43)
    _do(workspace, run_id, operation, claim_token=new.claim_token, fence=2)


@each_operation
def test_an_agent_ends_its_own_claim_on_these_routes_too(
    workspace: Workspace, agent: Agent, operation: str
) -> None:
    workspace.task(max_attempts=1)
    held = agent.claim()
    body = {**BODIES[operation], "claim_token": held.token}
    run = agent.post(_path(held.run_id, operation), **body).run
    assert run.status == {"start": "running", "complete": "completed", "fail": "failed"}[operation]
    with workspace.unchanged():
        agent.post(_path(held.run_id, operation), **body)


@each_operation
def test_a_claim_by_hand_is_not_an_agents(workspace: Workspace, operation: str) -> None:
    """P2: neither with its token nor without, here or on the agents' routes."""
    told = _claimed(workspace)
    agent = workspace.agent()
    paths = [_path(told.run.id, operation)]
    if operation != "start":
        paths.append(f"/api/agent/tasks/{told.run.id}/{operation}")
    for path in paths:
        for proof in ({}, {"claim_token": told.lease.claim_token}):
            with workspace.unchanged(), refused(403, "foreign_run", run_id=told.run.id):
                agent.post(path, **BODIES[operation], **proof)


def test_the_log_of_runs_by_hand_and_by_force_tells_what_the_tables_have(
    workspace: Workspace, world: World
) -> None:
    """P8: replayed, it gives their columns."""
    bound, forced, ended, taken = (_claimed(workspace).run.id for _ in range(4))
    workspace.operator.post(_path(bound, "attach-session"), session_id="s", agent_name="ann")
    workspace.operator.post(f"/api/runs/{forced}/fail", reason="enough")
    workspace.operator.post(f"/api/runs/{taken}/release", reason="mine")
    _do(workspace, ended, "start")
    _do(workspace, ended, "fail", retryable=False)
    replay(world, workspace.id, workspace.log())


def _call(misuse: Misuse, operation: str) -> Any:
    told = {"claim_token": misuse.held.token, **misuse.body}
    given = {n: v for n, v in told.items() if (n, v) != ("claim_token", None)}
    own = {"start": (), "complete": ("result",), "fail": ("error",)}[operation]
    given = {n: v for n, v in given.items() if n in own or n not in ("result", "error")}
    body = ({"error": "no"} if operation == "fail" else {}) | given
    return misuse.by.post(_path(misuse.held.run_id, operation), **body)


ROWS = [row for row in TABLE if row[0] is not _too_large]


@each_operation
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].__name__)
def test_a_lease_misused_on_these_routes_changes_nothing(
    workspace: Workspace, row: Row, operation: str
) -> None:
    """P2: row by row as on the agents' own routes."""
    prepare: Callable[[Workspace], Misuse] = row[0]
    assert (prepare, operation) not in REPEATS
    misuse = prepare(workspace)
    with workspace.unchanged(), refused(row[1], row[2]) as told:
        _call(misuse, operation)
    assert row[3] <= set(told[0].evidence)
    assert misuse.held.token not in misuse.by.last.text
