"""The stream of a session: its holder learns at once what a heartbeat would tell it later."""

import pytest

from server.contract.streams import Paused
from tests.factories import Agent, Held, Workspace, refused
from tests.streams import Frame, subscribed

PATH = "/api/agent/stream"


def _told(frame: Frame | None) -> Frame:
    assert frame is not None
    return frame


def _gone(held: Held, frame: Frame | None) -> tuple[str, str | None]:
    """Code and reason of a lease that is said to be gone."""
    event, number, data = _told(frame)
    assert (event, number is not None) == ("run_canceled", True)
    assert (data.run_id, data.task_id, data.fence) == (held.run_id, held.task_id, held.fence)
    return data.code, data.reason


def test_a_session_is_told_first_what_it_holds(workspace: Workspace, agent: Agent) -> None:
    workspace.task()
    held = agent.claim()
    with subscribed(agent, PATH) as stream:
        ready = _told(stream.next()).data
    assert ready.session_id == agent.session
    assert [(x.run_id, x.fence) for x in ready.leases] == [(held.run_id, held.fence)]
    assert ready.leases[0].lease_until == held.claim.lease.lease_until
    assert (ready.sequence, ready.scheduler_paused) == (workspace.events()[-1].sequence, False)


def test_the_holder_of_a_canceled_run_learns_it_at_once(workspace: Workspace, agent: Agent) -> None:
    workspace.task()
    held = agent.claim()
    with subscribed(agent, PATH) as stream:
        stream.until("ready")
        workspace.operator.post(f"/api/task-runs/{held.run_id}/cancel", reason="not needed")
        assert _gone(held, stream.next()) == ("run_canceled", "not needed")


def test_the_holder_learns_that_a_task_above_was_canceled(
    workspace: Workspace, agent: Agent
) -> None:
    root = workspace.task(auto_enqueue_on_ready=False)
    workspace.task(parent_task_id=root.id)
    held = agent.claim()
    with subscribed(agent, PATH) as stream:
        stream.until("ready")
        workspace.cancel(root.id)
        assert _gone(held, stream.next())[0] == "run_canceled"


def test_the_holder_learns_that_its_lease_expired(workspace: Workspace, agent: Agent) -> None:
    workspace.task()
    held = agent.claim(lease_seconds=60)
    with subscribed(agent, PATH) as stream:
        stream.until("ready")
        workspace.world.advance(61)
        workspace.sweep()
        assert _gone(held, stream.next())[0] == "lease_expired"


def test_the_holder_learns_that_its_deadline_passed(workspace: Workspace, agent: Agent) -> None:
    workspace.task(deadline_seconds=30)
    held = agent.claim(lease_seconds=60)
    with subscribed(agent, PATH) as stream:
        stream.until("ready")
        workspace.world.advance(31)
        workspace.sweep()
        assert _gone(held, stream.next())[0] == "task_run_already_terminal"


@pytest.mark.parametrize("end", ["complete", "fail", "release"])
def test_a_session_is_not_told_what_it_did_itself(
    workspace: Workspace, agent: Agent, end: str
) -> None:
    mine, other = workspace.task(), workspace.task()
    theirs = workspace.agent("other")
    with subscribed(agent, PATH, after_sequence=0) as stream:
        stream.until("ready")
        agent.work(mine.id, end)
        theirs.work(other.id, end)
        workspace.cancel(workspace.task().id)
        run = workspace.operator.get(f"/api/tasks/{workspace.task().id}/runs").runs[0]
        held = agent.claim(channel=run.coordination_channel_id)
        workspace.cancel(held.task_id)
        assert _gone(held, stream.next())[0] == "run_canceled"


def test_a_session_that_comes_back_is_told_what_happened_meanwhile(
    workspace: Workspace, agent: Agent
) -> None:
    """P9: from the last sequence it saw."""
    workspace.task()
    held = agent.claim()
    seen = workspace.events()[-1].sequence
    workspace.cancel(held.task_id)
    with subscribed(agent.also(Last_Event_ID=str(seen)), PATH) as stream:
        assert _gone(held, stream.next())[0] == "run_canceled"
        assert _told(stream.next()).data.leases == []
    with subscribed(agent, PATH) as stream:
        assert stream.until("ready") == []


