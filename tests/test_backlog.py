"""The backlog: every queued run in the order in which claims take them, paged."""

from typing import Any

import msgspec
import pytest

from tests.client import Client
from tests.factories import Workspace
from tests.world import World

FUTURE = "2999-01-01T00:00:00Z"


def _ids(by: Client, **query: Any) -> list[str]:
    runs = by.get("/api/scheduler/backlog", **query).backlog.runs
    assert [item.run.task_id for item in runs] == [item.task.id for item in runs]
    return [item.run.id for item in runs]


def _pages(by: Client, **query: Any) -> list[str]:
    ids: list[str] = []
    cursor = None
    while True:
        told = by.get("/api/scheduler/backlog", limit=3, cursor=cursor, **query)
        ids += [item.run.id for item in told.backlog.runs]
        cursor = told.next_cursor
        if cursor is None:
            assert told.backlog.total == len(ids)
            return ids


def test_the_backlog_is_in_the_order_of_claims(world: World, workspace: Workspace) -> None:
    """P11: over lanes and priorities, page by page."""
    for n in range(4):
        for priority in ("low", "urgent", "high", "medium"):
            workspace.task(priority=priority, network_channel=["blue", None][n % 2])
        world.advance(700)
    backlog = _pages(workspace.operator)
    assert backlog == _ids(workspace.operator, limit=500)
    agent = workspace.agent()
    assert [agent.claim().run_id for _ in backlog] == backlog
    assert _pages(workspace.operator) == []


def test_runs_that_wait_for_their_time_or_a_gate_stand_at_their_place(
    workspace: Workspace,
) -> None:
    later = workspace.task(available_at=FUTURE)
    now = workspace.task()
    asked = workspace.task(approval_policy="manual")
    workspace.operator.post(f"/api/tasks/{asked.id}/runs")
    waiting = workspace.task()
    workspace.depend(waiting.id, now.id)
    told = workspace.operator.get("/api/scheduler/backlog").backlog
    wanted = [now.id, asked.id, waiting.id, later.id]
    assert sorted(item.task.id for item in told.runs) == sorted(wanted)
    assert (told.runs[-1].task.id, told.total) == (later.id, 4)
    assert [item.task.status for item in told.runs].count("blocked") == 2


def test_a_run_with_a_concurrency_key_is_told_once(workspace: Workspace) -> None:
    """Whether it has a slot or waits for one."""
    ids = [workspace.task(concurrency_key="k").id for _ in range(3)]
    told = workspace.operator.get("/api/scheduler/backlog").backlog
    assert ([item.task.id for item in told.runs], told.total) == (ids, 3)
    assert workspace.operator.get("/api/scheduler").scheduler.queued_run_count == 3


def test_paused_runs_are_told_only_if_asked_for(workspace: Workspace) -> None:
    root = workspace.task()
    workspace.task(parent_task_id=root.id)
    free = workspace.task()
    workspace.operator.post(f"/api/tasks/{root.id}/pause", reason="x")
    told = workspace.operator.get("/api/scheduler/backlog").backlog
    assert ([item.task.id for item in told.runs], told.total) == ([free.id], 1)
    told = workspace.operator.get("/api/scheduler/backlog", include_paused=True).backlog
    assert (len(told.runs), told.total) == (3, 3)


def test_a_paused_scheduler_changes_nothing_in_the_backlog(workspace: Workspace) -> None:
    workspace.task()
    before = _ids(workspace.operator)
    workspace.operator.post("/api/scheduler/pause")
    assert _ids(workspace.operator) == before != []


def test_the_backlog_of_all_workspaces_is_one_queue(lonely: World) -> None:
    one, two = lonely.workspace(), lonely.workspace()
    for _ in range(3):
        for each in (one, two):
            each.task()
    backlog = _pages(lonely.admin, workspace="*")
    assert sorted(backlog) == sorted(_ids(one.operator) + _ids(two.operator))
    assert backlog[::2] == _ids(one.operator)


def test_a_run_in_the_backlog_is_told_as_it_is_elsewhere(workspace: Workspace) -> None:
    task = workspace.task()
    told = workspace.operator.get("/api/scheduler/backlog").backlog.runs[0]
    whole = workspace.run(told.run.id)
    assert msgspec.to_builtins(told.run) == msgspec.to_builtins(whole)
    assert told.task.title == task.title


@pytest.mark.parametrize("role", ["viewer", "agent"])
def test_whoever_may_read_sees_the_backlog(workspace: Workspace, role: str) -> None:
    workspace.task()
    client = workspace.agent() if role == "agent" else workspace.client(role)
    assert len(_ids(client)) == 1
