"""The dashboard: counts, cards, queue, health and freshness, at one instant."""

from secrets import token_hex
from typing import Any

from tests.factories import Agent, Workspace
from tests.world import World

DAY = 86400


def shown(workspace: Workspace, **query: Any) -> Any:
    """The dashboard, from the log alone and then from the digests: it must be the same."""
    told = workspace.operator.get("/api/observe/tasks/dashboard", **query).dashboard
    workspace.world.keep_digests()
    again = workspace.operator.get("/api/observe/tasks/dashboard", **query).dashboard
    for part in ("totals", "cards", "status_breakdown", "health"):
        assert getattr(told, part) == getattr(again, part)
    assert told.queue.total == again.queue.total
    assert told.queue.oldest_queued_at == again.queue.oldest_queued_at
    assert told.freshness.latest_activity_at == again.freshness.latest_activity_at
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


def test_a_workspace_sees_its_own_numbers_only(workspace: Workspace) -> None:
    """P12."""
    workspace.task()
    assert shown(workspace.world.workspace()).totals.tasks_total == 0


def test_the_cards_repeat_the_totals_and_warn(workspace: Workspace, agent: Agent) -> None:
    cards = shown(workspace).cards
    assert {cards.in_progress.health_status, cards.blocked.health_status} == {"ok"}
    assert cards.failed.health_status == "ok"
    workspace.task(approval_policy="manual")
    agent.work(workspace.task(max_attempts=1).id, "fail")
    cards = shown(workspace).cards
    assert (cards.blocked.tasks, cards.blocked.awaiting_approval) == (1, 1)
    assert (cards.failed.tasks, cards.failed.failed_runs, cards.failed.forced_stops) == (1, 1, 0)
    assert {cards.blocked.health_status, cards.failed.health_status} == {"warn"}


def test_forced_stops_are_those_of_the_last_day(workspace: Workspace) -> None:
    workspace.task(max_attempts=1)
    run = workspace.operator.get("/api/task-runs").runs[0]
    workspace.operator.post(f"/api/runs/{run.id}/fail", reason="enough")
    assert shown(workspace).cards.failed.forced_stops == 1
    workspace.world.advance(DAY + 1)
    assert shown(workspace).cards.failed.forced_stops == 0


def test_latencies_are_those_of_the_last_day(workspace: Workspace, agent: Agent) -> None:
    workspace.task()
    workspace.task()
    held = agent.claim()
    workspace.world.advance(10)
    agent.claim(lease_seconds=86400)
    held.heartbeat(lease_seconds=86400)
    latency = shown(workspace).cards.latency
    assert latency.claim_latency_ms.samples == 2
    assert 10_000 <= latency.claim_latency_ms.maximum_ms < 20_000
    assert 5_000 <= latency.claim_latency_ms.average_ms < 10_000
    assert latency.start_latency_ms.samples == 1
    assert latency.start_latency_ms.average_ms == latency.start_latency_ms.maximum_ms >= 10_000
    workspace.world.advance(DAY)
    assert shown(workspace).cards.latency.claim_latency_ms.samples == 0


def test_a_claim_that_was_given_back_is_no_sample(workspace: Workspace, agent: Agent) -> None:
    workspace.task()
    agent.claim().release()
    assert shown(workspace).cards.latency.claim_latency_ms.samples == 0


def test_shares_are_whole_percents_that_sum_to_a_hundred(workspace: Workspace) -> None:
    for _ in range(3):
        workspace.task()
    for _ in range(2):
        workspace.task(draft=True)
    workspace.cancel(workspace.task().id)
    told = [(s.status, s.count, s.share_percent) for s in shown(workspace).status_breakdown]
    assert told == [("ready", 3, 50), ("canceled", 1, 17), ("draft", 2, 33)]


def test_the_queue_is_told_by_channel(workspace: Workspace, agent: Agent) -> None:
    workspace.task(network_channel="b")
    workspace.task(network_channel="a")
    workspace.world.advance(5)
    workspace.task()
    paused = workspace.task(network_channel="c")
    workspace.operator.post(f"/api/tasks/{paused.id}/pause", reason="wait")
    queue = shown(workspace).queue
    assert [(d.network_channel, d.count) for d in queue.depth] == [(None, 1), ("a", 1), ("b", 1)]
    assert queue.total == 3
    assert queue.oldest_queued_at == queue.depth[2].oldest_queued_at
    assert 5_000 <= queue.oldest_queue_age_ms < 20_000
    workspace.operator.post("/api/scheduler/pause", reason="stop")
    assert shown(workspace).queue.depth == []


def test_a_delayed_run_is_in_the_queue_when_its_time_has_come(
    workspace: Workspace, agent: Agent
) -> None:
    """Promoted or not."""
    workspace.task()
    agent.claim().release(delay_seconds=60)
    assert shown(workspace).queue.total == 0
    workspace.world.advance(61)
    assert shown(workspace).queue.total == 1
    workspace.world.promote()
    assert shown(workspace).queue.total == 1


def test_only_as_many_of_a_key_are_in_the_queue_as_have_slots(workspace: Workspace) -> None:
    for _ in range(3):
        workspace.task(concurrency_key="gpu", concurrency_limit=2)
    assert shown(workspace).queue.total == 2
    assert shown(workspace).totals.queued_runs == 3


def test_an_old_queue_is_a_backlog(world: World) -> None:
    workspace = world.workspace(backlog_threshold_seconds=10)
    workspace.task()
    assert not shown(workspace).queue.backlog_warning
    world.advance(11)
    board = shown(workspace)
    assert (board.queue.backlog_warning, board.queue.backlog_status) == (True, "warn")
    assert board.queue.backlog_threshold_ms == 10_000
    assert (board.health.queue_backlog, board.health.status) == (True, "warn")


