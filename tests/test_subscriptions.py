"""Subscriptions of a task: made, replaced, removed; what they send."""

from typing import Any

import pytest

from tests.factories import Agent, Workspace, refused
from tests.receiver import bridge, cursor, receiving, subscribe
from tests.world import World

SOMEWHERE = "https://receiver.invalid/hook"


def test_a_subscription_of_the_same_id_is_replaced_and_goes_on(
    world: World, workspace: Workspace
) -> None:
    task, other = workspace.task(), workspace.task()
    with receiving() as receiver:
        to = bridge(workspace, receiver.url)
        subscribe(workspace, task.id, to, subscription_id="mine", event_types=["task.created"])
        world.deliver()
        again = subscribe(workspace, task.id, to, subscription_id="mine", peer_id="p")
        assert workspace.operator.last.status_code == 200
        world.deliver()
    assert (again.peer_id, again.event_types) == ("p", None)
    assert again.cursor.last_sequence == receiver.sequences()[0]
    with refused(409, "subscription_exists", id="mine"):
        subscribe(workspace, other.id, to, subscription_id="mine")


def test_a_cursor_outlives_its_subscription(world: World, workspace: Workspace) -> None:
    task = workspace.task()
    with receiving() as receiver:
        to = bridge(workspace, receiver.url)
        wish = {"subscription_id": "mine", "event_types": ["task.created", "task.updated"]}
        subscribe(workspace, task.id, to, **wish)
        world.deliver()
        workspace.operator.delete(f"/api/tasks/{task.id}/notifications/bridges/mine")
        workspace.operator.patch(f"/api/tasks/{task.id}", title="new")
        world.deliver()
        assert len(receiver.got) == 1
        subscribe(workspace, task.id, to, **wish)
        world.deliver()
    assert [got.told["type"] for got in receiver.got] == ["task.created", "task.updated"]
    assert "task.subscription_deleted" in workspace.told(task_id=task.id)


@pytest.mark.parametrize(
    ("end", "finals"),
    [
        ({"end": "complete"}, ["task.run_completed"]),
        ({"end": "fail", "retryable": False}, ["task.run_failed"]),
        ({"end": "fail"}, []),
        ({"end": "release"}, []),
    ],
)
def test_finals_are_what_ends_the_task(
    world: World, workspace: Workspace, agent: Agent, end: Any, finals: list[str]
) -> None:
    """Also of the past; a change of a task that has ended is none."""
    task = workspace.task()
    agent.work(task.id, **end)
    workspace.operator.patch(f"/api/tasks/{task.id}", title="new")
    with receiving() as receiver:
        subscribe(workspace, task.id, bridge(workspace, receiver.url))
        world.deliver()
    assert [got.told["type"] for got in receiver.got] == finals


def test_a_cancel_is_told_once(world: World, workspace: Workspace) -> None:
    task = workspace.task()
    with receiving() as receiver:
        subscribe(workspace, task.id, bridge(workspace, receiver.url))
        world.deliver()
        workspace.cancel(task.id)
        world.deliver()
    [got] = receiver.got
    assert got.told["data"]["timeline"]["task"]["status"] == "canceled"


def test_a_subscription_must_fit_its_task(workspace: Workspace) -> None:
    task, to = workspace.task(), bridge(workspace, SOMEWHERE)
    for wrong in ({"scope": "global"}, {"workspace_id": "ws_other"}, {"thread_id": "t"}):
        with refused(422, "validation_failed"):
            subscribe(workspace, task.id, to, **wrong)
    with refused(422, "validation_failed"):
        subscribe(workspace, task.id, to, event_types=["task.unheard_of"])
    to.id = "br_unknown"
    with refused(404, "bridge_not_found", id="br_unknown"):
        subscribe(workspace, task.id, to)
    path = f"/api/tasks/{task.id}/notifications/bridges/unknown"
    with refused(404, "subscription_not_found", id="unknown"):
        workspace.operator.get(path)
    with refused(404, "subscription_not_found", id="unknown"):
        workspace.operator.delete(path)


def test_lists_go_on_behind_their_cursor(workspace: Workspace) -> None:
    task, to = workspace.task(), bridge(workspace, SOMEWHERE)
    made = [subscribe(workspace, task.id, to).subscription_id for _ in range(3)]
    path, seen, after = f"/api/tasks/{task.id}/notifications/bridges", [], None
    while True:
        page = workspace.operator.get(path, limit=2, cursor=after)
        seen += [one.subscription_id for one in page.subscriptions]
        after = page.next_cursor
        if after is None:
            break
    assert seen == made
    assert workspace.operator.get(path, bridge_instance_id="br_other").subscriptions == []


def test_a_deleted_task_takes_its_subscriptions_along(world: World, workspace: Workspace) -> None:
    task = workspace.task(auto_enqueue_on_ready=False)
    subscription = subscribe(workspace, task.id, bridge(workspace, SOMEWHERE))
    assert cursor(workspace, subscription).last_sequence == 0
    workspace.operator.delete(f"/api/tasks/{task.id}")
    rows = workspace.snapshot()
    assert (rows["subscription"], rows["delivery_cursor"]) == ([], [])
    world.deliver()
