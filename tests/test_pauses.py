"""Pause: nobody begins work on a task, nor on any below it."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.factories import Agent, Workspace, refused
from tests.world import World


def _pause(workspace: Workspace, task_id: str, **why: Any) -> Any:
    why = {"reason": "wait", **why}
    return workspace.operator.post(f"/api/tasks/{task_id}/pause", **why).task


def _resume(workspace: Workspace, task_id: str, **why: Any) -> Any:
    return workspace.operator.post(f"/api/tasks/{task_id}/resume", **why).task


def _tree(workspace: Workspace) -> list[str]:
    """A root, its child, and a grandchild, all queued."""
    ids: list[str] = []
    for _ in range(3):
        ids.append(workspace.task(parent_task_id=ids[-1] if ids else None).id)
    return ids


def _claimable(agent: Agent) -> set[str]:
    """The tasks that could be claimed now; nothing is changed."""
    held = agent.claims(max_runs=20)
    for h in held:
        h.release()
    return {h.task_id for h in held}


def test_a_paused_task_says_who_paused_it_and_why(workspace: Workspace, agent: Agent) -> None:
    task = _pause(workspace, workspace.task().id, metadata={"n": 1})
    assert (task.status, task.paused, task.effective_paused) == ("ready", True, True)
    assert (task.paused_by_task_id, task.paused_reason, task.version) == (task.id, "wait", 2)
    assert (task.paused_by, task.paused_at) == (
        f"human:{workspace.events()[-1].actor.ref}", task.updated_at,
    )  # fmt: skip
    [event] = workspace.events(event_type="task.paused")
    assert (event.payload["previous_paused"], event.payload["paused"]) == (False, True)
    assert (event.payload["reason"], event.payload["metadata"]) == ("wait", {"n": 1})
    task = _resume(workspace, task.id, reason="go")
    assert (task.paused, task.effective_paused, task.paused_by_task_id) == (False, False, None)
    assert (task.paused_by, task.paused_at, task.paused_reason) == (None, None, None)
    assert (task.ready_at, task.version) == (task.updated_at, 3)
    [event] = workspace.events(event_type="task.resumed")
    assert (event.payload["previous_paused"], event.payload["reason"]) == (True, "go")


def test_a_pause_stops_claims_of_the_whole_subtree(workspace: Workspace, agent: Agent) -> None:
    """P6, P7: its runs come back into the queue with the resume, and other work goes on."""
    tree, other = _tree(workspace), workspace.task().id
    _pause(workspace, tree[0])
    assert _claimable(agent) == {other}
    _resume(workspace, tree[0])
    assert _claimable(agent) == {other, *tree}


def test_what_pauses_a_task_is_exact_in_every_answer(workspace: Workspace) -> None:
    """Itself, or the nearest paused ancestor."""
    root, child, leaf = _tree(workspace)

    def seen() -> list[str | None]:
        found = []
        for task_id in (root, child, leaf):
            detail = workspace.operator.get(f"/api/tasks/{task_id}").task
            references = workspace.operator.get(f"/api/tasks/{task_id}/timeline").timeline
            told = {detail.task.paused_by_task_id, detail.summary.paused_by_task_id}
            told |= {item.task.paused_by_task_id for item in references}
            [by] = told
            assert detail.task.paused == references[0].task.paused == (by == task_id)
            assert detail.task.effective_paused == references[0].task.effective_paused == bool(by)
            found.append(by)
        return found

    for call, task_id, expected in (
        (_pause, root, [root, root, root]), (_pause, leaf, [root, root, leaf]),
        (_pause, child, [root, child, leaf]), (_resume, leaf, [root, child, child]),
        (_resume, root, [None, child, child]), (_resume, child, [None, None, None]),
    ):  # fmt: skip
        call(workspace, task_id)
        assert seen() == expected


def test_an_ancestors_pause_stays(workspace: Workspace, agent: Agent) -> None:
    root, child, leaf = _tree(workspace)
    _pause(workspace, root)
    _pause(workspace, child)
    task = _resume(workspace, child)
    assert (task.paused, task.effective_paused, task.paused_by_task_id) == (False, True, root)
    assert _claimable(agent) == set()
    _pause(workspace, leaf)
    _resume(workspace, root)
    assert _claimable(agent) == {root, child}


def test_pausing_again_rewrites_who_when_and_why(workspace: Workspace, world: World) -> None:
    task_id = workspace.task().id
    _pause(workspace, task_id)
    world.advance(5)
    task = workspace.client("operator").post(f"/api/tasks/{task_id}/pause", reason="else").task
    assert (task.paused_reason, task.paused_at, task.version) == ("else", task.updated_at, 3)
    told = workspace.events(event_type="task.paused")
    assert [e.payload["previous_paused"] for e in told] == [False, True]


def test_resuming_what_is_not_paused_changes_nothing(workspace: Workspace) -> None:
    root, child, _ = _tree(workspace)
    _pause(workspace, root)
    with workspace.unchanged():
        assert _resume(workspace, child).effective_paused


def test_a_pause_needs_a_reason(workspace: Workspace) -> None:
    task_id = workspace.task().id
    with workspace.unchanged():
        for body in ({}, {"reason": " "}, {"reason": None}):
            with refused(422, "force_op_requires_reason"):
                workspace.operator.post(f"/api/tasks/{task_id}/pause", **body)


def test_what_has_ended_is_not_paused(workspace: Workspace, agent: Agent) -> None:
    done, failed, gone = (workspace.task(max_attempts=1).id for _ in range(3))
    agent.work(done)
    agent.work(failed, "fail")
    workspace.cancel(gone)
    with workspace.unchanged():
        for task_id, status in ((done, "completed"), (failed, "failed"), (gone, "canceled")):
            with refused(409, "task_already_terminal", status=status):
                _pause(workspace, task_id)


def test_a_holder_goes_on_and_learns_of_the_pause(workspace: Workspace, agent: Agent) -> None:
    """Heartbeat, release and complete work; the released run waits, until the resume."""
    root, child, _ = _tree(workspace)
    held = {h.task_id: h for h in agent.claims(max_runs=3)}
    assert held[child].heartbeat().paused is False
    _pause(workspace, root)
    assert held[child].heartbeat().paused is True
    assert held[child].heartbeat(progress={"percent": 1}).paused is True
    held[root].release()
    held[child].complete()
    assert agent.claims() == []
    _resume(workspace, root)
    assert agent.claim().task_id == root


@pytest.mark.parametrize("end", ["fail", "expire"])
def test_the_next_attempt_of_paused_work_waits(
    workspace: Workspace, agent: Agent, world: World, end: str
) -> None:
    """P6: also once its back-off is over."""
    root, child, _ = _tree(workspace)
    held = {h.task_id: h for h in agent.claims(max_runs=3, lease_seconds=60)}[child]
    _pause(workspace, root)
    if end == "fail":
        held.fail()
    world.advance(61)
    workspace.sweep()
    world.advance(3600)
    world.promote()
    assert agent.claims() == []
    _resume(workspace, root)
    assert child in _claimable(agent)


def test_a_child_made_below_a_pause_is_paused(workspace: Workspace, agent: Agent) -> None:
    """P6: alone or in a graph; and it is queued with the resume (P7)."""
    root, child, _ = _tree(workspace)
    _pause(workspace, root)
    new = workspace.task(parent_task_id=child)
    assert (new.paused, new.paused_by_task_id, new.attempts_used) == (False, root, 0)
    items = [
        {"ref": "a", "title": "a", "parent_task_id": child},
        {"ref": "b", "title": "b", "parent_ref": "a"},
    ]
    ids = workspace.operator.post("/api/tasks/bulk", tasks=items).ids
    assert {workspace.get(task_id).paused_by_task_id for task_id in ids.values()} == {root}
    assert agent.claims() == []
    _resume(workspace, root)
    assert _claimable(agent) >= {new.id, *ids.values()}


def test_a_dependency_that_ends_below_a_pause_queues_nothing(
    workspace: Workspace, agent: Agent
) -> None:
    """P6; and P7 with the resume."""
    root = workspace.task(auto_enqueue_on_ready=False)
    first = workspace.task()
    late = workspace.task(parent_task_id=root.id, depends_on=[first.id])
    _pause(workspace, root.id)
    agent.work(first.id)
    assert (workspace.get(late.id).status, workspace.get(late.id).attempts_used) == ("ready", 0)
    assert agent.claims() == []
    _resume(workspace, root.id)
    assert agent.claim().task_id == late.id


@pytest.mark.parametrize("how", ["start", "runs", "approve", "publish"])
def test_a_run_queued_by_hand_waits_for_the_resume(
    workspace: Workspace, agent: Agent, how: str
) -> None:
    task = workspace.task(
        auto_enqueue_on_ready=False, draft=how == "publish",
        approval_policy="manual" if how == "approve" else "none",
    )  # fmt: skip
    _pause(workspace, task.id)
    run = workspace.operator.post(f"/api/tasks/{task.id}/{how}").run
    assert agent.claims() == []
    _resume(workspace, task.id)
    assert agent.claim().run_id == run.id


def test_a_patch_of_paused_work_makes_no_offer(workspace: Workspace, agent: Agent) -> None:
    task = workspace.task(auto_enqueue_on_ready=False)
    _pause(workspace, task.id)
    path = f"/api/tasks/{task.id}"
    workspace.operator.patch(path, auto_enqueue_on_ready=True, priority="urgent")
    assert (workspace.get(task.id).attempts_used, agent.claims()) == (0, [])
    _resume(workspace, task.id)
    assert agent.claim().task_id == task.id


def test_a_resume_wakes_a_waiting_claim(workspace: Workspace, agent: Agent) -> None:
    root, *_ = _tree(workspace)
    _pause(workspace, root)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(agent.claims, wait_seconds=20)
        workspace.world.until_waiting()
        _resume(workspace, root)
        assert len(waiting.result(timeout=10)) == 1


def test_an_agent_neither_pauses_nor_resumes(workspace: Workspace, agent: Agent) -> None:
    task = agent.post("/api/tasks", title="mine").task
    with workspace.unchanged():
        for how in ("pause", "resume"):
            with refused(403, "forbidden_operator_action", action=f"tasks.{how}_task"):
                agent.post(f"/api/tasks/{task.id}/{how}", reason="x")


def test_paused_work_is_not_claimed_by_hand(workspace: Workspace) -> None:
    """P6: and the refusal names every gate that is closed."""
    root, child, _ = _tree(workspace)
    run = workspace.operator.get(f"/api/tasks/{child}/runs").runs[0]
    path = f"/api/task-runs/{run.id}/claim"
    for task_id, code in ((root, "ancestor_paused"), (child, "task_paused")):
        _pause(workspace, task_id)
        with workspace.unchanged(), refused(409, "run_not_claimable", reasons=[code]):
            workspace.operator.post(path)
    workspace.operator.patch(f"/api/tasks/{child}", approval_policy="manual")
    reasons = ["awaiting_approval", "task_paused"]
    with workspace.unchanged(), refused(409, "run_not_claimable", reasons=reasons):
        workspace.operator.post(path)