def test_a_run_with_a_slot_makes_the_queue_as_old_as_any(world: World) -> None:
    """Those that wait for a slot do not."""
    workspace = world.workspace(backlog_threshold_seconds=10)
    first, second = (workspace.task(concurrency_key="gpu") for _ in range(2))
    run = workspace.operator.get(f"/api/tasks/{first.id}/runs").runs[0]
    world.advance(11)
    queue = shown(workspace).queue
    assert [(d.count, d.oldest_queued_at) for d in queue.depth] == [(1, run.available_at)]
    assert (queue.oldest_queued_at, queue.backlog_warning) == (run.available_at, True)
    workspace.agent().claim(lease_seconds=3600)
    assert shown(workspace).queue.depth == []
    assert workspace.operator.get(f"/api/tasks/{second.id}").task.task.status == "ready"


def test_a_run_that_missed_a_heartbeat_is_stuck(workspace: Workspace, agent: Agent) -> None:
    workspace.task()
    held = agent.claim(lease_seconds=60)
    workspace.world.advance(31)
    board = shown(workspace)
    assert (board.health.stuck_runs, board.health.status) == (1, "warn")
    assert [(i.stuck, i.health_status) for i in board.active_runs.items] == [(True, "warn")]
    assert board.cards.in_progress.health_status == "warn"
    held.heartbeat()
    assert shown(workspace).health.stuck_runs == 0


def test_a_run_whose_session_is_gone_is_an_orphan(workspace: Workspace, agent: Agent) -> None:
    workspace.task()
    agent.claim(lease_seconds=3600)
    assert shown(workspace).health.active_orphan_runs == 0
    workspace.world.advance(301)
    assert shown(workspace).health.active_orphan_runs == 1


def test_the_first_active_runs_are_shown_those_at_work_first(
    workspace: Workspace, agent: Agent
) -> None:
    tasks = [workspace.task(str(n), identifier=f"T-{n}").id for n in range(6)]
    held = [agent.claim() for _ in range(3)]
    held[0].heartbeat()
    board = shown(workspace)
    told = [(i.run_status, i.task_title) for i in board.active_runs.items]
    assert told == [("running", "0"), ("claimed", "2"), ("claimed", "1"), ("queued", "5")]
    [first, *_] = board.active_runs.items
    assert (first.task_id, first.task_identifier) == (tasks[0], "T-0")
    assert (first.session_id, first.attempt, first.workspace_id) == (agent.session, 1, workspace.id)
    assert first.latest_event_seq == workspace.events(task_id=tasks[0])[-1].sequence
    assert board.active_runs.total == board.totals.active_runs == 6
    assert (board.active_runs.running, board.active_runs.claimed) == (1, 2)


def test_live_work_without_news_is_stale(world: World) -> None:
    workspace = world.workspace(stale_after_seconds=60)
    workspace.task()
    fresh = shown(workspace).freshness
    assert (fresh.status, fresh.has_live_work, fresh.stale) == ("current", True, False)
    assert fresh.latest_activity_at == workspace.events()[-1].timestamp
    world.advance(61)
    fresh = shown(workspace).freshness
    assert (fresh.status, fresh.stale, fresh.stale_after_ms) == ("stale", True, 60_000)
    assert 61_000 <= fresh.age_ms < 100_000
    workspace.cancel(workspace.operator.get("/api/tasks").tasks[0].id)
    world.advance(61)
    assert shown(workspace).freshness.status == "current"


def test_a_dashboard_is_narrowed_by_what_its_tasks_are(workspace: Workspace, agent: Agent) -> None:
    owner = {"kind": "human", "ref": "ann"}
    hers = workspace.task(owner=owner, network_channel="x")
    workspace.task(scope="global")
    agent.post("/api/tasks", title="an agent's", auto_enqueue_on_ready=True)
    for query, wanted in (
        ({"scope": "global"}, 1), ({"scope": "workspace"}, 2), ({"owner_kind": "human"}, 1),
        ({"owner_ref": "bob"}, 0), ({"network_channel": "x"}, 1), ({"origin_kind": "http"}, 3),
        ({"owner_ref": "ann", "network_channel": "x"}, 1),
    ):  # fmt: skip
        board = shown(workspace, **query)
        assert board.totals.tasks_total == board.totals.queued_runs == wanted, query
        assert board.queue.total == len(board.active_runs.items) == wanted
    assert shown(workspace, owner_ref="ann").active_runs.items[0].task_id == hers.id


def test_what_is_deleted_is_not_counted(workspace: Workspace) -> None:
    kept, gone = workspace.task(draft=True), workspace.task(draft=True)
    assert shown(workspace).totals.tasks_total == 2
    workspace.operator.delete(f"/api/tasks/{gone.id}")
    assert shown(workspace).totals.draft_tasks == 1
    workspace.operator.delete(f"/api/tasks/{kept.id}")
    assert shown(workspace).status_breakdown == []


def test_the_freshness_of_a_part_is_its_own(workspace: Workspace) -> None:
    old = workspace.task(owner={"kind": "human", "ref": "ann"})
    workspace.world.advance(5)
    workspace.task()
    fresh = shown(workspace, owner_ref="ann").freshness
    assert fresh.latest_activity_at == workspace.events(task_id=old.id)[-1].timestamp
    assert shown(workspace, owner_ref="bob").freshness.status == "empty"
