"""Pauses that meet other calls on the same tree, and pauses of large trees."""

import random
import time
from concurrent.futures import ThreadPoolExecutor

from tests.crowd import crowd, request
from tests.factories import Workspace
from tests.world import Servers, World

WIDE, DEEP = 100, 100
SOON_SECONDS = 20


def _large(workspace: Workspace) -> str:
    """A task with ten thousand and a hundred below it, all queued."""
    root = workspace.task().id
    items = [{"ref": f"{n}", "title": "t", "parent_task_id": root} for n in range(WIDE)]
    ids = workspace.operator.post("/api/tasks/bulk", tasks=items).ids
    leaves = [
        {"ref": f"{n}-{m}", "title": "t", "parent_task_id": ids[f"{n}"]}
        for n in range(WIDE)
        for m in range(DEEP)
    ]
    workspace.operator.post("/api/tasks/bulk", tasks=leaves)
    return root


def test_a_large_tree_is_paused_and_resumed_in_one_transaction_each(workspace: Workspace) -> None:
    root, agent = _large(workspace), workspace.agent()
    began = time.monotonic()
    workspace.operator.post(f"/api/tasks/{root}/pause", reason="wait")
    assert agent.claims(max_runs=100) == []
    resumed = workspace.operator.post(f"/api/tasks/{root}/resume").task
    assert time.monotonic() - began < SOON_SECONDS
    assert not resumed.effective_paused
    assert len(agent.claims(max_runs=100)) == 100
    told = workspace.told(event_type="task.paused,task.resumed")
    assert told == ["task.paused", "task.resumed"]


def test_a_child_made_while_its_tree_is_paused_is_paused(workspace: Workspace) -> None:
    """P6: whichever comes first."""
    root = workspace.task().id
    parent = workspace.task(parent_task_id=root).id
    with ThreadPoolExecutor(2) as pool:
        with workspace.holding(parent):
            pause = pool.submit(workspace.operator.post, f"/api/tasks/{root}/pause", reason="x")
            workspace.world.until_blocked(1)
            made = pool.submit(workspace.task, parent_task_id=parent)
            workspace.world.until_blocked(2)
        pause.result()
    assert workspace.get(made.result().id).paused_by_task_id == root
    assert workspace.agent().claims() == []


def test_pauses_and_resumes_of_one_tree_at_once_agree(
    world: World, workspace: Workspace, servers: Servers
) -> None:
    """P6, P7: the rows are in order at the end, whatever came first; so is the queue."""
    dice = random.Random(3)
    ids = [workspace.task().id]
    for _ in range(12):
        ids.append(workspace.task(parent_task_id=dice.choice(ids)).id)
    agent = workspace.agent()
    with crowd([world.server.url, servers.start().server.url], 24) as callers:
        for _ in range(12):
            calls = [
                request(workspace.operator, "POST", f"/api/tasks/{dice.choice(ids)}/{how}", body)
                for how in ("pause", "resume")
                for body in [{"reason": "x"}] * 8
            ]
            new = {"title": "t", "auto_enqueue_on_ready": True}
            for _ in range(4):
                path = f"/api/tasks/{dice.choice(ids)}/children"
                calls.append(request(workspace.operator, "POST", path, new))
                calls.append(request(agent, "POST", "/api/agent/tasks/claim-next", {}))
            dice.shuffle(calls)
            assert max(reply.status for reply in callers.at_once(calls)) < 500
            assert workspace.faults() == {}


def test_a_child_resumed_while_its_parent_is_paused_is_paused_by_that(workspace: Workspace) -> None:
    """P6: the resume waits until it is known what pauses the parent."""
    root = workspace.task().id
    child = workspace.task(parent_task_id=root).id
    post = workspace.operator.post
    post(f"/api/tasks/{child}/pause", reason="x")
    with ThreadPoolExecutor(2) as pool:
        with workspace.locked("log"):
            pause = pool.submit(post, f"/api/tasks/{root}/pause", reason="x")
            workspace.world.until_blocked(1)
            resume = pool.submit(post, f"/api/tasks/{child}/resume")
            workspace.world.until_blocked(2)
        pause.result()
    assert resume.result().task.paused_by_task_id == root
    assert workspace.agent().claims() == []
