"""Runs: queued by hand, looked at, listed."""

from typing import Any

from tests.factories import Agent, Workspace, refused


def _start(workspace: Workspace, task_id: str, **body: Any) -> Any:
    return workspace.operator.post(f"/api/tasks/{task_id}/start", **body)


def test_start_queues_a_run_with_what_it_was_given(workspace: Workspace, agent: Agent) -> None:
    task = workspace.task(auto_enqueue_on_ready=False, network_channel="blue")
    told = _start(workspace, task.id, network_channel="red", metadata={"workflow_id": "w"})
    assert (told.task.id, told.run.status, told.run.network_channel) == (task.id, "queued", "red")
    claim = agent.claim(channel="red").claim
    assert (claim.run.metadata, claim.coordination_channel.workflow_id) == (
        {"workflow_id": "w"},
        "w",
    )
    assert claim.coordination_channel.id == "red"
    assert claim.run.coordination_channel == claim.coordination_channel


def test_each_start_makes_a_new_run_when_none_is_open(workspace: Workspace, agent: Agent) -> None:
    task = workspace.task(max_attempts=2)
    run = workspace.operator.get(f"/api/tasks/{task.id}/runs").runs[0]
    with workspace.unchanged(), refused(409, "open_run_exists", run_id=run.id, run_status="queued"):
        _start(workspace, task.id)
    agent.work(task.id, result=1)
    closed = workspace.get(task.id)
    assert (closed.status, closed.result) == ("completed", 1)
    again = _start(workspace, task.id)
    assert (again.task.status, again.task.closed_at, again.task.result) == ("ready", None, None)
    agent.work(task.id)
    exhausted = {"attempts_used": 2, "max_attempts": 2}
    with workspace.unchanged(), refused(409, "attempts_exhausted", **exhausted):
        _start(workspace, task.id)


def test_start_wants_an_open_gate_and_runs_does_not(workspace: Workspace, agent: Agent) -> None:
    """P6: a run queued behind a gate waits for it."""
    ids = workspace.graph({"a": [], "b": ["a"]}, auto_enqueue_on_ready=False)
    with workspace.unchanged(), refused(409, "task_blocked", reasons=["awaiting_dependencies"]):
        _start(workspace, ids["b"])
    run = workspace.operator.post(f"/api/tasks/{ids['b']}/runs", metadata={"n": 1}).run
    assert (run.status, workspace.get(ids["b"]).status) == ("queued", "blocked")
    assert agent.claims() == []
    _start(workspace, ids["a"])
    agent.work(ids["a"])
    assert agent.claim().run_id == run.id


def test_a_canceled_task_starts_no_more(workspace: Workspace) -> None:
    task = workspace.task()
    closed = workspace.cancel(task.id).closed_at
    for path in ("start", "runs"):
        with workspace.unchanged(), refused(409, "task_canceled", closed_at=closed):
            workspace.operator.post(f"/api/tasks/{task.id}/{path}")


def test_the_first_heartbeat_makes_a_run_running(workspace: Workspace, agent: Agent) -> None:
    workspace.task()
    held = agent.claim()
    told = held.heartbeat()
    assert (told.cancel_requested, told.stop_reason, told.paused) == (False, None, False)
    run = workspace.run(held.run_id)
    assert run.status == "running"
    with workspace.unchanged("lease"):
        held.heartbeat()
    held.heartbeat(progress={"percent": 50, "message": "half"}, usage={"input_tokens": 3})
    with workspace.unchanged("lease", "run_body"):
        held.heartbeat(progress={"percent": 50, "message": "half"}, usage={"input_tokens": 3})
    after = workspace.run(held.run_id)
    assert (after.started_at, after.progress.percent, after.usage.input_tokens) == (
        run.started_at, 50, 3,
    )  # fmt: skip
    assert workspace.told(run_id=held.run_id)[-2:] == ["task.run_started", "task.run_progress"]


def test_usage_is_the_greatest_report_of_each_lease(workspace: Workspace, agent: Agent) -> None:
    task = workspace.task()
    held = agent.claim()
    held.heartbeat(usage={"input_tokens": 10, "total_cost": 0.5, "cost_currency": "EUR"})
    held.heartbeat(usage={"input_tokens": 7, "output_tokens": 1})
    held.release(usage={"input_tokens": 11})
    again = agent.claim()
    with refused(422, "currency_mismatch", expected="EUR"):
        again.heartbeat(usage={"total_cost": 1, "cost_currency": "USD"})
    again.complete(usage={"input_tokens": 100, "total_cost": 0.25, "cost_currency": "EUR"})
    usage = workspace.run(held.run_id).usage
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (111, 1, 112)
    assert (usage.total_cost, usage.cost_currency) == (0.75, "EUR")
    assert workspace.get(task.id).usage == usage


def test_a_run_is_shown_with_what_surrounds_it(workspace: Workspace, agent: Agent) -> None:
    task = workspace.task()
    held = agent.claim(channel=None, capabilities=["b", "a"])
    held.heartbeat(usage={"tool_calls": 2, "turns": 1})
    detail = workspace.operator.get(f"/api/task-runs/{held.run_id}").run
    assert (detail.task.id, detail.session.session_id) == (task.id, agent.session)
    assert (detail.session.agent_name, detail.session.state) == ("worker", "active")
    assert (detail.summary.tool_call_count, detail.summary.turn_count) == (2, 1)
    assert detail.summary.last_event_type == "task.run_progress"
    held.release()
    assert workspace.operator.get(f"/api/task-runs/{held.run_id}").run.session is None


def test_runs_are_listed_newest_first(workspace: Workspace, agent: Agent) -> None:
    task = workspace.task(max_attempts=4, retry={"strategy": "none"})
    runs = [agent.work(task.id, "fail").run_id for _ in range(3)]
    path = f"/api/tasks/{task.id}/runs"
    told = workspace.operator.get(path, status="failed").runs
    assert [run.id for run in told] == runs[::-1]
    first = workspace.operator.get(path, limit=2)
    rest = workspace.operator.get(path, limit=2, cursor=first.next_cursor)
    assert [run.attempt for run in (*first.runs, *rest.runs)] == [4, 3, 2, 1]
    assert workspace.operator.get(path, session_id=agent.session, limit=500).next_cursor is None
    with refused(404, "task_not_found", id="nobody"):
        workspace.operator.get("/api/tasks/nobody/runs")


def test_long_values_are_cut_in_lists_and_whole_by_id(workspace: Workspace, agent: Agent) -> None:
    task = workspace.task()
    held = agent.claim()
    held.complete(result="x" * 9000)
    [run] = workspace.operator.get(f"/api/tasks/{task.id}/runs").runs
    assert (run.result, run.result_bytes) == (None, 9002)
    detail = workspace.operator.get(f"/api/tasks/{task.id}").task
    assert (detail.task.result, detail.task.result_bytes) == (None, 9002)
    assert [r.result for r in detail.runs] == [None]
    assert len(workspace.run(held.run_id).result) == 9000
