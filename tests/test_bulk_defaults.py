"""Fields that the items of one request have in common: an item's own value wins."""

from typing import Any

import pytest

from tests.factories import Workspace, refused

FIRST = "first"
ITEM = {"ref": "b", "title": "b"}


def _edges(workspace: Workspace, items: list[Any], **defaults: Any) -> list[list[str]]:
    told = workspace.operator.post("/api/tasks/bulk", tasks=items, defaults=defaults)
    details = [workspace.operator.get(f"/api/tasks/{task.id}").task for task in told.tasks]
    return [sorted(edge.depends_on_task_id for edge in d.dependencies) for d in details]


def test_common_edges_hold_for_items_without_edges_of_their_own(workspace: Workspace) -> None:
    for name in ("setup", "other"):
        workspace.task(id=name)
    items = [
        {"ref": "a", "title": "a", "id": "a"},
        {"ref": "b", "title": "b", "depends_on": []},
        {"ref": "c", "title": "c", "depends_on": ["other"]},
        {"ref": "d", "title": "d", "depends_on_refs": ["a"]},
    ]
    edges = _edges(workspace, items, depends_on=["setup"])
    assert edges == [["setup"], [], ["other"], ["a", "setup"]]


def test_common_edges_close_no_cycle(workspace: Workspace) -> None:
    first = {"ref": "a", "title": "a", "id": FIRST, "depends_on": [], "depends_on_refs": ["b"]}
    with workspace.unchanged(), refused(409, "dependency_cycle", path=["a", "b", "a"]):
        _edges(workspace, [first, ITEM], depends_on=[FIRST])
    with workspace.unchanged(), refused(422, "dependency_self", task_id=FIRST):
        _edges(workspace, [{"ref": "a", "title": "a", "id": FIRST}, ITEM], depends_on=[FIRST])


@pytest.mark.parametrize("path", ["/api/tasks", f"/api/tasks/{FIRST}/children"])
def test_no_task_is_its_own_parent(workspace: Workspace, path: str) -> None:
    parent = {"parent_task_id": FIRST} if path == "/api/tasks" else {}
    with workspace.unchanged(), refused(404, "task_not_found", id=FIRST):
        workspace.operator.post(path, title="t", id=FIRST, **parent)


def test_a_profile_says_of_no_other_task_that_it_is_its(workspace: Workspace) -> None:
    profile = {"execution_profile": {"task_id": FIRST}}
    assert workspace.task(id=FIRST, **profile).id == FIRST
    with workspace.unchanged(), refused(422, "validation_failed"):
        workspace.task(**profile)
    with workspace.unchanged(), refused(422, "validation_failed", index=0, ref="b"):
        _edges(workspace, [ITEM], **profile)
