"""Execution profiles: what a task demands is read, replaced, taken away; the queue follows."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.factories import Agent, Workspace, refused

GPU = {"worker": {"required_capabilities": ["gpu"]}}


def _path(task_id: str) -> str:
    return f"/api/tasks/{task_id}/execution-profile"


def _put(workspace: Workspace, task_id: str, /, **profile: Any) -> Any:
    return workspace.operator.put(_path(task_id), **profile).profile


def test_a_task_without_a_profile_reads_as_all_defaults(workspace: Workspace) -> None:
    task = workspace.task()
    told = workspace.operator.get(_path(task.id)).profile
    assert (told.task_id, told.created_at, told.updated_at) == (task.id, None, None)
    assert (told.coordinator.mode, told.worker.mode, told.runtime.mode) == (
        "inherit", "inherit", "default",
    )  # fmt: skip
    assert (told.sandbox.mode, told.review.allowed_peer_ids) == ("inherit", [])


def test_a_profile_is_replaced_as_a_whole(workspace: Workspace) -> None:
    """Absent blocks are defaults; the times of the caller are ignored."""
    task = workspace.task(execution_profile=GPU)
    made = workspace.operator.get(_path(task.id)).profile
    workspace.world.advance(1)
    told = _put(
        workspace, task.id, task_id=task.id, created_at="2001-01-01T00:00:00Z",
        coordinator={"mode": "guided", "guidance": "gently"},
        participants={"preferred_agent_names": ["b", "a", "b"]},
        sandbox={"mode": "ref", "sandbox_ref": "box"},
    )  # fmt: skip
    assert told.worker.required_capabilities == []
    assert (told.coordinator.guidance, told.sandbox.sandbox_ref) == ("gently", "box")
    assert told.participants.preferred_agent_names == ["a", "b"]
    assert (told.created_at, told.updated_at > made.updated_at) == (made.created_at, True)
    assert workspace.operator.get(_path(task.id)).profile == told


def test_a_profile_that_is_deleted_reads_as_all_defaults(workspace: Workspace) -> None:
    task = workspace.task(execution_profile=GPU)
    workspace.operator.delete(_path(task.id))
    told = workspace.operator.get(_path(task.id)).profile
    assert (told.created_at, told.worker.required_capabilities) == (None, [])
    with workspace.unchanged(), refused(404, "profile_not_found", id=task.id):
        workspace.operator.delete(_path(task.id))


def test_changes_of_a_profile_are_events_of_the_task(workspace: Workspace) -> None:
    """P8: a change and its event commit together; what changes nothing is none."""
    task = workspace.task()
    _put(workspace, task.id, worker={"mode": "select", "agent_name": "ann"})
    with workspace.unchanged():
        _put(workspace, task.id, worker={"mode": "select", "agent_name": "ann"})
    workspace.operator.delete(_path(task.id))
    put, gone = workspace.events(task_id=task.id)[-2:]
    assert put.event_type == "task.execution_profile_updated"
    modes = [put.payload[f"{name}_mode"] for name in ("coordinator", "worker", "sandbox")]
    assert modes == ["inherit", "select", "inherit"]
    assert (len(put.payload["profile_sha256"]), put.payload["task_status"]) == (64, "ready")
    assert gone.event_type == "task.execution_profile_deleted"
    assert (gone.payload["worker_mode"], gone.payload["profile_sha256"]) == (None, None)
    assert workspace.get(task.id).version == task.version


def test_a_queued_run_follows_its_profile_at_once(workspace: Workspace, agent: Agent) -> None:
    """P6, P7: its offer moves to the lane of the new demands in the same transaction."""
    task = workspace.task()
    _put(workspace, task.id, **GPU)
    assert agent.claims() == []
    held = agent.claim(capabilities=["gpu"])
    assert held.claim.execution_profile is not None
    held.release()
    workspace.operator.delete(_path(task.id))
    assert agent.claim().task_id == task.id


def test_a_run_behind_a_gate_comes_out_with_the_new_demands(
    workspace: Workspace, agent: Agent
) -> None:
    ids = workspace.graph({"a": [], "b": ["a"]})
    workspace.operator.post(f"/api/tasks/{ids['b']}/runs")
    _put(workspace, ids["b"], participants={"allowed_agent_names": ["ann"]})
    agent.work(ids["a"])
    assert agent.claims() == []
    assert workspace.agent("ann").claim().task_id == ids["b"]


def test_a_waiting_claim_hears_of_the_new_demands(workspace: Workspace) -> None:
    task = workspace.task(execution_profile=GPU)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(workspace.agent().claim, wait_seconds=20)
        workspace.world.until_waiting()
        workspace.operator.delete(_path(task.id))
        assert waiting.result().task_id == task.id


@pytest.mark.parametrize("status", ["claimed", "running"])
def test_a_profile_is_locked_while_somebody_works_by_it(
    workspace: Workspace, agent: Agent, status: str
) -> None:
    task = workspace.task(execution_profile={"worker": {"mode": "select"}})
    held = agent.claim()
    if status == "running":
        held.heartbeat()
    with workspace.unchanged():
        with refused(409, "profile_locked", run_id=held.run_id):
            _put(workspace, task.id, **GPU)
        with refused(409, "profile_locked", run_id=held.run_id):
            workspace.operator.delete(_path(task.id))
    held.complete()
    _put(workspace, task.id, **GPU)


def test_a_run_may_not_move_into_a_lane_too_many(workspace: Workspace) -> None:
    task, idle = workspace.task(), workspace.task(auto_enqueue_on_ready=False)
    items = [{"ref": str(n), "title": "t", "network_channel": f"c{n}"} for n in range(999)]
    workspace.operator.post("/api/tasks/bulk", tasks=items)
    workspace.task()
    with workspace.unchanged(), refused(409, "lane_limit", limit=1000, count=1001):
        _put(workspace, task.id, **GPU)
    _put(workspace, task.id, worker={"model": "any"})
    _put(workspace, idle.id, **GPU)


BAD: dict[str, dict[str, Any]] = {
    "task_id": {"task_id": "another"},
    "worker.agent_name": {"worker": {"agent_name": "a", "allowed_agent_names": ["b"]}},
    "sandbox.sandbox_ref": {"sandbox": {"mode": "ref"}},
    "worker.required_capabilities": {"worker": {"required_capabilities": ["a b"]}},
    "participants.allowed_peer_ids": {
        "participants": {"allowed_peer_ids": [f"p{n}" for n in range(65)]}
    },
}


@pytest.mark.parametrize("field", BAD)
def test_a_profile_that_breaks_a_rule_is_refused(workspace: Workspace, field: str) -> None:
    task = workspace.task()
    with workspace.unchanged(), refused(422, "validation_failed") as told:
        _put(workspace, task.id, **BAD[field])
    assert told[0].evidence["errors"][0]["field"].startswith(field)


def test_a_new_owner_counts_for_a_run_that_comes_back(workspace: Workspace, agent: Agent) -> None:
    """The owner may change while the run is held; who takes it next is another."""
    task = workspace.task()
    held = agent.claim()
    owner = {"kind": "pool", "ref": "ann"}
    workspace.operator.patch(f"/api/tasks/{task.id}", owner=owner)
    held.release()
    assert agent.claims() == []
    assert workspace.agent("ann").claim().task_id == task.id
