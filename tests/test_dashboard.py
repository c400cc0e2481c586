"""The dashboard: counts, cards, queue, health and freshness, at one instant."""

from secrets import token_hex
from typing import Any

from tests.factories import Agent, Workspace
from tests.world import World


def shown(workspace: Workspace, **query: Any) -> Any:
    """The dashboard, from the log alone and then from the digests: it must be the same."""
    told = workspace.operator.get("/api/observe/tasks/dashboard", **query).dashboard
    workspace.world.keep_digests()
    again = workspace.operator.get("/api/observe/tasks/dashboard", **query).dashboard
    for part in ("totals", "cards", "status_breakdown", "health"):
        assert getattr(told, part) == getattr(again, part)
    assert told.queue.total == again.queue.total
    return again


def test_an_empty_workspace_has_an_empty_dashboard(world: World) -> None:
    made = world.admin.post("/api/workspaces", name=f"w-{token_hex(8)}").workspace
    path = "/api/observe/tasks/dashboard"
    board = world.admin.get(path, workspace=made.id).dashboard
    assert board.totals.tasks_total == board.totals.runs_total == board.queue.total == 0
    assert board.status_breakdown == board.queue.depth == board.active_runs.items == []
    assert (board.freshness.status, board.freshness.latest_activity_at) == ("empty", None)
    assert board.cards.latency.claim_latency_ms.average_ms == 0


def test_tasks_and_runs_are_counted_by_status(workspace: Workspace, agent: Agent) -> None:
    workspace.task(draft=True)
    waited_for = workspace.task()
    workspace.task(depends_on=[waited_for.id])
    workspace.task(approval_policy="manual")
    workspace.cancel(workspace.task().id)
    agent.claim().complete()
    workspace.task(max_attempts=1)
    agent.claim().fail(error="no", retryable=False)
    totals = shown(workspace).totals
    assert totals.tasks_total == 6
    assert (totals.draft_tasks, totals.canceled_tasks, totals.failed_tasks) == (1, 1, 1)
    assert (totals.completed_tasks, totals.ready_tasks, totals.blocked_tasks) == (1, 1, 1)
    assert (totals.awaiting_approval_tasks, totals.dependency_blocked_tasks) == (1, 0)
    assert (totals.completed_runs, totals.failed_runs, totals.canceled_runs) == (1, 1, 1)
    assert (totals.queued_runs, totals.active_runs, totals.runs_total) == (1, 1, 4)