def test_the_holder_learns_that_its_task_is_paused_and_goes_on(
    workspace: Workspace, agent: Agent
) -> None:
    root = workspace.task(auto_enqueue_on_ready=False)
    task = workspace.task(parent_task_id=root.id)
    run_id = agent.claim().run_id
    other = workspace.task()
    with subscribed(agent, PATH) as stream:
        stream.until("ready")
        workspace.operator.post(f"/api/tasks/{other.id}/pause", reason="not its own")
        workspace.operator.post(f"/api/tasks/{root.id}/pause", reason="wait")
        paused = _told(stream.next())
        workspace.operator.post(f"/api/tasks/{root.id}/resume")
        resumed = _told(stream.next())
    assert (paused.event, resumed.event) == ("paused", "paused")
    assert paused.data == Paused(
        task_id=task.id, run_id=run_id, paused=True, paused_by_task_id=root.id, scope="task"
    )
    assert (resumed.data.paused, resumed.data.paused_by_task_id) == (False, None)


@pytest.mark.parametrize("forced_by_name", [False, True])
@pytest.mark.parametrize(
    ("force", "code"), [("release", "lease_revoked"), ("fail", "task_run_already_terminal")]
)
def test_the_holder_learns_that_an_operator_took_its_run(
    workspace: Workspace, agent: Agent, force: str, code: str, forced_by_name: bool
) -> None:
    workspace.task()
    held = agent.claim()
    operator = workspace.operator
    if forced_by_name:
        operator = operator.also(X_Agent_Name="worker")
    with subscribed(agent, PATH) as stream:
        stream.until("ready")
        operator.post(f"/api/runs/{held.run_id}/{force}", reason="wrong input")
        assert _gone(held, stream.next()) == (code, "wrong input")


def test_the_holder_learns_that_an_operator_ended_its_run_as_another_agent(
    workspace: Workspace, agent: Agent
) -> None:
    by_hand, as_bob = workspace.operator, workspace.client("operator", X_Agent_Name="bob")
    with subscribed(agent, PATH) as stream:
        stream.until("ready")
        for ends in (agent, as_bob):
            run_id = by_hand.get(f"/api/tasks/{workspace.task().id}/runs").runs[0].id
            by_hand.post(f"/api/task-runs/{run_id}/claim")
            session = {"session_id": agent.session, "agent_name": "worker"}
            by_hand.post(f"/api/task-runs/{run_id}/attach-session", **session)
            ends.post(f"/api/task-runs/{run_id}/complete")
        event, _, data = _told(stream.next())
    assert (event, data.run_id, data.code) == ("run_canceled", run_id, "task_run_already_terminal")


def test_a_session_may_have_several_streams(workspace: Workspace, agent: Agent) -> None:
    workspace.task()
    held = agent.claim()
    with subscribed(agent, PATH) as one, subscribed(agent, PATH) as two:
        one.until("ready")
        two.until("ready")
        workspace.cancel(held.task_id)
        told = one.next()
        assert _gone(held, told)[0] == "run_canceled"
        assert two.next() == told


def test_a_stream_makes_its_session_and_leaves_what_it_asked_for(
    workspace: Workspace, agent: Agent
) -> None:
    workspace.task()
    run = agent.claim(capabilities=["gpu"]).run_id
    for caller in (agent, workspace.agent("new")):
        with subscribed(caller, PATH) as stream:
            assert _told(stream.next()).data.session_id == caller.session
    rows = workspace.snapshot()["agent_session"]
    assert sorted((row["agent_name"], row["capabilities"]) for row in rows) == [
        ("new", []), ("worker", ["gpu"]),
    ]  # fmt: skip
    assert workspace.run(run).status == "claimed"


def test_a_session_stream_needs_a_session_of_the_callers_own(
    workspace: Workspace, agent: Agent
) -> None:
    with subscribed(agent, PATH):
        pass
    with refused(401, "identity_required", header="X-Session-ID"):
        workspace.client("agent", X_Agent_Name="worker").get(PATH)
    thief = workspace.agent("thief").also(X_Session_ID=agent.session)
    with refused(403, "identity_mismatch", session_id=agent.session), subscribed(thief, PATH):
        pass
