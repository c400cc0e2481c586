"""What operators do to runs against their holders' will."""

from typing import Any

import pytest

from tests.factories import Agent, Held, Workspace, refused, seconds
from tests.world import World


def _force(workspace: Workspace, run_id: str, how: str, **body: Any) -> Any:
    return workspace.operator.post(f"/api/runs/{run_id}/{how}", **body)


def _bulk(workspace: Workspace, how: str, runs: list[str], key: str | None = None, **b: Any) -> Any:
    return workspace.operator.post(f"/api/runs/bulk/{how}", key, run_ids=runs, **b).results


def _queued(workspace: Workspace, task_id: str) -> str:
    run_id: str = workspace.operator.get(f"/api/tasks/{task_id}/runs").runs[0].id
    return run_id


def _quarantined(world: World, workspace: Workspace) -> Held:
    workspace.task(max_lease_expiries=1)
    held = workspace.agent().claim(lease_seconds=5)
    world.advance(6)
    assert workspace.sweep() == 1
    return held


@pytest.mark.parametrize("status", ["claimed", "running"])
def test_a_release_by_force_queues_the_run_again(
    workspace: Workspace, agent: Agent, status: str
) -> None:
    """P3: no attempt is burned, the fence stays, and the next claim has a higher one."""
    task = workspace.task(max_attempts=1)
    held = agent.claim()
    if status == "running":
        held.heartbeat(checkpoint={"page": 3})
    told = _force(workspace, held.run_id, "release", reason="stuck", note="start at the end").run
    assert (told.status, told.session_id, told.claimed_by, told.lease_until) == (
        "queued", None, None, None,
    )  # fmt: skip
    assert (told.fence, told.started_at, told.note) == (held.fence, None, "start at the end")
    again = workspace.agent().claim()
    assert (again.run_id, again.fence, again.claim.note) == (
        held.run_id, held.fence + 1, "start at the end",
    )  # fmt: skip
    assert again.claim.checkpoint == ({"page": 3} if status == "running" else None)
    assert workspace.get(task.id).attempts_used == 1


def test_a_release_by_force_may_put_the_run_off(workspace: Workspace, agent: Agent) -> None:
    workspace.task()
    run = _force(workspace, agent.claim().run_id, "release", delay_seconds=600).run
    assert seconds(run.available_at, run.queued_at) == 600
    assert agent.claims() == []
    workspace.world.advance(601)
    agent.claim()


def test_a_release_by_force_leaves_the_tasks_note_unless_it_has_one(
    workspace: Workspace, agent: Agent
) -> None:
    task = workspace.task()
    agent.claim().release(note="first")
    _force(workspace, agent.claim().run_id, "release")
    assert workspace.get(task.id).note == "first"


def test_the_log_says_who_took_the_run_and_why(workspace: Workspace, agent: Agent) -> None:
    """P8: with the lease as it was."""
    workspace.task()
    held = agent.claim()
    _force(workspace, held.run_id, "release", reason="stuck", metadata={"ticket": 7})
    event = workspace.events(run_id=held.run_id)[-1]
    assert (event.event_type, event.actor.kind) == ("task.run_released", "human")
    payload = event.payload
    assert payload["manual"] is True
    assert (payload["reason"], payload["metadata"]) == ("stuck", {"ticket": 7})
    assert (payload["previous_status"], payload["status"]) == ("claimed", "queued")
    assert (payload["actor_kind"], payload["actor_id"]) == ("human", event.actor.ref)
    assert payload["previous_session_id"] == payload["session_id"] == agent.session
    assert payload["previous_lease_until"] == held.claim.lease.lease_until


def test_the_holder_learns_that_its_lease_was_revoked(workspace: Workspace, agent: Agent) -> None:
    """P2: and nothing that it says counts any more."""
    workspace.task()
    held = agent.claim()
    _force(workspace, held.run_id, "release", reason="stuck")
    with workspace.unchanged():
        with refused(409, "lease_revoked", reason="stuck", run_status="queued"):
            held.complete(result=1)
        with refused(409, "lease_revoked"):
            held.heartbeat()


