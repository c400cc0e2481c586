"""Canceling tasks with all below them, and single runs."""

from tests.factories import Agent, Workspace, refused


def test_a_canceled_task_takes_its_subtree_along(workspace: Workspace, agent: Agent) -> None:
    root = workspace.task("root")
    ids = {"root": root.id}
    for name, parent in (("kid", "root"), ("done", "root"), ("grandkid", "done"), ("held", "kid")):
        ids[name] = workspace.task(name, parent_task_id=ids[parent]).id
    agent.work(ids["done"])
    run = workspace.operator.get(f"/api/tasks/{ids['held']}/runs").runs[0]
    held = agent.claim(channel=run.coordination_channel_id)
    sequence = workspace.events()[-1].sequence
    assert workspace.cancel(root.id, reason="stop", metadata={"by": 1}).status == "canceled"
    assert workspace.statuses(ids) == dict.fromkeys(ids, "canceled") | {"done": "completed"}
    told = workspace.events(after_sequence=sequence, event_type="task.canceled")
    assert {e.task_id for e in told} == set(ids.values()) - {ids["done"]}
    assert {e.payload["propagated_from_task_id"] for e in told} == {None, root.id}
    [ended] = workspace.events(run_id=held.run_id, event_type="task.run_canceled")
    assert (ended.payload["previous_status"], ended.payload["session_id"]) == (
        "claimed", agent.session,
    )  # fmt: skip
    assert (ended.payload["reason"], ended.payload["metadata"]) == ("stop", {"by": 1})
    with refused(409, "run_canceled", reason="stop"):
        held.heartbeat()
    assert agent.claims() == []


def test_canceling_again_changes_nothing(workspace: Workspace) -> None:
    task = workspace.task()
    first = workspace.cancel(task.id)
    with workspace.unchanged():
        assert workspace.cancel(task.id) == first


def test_an_ended_task_is_not_canceled(workspace: Workspace, agent: Agent) -> None:
    for end, status in (("complete", "completed"), ("fail", "failed")):
        task = workspace.task(max_attempts=1)
        agent.work(task.id, end)
        with workspace.unchanged(), refused(409, "task_already_terminal", status=status):
            workspace.cancel(task.id)


def test_a_canceled_task_forgets_its_checkpoint(workspace: Workspace, agent: Agent) -> None:
    task = workspace.task()
    agent.claim().heartbeat(checkpoint={"page": 1})
    assert workspace.get(task.id).checkpoint == {"page": 1}
    assert workspace.cancel(task.id).checkpoint is None


def test_a_canceled_run_leaves_its_task_ready(workspace: Workspace, agent: Agent) -> None:
    task = workspace.task()
    held = agent.claim()
    ended = workspace.operator.post(f"/api/task-runs/{held.run_id}/cancel", reason="no").run
    assert (ended.status, ended.session_id) == ("canceled", agent.session)
    after = workspace.get(task.id)
    assert (after.status, after.current_run_id, after.closed_at) == ("ready", None, None)
    assert agent.claims() == []
    with workspace.unchanged(), refused(409, "task_run_already_terminal", run_status="canceled"):
        workspace.operator.post(f"/api/task-runs/{held.run_id}/cancel")
    workspace.operator.post(f"/api/tasks/{task.id}/start")
    assert agent.claim().claim.run.attempt == 2


def test_a_queued_run_can_be_canceled(workspace: Workspace, agent: Agent) -> None:
    task = workspace.task()
    run = workspace.operator.get(f"/api/tasks/{task.id}/runs").runs[0]
    workspace.operator.post(f"/api/task-runs/{run.id}/cancel")
    assert agent.claims() == []
    assert workspace.operator.get(f"/api/tasks/{task.id}/runs").runs[0].status == "canceled"


def test_a_run_in_needs_attention_can_be_canceled(workspace: Workspace, agent: Agent) -> None:
    task = workspace.task(max_lease_expiries=1)
    held = agent.claim(lease_seconds=60)
    workspace.world.advance(61)
    workspace.sweep()
    assert workspace.get(task.id).status == "blocked"
    workspace.operator.post(f"/api/task-runs/{held.run_id}/cancel")
    assert workspace.get(task.id).status == "ready"


def test_a_run_that_was_given_back_and_canceled_says_why_it_was_canceled(
    workspace: Workspace, agent: Agent
) -> None:
    workspace.task()
    held = agent.claim()
    held.release(reason="no tools")
    workspace.operator.post(f"/api/task-runs/{held.run_id}/cancel", reason="not wanted")
    with refused(409, "run_canceled", reason="not wanted"):
        held.heartbeat()


def test_what_a_failed_dependency_cancels_takes_the_queued_runs_below_along(
    workspace: Workspace, agent: Agent
) -> None:
    top = workspace.task(on_dependency_failure="cancel")
    [run] = workspace.operator.get(f"/api/tasks/{top.id}/runs").runs
    workspace.operator.post(f"/api/task-runs/{run.id}/cancel")
    awaited = workspace.task()
    workspace.depend(top.id, awaited.id)
    below = workspace.task(parent_task_id=top.id)
    agent.work(awaited.id, "fail", retryable=False)
    assert workspace.get(below.id).status == "canceled"
    assert workspace.faults() == {}
    assert agent.claims() == []
