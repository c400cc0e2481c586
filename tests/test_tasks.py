"""Tasks: made, read, changed, deleted."""

from typing import Any

import pytest

from tests.factories import Agent, Workspace, refused
from tests.world import World

FIELDS: dict[str, Any] = {
    "id": "my-own:id_1.2", "identifier": "OPS-12", "scope": "global", "network_channel": "blue",
    "title": "a title", "description": "long", "priority": "urgent", "max_attempts": 7,
    "auto_enqueue_on_ready": True, "owner": {"kind": "pool", "ref": "ann"},
    "metadata": {"a": [1, None]}, "payload": ["x", 1.5], "on_dependency_failure": "run",
    "available_at": "2031-01-02T03:04:05.678901Z", "max_lease_expiries": 9,
    "retry": {"strategy": "linear", "base_seconds": 1, "max_seconds": 2},
    "deadline_seconds": 77, "tags": ["a", "b"],
}  # fmt: skip
DEFAULTS: dict[str, Any] = {
    "identifier": None, "scope": "workspace", "network_channel": None, "description": None,
    "priority": "medium", "max_attempts": 3, "auto_enqueue_on_ready": False, "owner": None,
    "metadata": None, "payload": None, "on_dependency_failure": "block", "available_at": None,
    "max_lease_expiries": 3, "deadline_seconds": None, "tags": [], "status": "ready",
    "retry": {"strategy": "exponential_jitter", "base_seconds": 10, "max_seconds": 3600},
    "fence": 0, "version": 1, "attempts_used": 0, "dependencies_waiting": 0, "closed_at": None,
    "current_run_id": None, "parent_task_id": None, "checkpoint": None, "result": None,
}  # fmt: skip


def _plain(operator: Any) -> dict[str, Any]:
    """The task of the newest answer, as JSON."""
    told: dict[str, Any] = operator.last.json()["task"]
    return told


def test_a_task_is_as_it_was_told(workspace: Workspace) -> None:
    workspace.operator.post("/api/tasks", **FIELDS | {"tags": ["b", "a", "b"]})
    told = _plain(workspace.operator)
    assert {name: told[name] for name in FIELDS} == FIELDS
    assert (told["workspace_id"], told["origin"]) == (None, {"kind": "http", "ref": "tasks.create"})
    assert workspace.told(task_id=told["id"]) == ["task.created", "task.run_enqueued"]


def test_a_task_told_little_has_the_defaults(workspace: Workspace) -> None:
    task = workspace.operator.post("/api/tasks", title="  a title ", description=" ").task
    told = _plain(workspace.operator)
    assert {name: told[name] for name in DEFAULTS} == DEFAULTS
    assert (task.title, task.workspace_id, task.ready_at) == (
        "a title", workspace.id, task.created_at,
    )  # fmt: skip


def test_an_id_is_used_once_for_ever(workspace: Workspace, world: World) -> None:
    task = workspace.operator.post("/api/tasks", title="t", id="mine").task
    assert world.workspace().task(id="mine").id == "mine"
    with refused(409, "task_exists", id="mine"):
        workspace.task(id="mine")
    workspace.operator.delete(f"/api/tasks/{task.id}")
    with workspace.unchanged():
        with refused(409, "task_exists", id="mine"):
            workspace.task(id="mine")
        with refused(404, "task_not_found", id="mine"):
            workspace.operator.delete("/api/tasks/mine")
    assert workspace.told(task_id="mine") == ["task.created", "task.deleted"]


def test_a_child_belongs_to_its_parent(workspace: Workspace, agent: Agent) -> None:
    parent = workspace.task()
    path = f"/api/tasks/{parent.id}/children"
    child = workspace.operator.post(path, title="c", auto_enqueue_on_ready=True).task
    assert child.parent_task_id == parent.id
    assert workspace.task(parent_task_id=parent.id).parent_task_id == parent.id
    agent.work(child.id, "fail", retryable=False)
    detail = workspace.operator.get(f"/api/tasks/{parent.id}").task
    assert (detail.task.status, detail.summary.child_count) == ("ready", 2)
    assert {c.id for c in detail.children} >= {child.id}
    assert workspace.told(task_id=parent.id)[-1] == "task.child_created"


def test_who_may_not_be_a_parent(workspace: Workspace) -> None:
    dead, near = workspace.task(), workspace.task(scope="workspace")
    workspace.cancel(dead.id)
    with workspace.unchanged():
        with refused(409, "task_canceled", closed_at=workspace.get(dead.id).closed_at):
            workspace.task(parent_task_id=dead.id)
        with refused(404, "task_not_found", id="nobody"):
            workspace.operator.post("/api/tasks/nobody/children", title="c")
        with refused(422, "validation_failed"):
            workspace.task(parent_task_id=near.id, scope="global")
    wide = workspace.task(scope="global")
    assert workspace.task(parent_task_id=wide.id, scope="global").workspace_id is None
    assert workspace.task(parent_task_id=wide.id).workspace_id == workspace.id


def test_a_tree_is_32_deep_at_most(workspace: Workspace) -> None:
    items = [{"ref": "0", "title": "t"}]
    items += [{"ref": str(n), "title": "t", "parent_ref": str(n - 1)} for n in range(1, 33)]
    with workspace.unchanged(), refused(409, "depth_limit", limit=32):
        workspace.operator.post("/api/tasks/bulk", tasks=items)
    ids = workspace.operator.post("/api/tasks/bulk", tasks=items[:32]).ids
    with refused(409, "depth_limit", limit=32):
        workspace.task(parent_task_id=ids["31"])