def test_only_a_run_under_a_lease_is_released_by_force(world: World, workspace: Workspace) -> None:
    quarantined = _quarantined(world, workspace)
    queued = _queued(workspace, workspace.task().id)
    canceled = _queued(workspace, (task := workspace.task()).id)
    workspace.cancel(task.id)
    states = {quarantined.run_id: "needs_attention", queued: "queued", canceled: "canceled"}
    for run_id, status in states.items():
        with workspace.unchanged(), refused(409, "task_run_not_releasable", run_status=status):
            _force(workspace, run_id, "release")


@pytest.mark.parametrize("status", ["queued", "claimed", "running", "needs_attention"])
def test_a_run_that_has_not_ended_is_failed_by_force(
    world: World, workspace: Workspace, status: str
) -> None:
    """P4: for good; nothing tries it again by itself, though attempts are left."""
    if status == "needs_attention":
        run_id = _quarantined(world, workspace).run_id
    else:
        run_id = _queued(workspace, workspace.task(retry={"strategy": "none"}).id)
    if status in ("claimed", "running"):
        held = workspace.agent().claim()
        if status == "running":
            held.heartbeat()
    told = _force(workspace, run_id, "fail", reason="enough").run
    assert (told.status, told.failure_kind, told.retryable) == ("failed", "operator_forced", False)
    assert (told.error, told.lease_until, told.ended_at is None) == ("enough", None, False)
    assert workspace.get(told.task_id).status == "failed"
    assert workspace.agent().claims() == []
    with workspace.unchanged(), refused(409, "task_run_already_terminal", run_status="failed"):
        _force(workspace, run_id, "fail", reason="again")


def test_the_log_says_who_failed_the_run_and_why(workspace: Workspace, agent: Agent) -> None:
    workspace.task()
    held = agent.claim()
    _force(workspace, held.run_id, "fail", reason="enough", metadata={"ticket": 7})
    event = workspace.events(run_id=held.run_id)[-1]
    assert event.event_type == "task.run_operator_forced_fail"
    payload = event.payload
    assert payload["manual"] is True
    assert (payload["reason"], payload["metadata"]) == ("enough", {"ticket": 7})
    assert (payload["previous_status"], payload["session_id"]) == ("claimed", agent.session)
    assert (payload["actor_kind"], payload["actor_id"]) == ("human", event.actor.ref)
    assert payload["task_status"] == "failed"
    assert workspace.run(held.run_id).session_id == agent.session


def test_a_run_failed_by_force_counts_for_those_who_wait(workspace: Workspace) -> None:
    """P7: as any other failure does, by each one's policy."""
    first = workspace.task()
    waits = {
        policy: workspace.task(depends_on=[first.id], on_dependency_failure=policy).id
        for policy in ("block", "cancel", "run")
    }
    _force(workspace, _queued(workspace, first.id), "fail", reason="enough")
    assert workspace.statuses(waits) == {"block": "blocked", "cancel": "canceled", "run": "ready"}
    assert workspace.agent().claim().task_id == waits["run"]


def test_a_run_failed_by_force_may_be_tried_again_by_hand(workspace: Workspace) -> None:
    run_id = _queued(workspace, workspace.task().id)
    _force(workspace, run_id, "fail", reason="enough")
    told = _force(workspace, run_id, "retry")
    assert (told.previous_run.failure_kind, told.run.status) == ("operator_forced", "queued")


@pytest.mark.parametrize("body", [{}, {"reason": None}, {"reason": "  "}])
def test_failing_by_force_needs_a_reason(workspace: Workspace, body: dict[str, Any]) -> None:
    run_id = _queued(workspace, workspace.task().id)
    with workspace.unchanged():
        with refused(422, "force_op_requires_reason"):
            _force(workspace, run_id, "fail", **body)
        with refused(422, "force_op_requires_reason"):
            _bulk(workspace, "fail", [run_id], **body)


def test_a_run_failed_by_force_after_its_release_has_ended_for_its_last_holder(
    workspace: Workspace, agent: Agent
) -> None:
    """P4: the release is no repeat any more."""
    workspace.task()
    held = agent.claim()
    held.release()
    _force(workspace, held.run_id, "fail", reason="enough")
    with workspace.unchanged(), refused(409, "task_run_already_terminal"):
        held.release()