def test_a_parent_has_ten_thousand_children_at_most(workspace: Workspace) -> None:
    parent = workspace.task()
    edges: dict[str, list[str]] = {str(n): [] for n in range(10_000)}
    workspace.graph(edges, parent_task_id=parent.id, auto_enqueue_on_ready=False)
    with refused(409, "children_limit", limit=10_000, count=10_001):
        workspace.task(parent_task_id=parent.id)
    workspace.cancel(parent.id)
    assert len(workspace.events(event_type="task.canceled")) == 500


def test_patches_change_what_they_name(workspace: Workspace) -> None:
    task = workspace.task()
    path = f"/api/tasks/{task.id}"
    wanted = {n: v for n, v in FIELDS.items() if n not in ("id", "scope")}
    after = workspace.operator.patch(path, **wanted).task
    told = _plain(workspace.operator)
    assert {name: told[name] for name in wanted} == wanted
    assert after.version == 2
    [event] = workspace.events(event_type="task.updated")
    assert event.payload["version"] == 2
    assert set(event.payload["changed_fields"]) == set(wanted) - {"auto_enqueue_on_ready"}
    nulls = ("identifier", "network_channel", "description", "metadata", "payload",
             "deadline_seconds", "available_at")  # fmt: skip
    workspace.operator.patch(path, **dict.fromkeys(nulls), clear_owner=True)
    assert {name: _plain(workspace.operator)[name] for name in (*nulls, "owner")} == dict.fromkeys(
        (*nulls, "owner")
    )


def test_a_patch_that_changes_nothing_leaves_no_trace(workspace: Workspace) -> None:
    task = workspace.task(**FIELDS)
    with workspace.unchanged():
        same = workspace.operator.patch(
            f"/api/tasks/{task.id}", title=" a title ", tags=["b", "a"],
            available_at="2031-01-02T04:04:05.678901+01:00", owner=FIELDS["owner"],
        )  # fmt: skip
    assert same.task == task


def test_a_patch_of_a_stale_version_is_refused(workspace: Workspace) -> None:
    task = workspace.task()
    path = f"/api/tasks/{task.id}"
    conditional = workspace.operator.also(If_Match='"1"')
    assert conditional.patch(path, title="new").task.version == 2
    with workspace.unchanged():
        with refused(412, "version_mismatch", version=2):
            conditional.patch(path, title="newer")
        with refused(412, "version_mismatch", version=2):
            workspace.operator.patch(path, title="newer", version=1)
        with refused(422, "validation_failed"):
            conditional.patch(path, title="newer", version=2)
    assert workspace.operator.also(If_Match="*").patch(path, title="newer").task.version == 3


def test_runs_do_not_change_the_version(workspace: Workspace, agent: Agent) -> None:
    task = workspace.task()
    agent.work(task.id)
    assert workspace.get(task.id).version == 1
    other = workspace.task()
    assert workspace.cancel(other.id).version == 2


def test_what_may_not_be_patched(workspace: Workspace) -> None:
    path = f"/api/tasks/{workspace.task().id}"
    patch = workspace.operator.patch
    with workspace.unchanged():
        for body, code in (
            ({}, "empty_patch"), ({"version": 1}, "empty_patch"), ({"id": "x"}, "immutable_field"),
            ({"status": "failed"}, "immutable_field"), ({"titel": "x"}, "unknown_field"),
            ({"title": None}, "validation_failed"), ({"priority": None}, "validation_failed"),
            ({"owner": FIELDS["owner"], "clear_owner": True}, "validation_failed"),
        ):  # fmt: skip
            with refused(422, code):
                patch(path, **body)


def test_what_may_not_be_deleted(workspace: Workspace, agent: Agent) -> None:
    parent = workspace.task(auto_enqueue_on_ready=False)
    child = workspace.task(parent_task_id=parent.id)
    run = workspace.operator.get(f"/api/tasks/{child.id}/runs").runs[0]
    with workspace.unchanged():
        with refused(409, "task_has_children", child_count=1):
            workspace.operator.delete(f"/api/tasks/{parent.id}")
        with refused(409, "open_run_exists", run_id=run.id, run_status="queued"):
            workspace.operator.delete(f"/api/tasks/{child.id}")
    agent.work(child.id)
    workspace.operator.delete(f"/api/tasks/{child.id}")
    workspace.operator.delete(f"/api/tasks/{parent.id}")
    for path in (f"/api/tasks/{child.id}", f"/api/task-runs/{run.id}"):
        with pytest.raises(Exception, match="404"):
            workspace.operator.get(path)
    assert "task.run_completed" in workspace.told(task_id=child.id)


def test_deletion_lets_the_others_go_on(workspace: Workspace, agent: Agent) -> None:
    """P7: who waited for the deleted task is queued with its deletion."""
    ids = workspace.graph({"a": [], "b": ["a"]}, auto_enqueue_on_ready=True)
    agent.work(ids["a"], "fail", retryable=False)
    workspace.operator.delete(f"/api/tasks/{ids['a']}")
    agent.work(ids["b"])
