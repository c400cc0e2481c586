"""Claims by hand: a lease like any other, on the run that somebody chose."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.client import RefusedError
from tests.factories import Agent, Held, Workspace, refused, seconds
from tests.world import World

DAY = 86400


def _queued(workspace: Workspace, task_id: str) -> str:
    run_id: str = workspace.operator.get(f"/api/tasks/{task_id}/runs").runs[0].id
    return run_id


def _claim(workspace: Workspace, run_id: str, key: str | None = None, **body: Any) -> Any:
    return workspace.operator.post(f"/api/task-runs/{run_id}/claim", key, **body)


def _attach(workspace: Workspace, run_id: str, **body: Any) -> Any:
    return workspace.operator.post(f"/api/task-runs/{run_id}/attach-session", **body)


def test_a_claim_by_hand_is_a_lease_of_a_day(workspace: Workspace) -> None:
    """P3: with a fence and a token of its own."""
    task = workspace.task()
    run_id = _queued(workspace, task.id)
    told = _claim(workspace, run_id)
    run, lease = told.run, told.lease
    assert (run.id, run.status, run.claim_kind, run.claim_count) == (run_id, "claimed", "manual", 1)
    assert (run.session_id, run.agent_name, run.claimed_by.kind) == (None, None, "human")
    assert (lease.fence, lease.lease_seconds, lease.session_id) == (1, DAY, None)
    assert seconds(lease.lease_until, run.claimed_at) == DAY
    assert lease.claim_token.startswith("wlt_1_")
    assert workspace.get(task.id).status == "in_progress"
    assert workspace.agent().claims() == []
    event = workspace.events(event_type="task.run_claimed")[0].payload
    assert (event["claim_kind"], event["session_id"], event["fence"]) == ("manual", None, 1)
    assert lease.claim_token not in str(workspace.events())


def test_what_a_task_demands_of_agents_does_not_hold_for_people(workspace: Workspace) -> None:
    """Rules 10 to 14 are for claim-next."""
    profile = {"worker": {"required_capabilities": ["gpu"], "agent_name": "ann"}}
    task = workspace.task(
        execution_profile=profile, owner={"kind": "human", "ref": "bo"}, network_channel="blue"
    )
    assert _claim(workspace, _queued(workspace, task.id)).run.status == "claimed"


def test_what_a_task_waits_for_holds_for_people_too(workspace: Workspace, world: World) -> None:
    """P6: rules 1 to 9."""
    ids = workspace.graph({"a": [], "b": ["a"]})
    waits = workspace.operator.post(f"/api/tasks/{ids['b']}/runs").run.id
    late = _queued(workspace, workspace.task(available_at="2099-01-01T00:00:00Z").id)
    with workspace.unchanged():
        with refused(409, "run_not_claimable", reasons=["awaiting_dependencies"]):
            _claim(workspace, waits, session_id="s")
        with refused(409, "run_not_claimable", reasons=["not_yet_available"]):
            _claim(workspace, late)
    workspace.agent().work(ids["a"])
    assert _claim(workspace, waits).run.status == "claimed"


def test_a_claim_by_hand_is_told_all_that_keeps_it_from_the_run(workspace: Workspace) -> None:
    """In the order of the rules."""
    first = workspace.task()
    parent = workspace.task(auto_enqueue_on_ready=False)
    task = workspace.task(
        parent_task_id=parent.id, depends_on=[first.id], approval_policy="manual",
        available_at="2099-01-01T00:00:00Z",
    )  # fmt: skip
    run_id = workspace.operator.post(f"/api/tasks/{task.id}/runs").run.id
    path = f"/api/tasks/{parent.id}/pause"
    workspace.operator.post(path, reason="wait")
    reasons = ["awaiting_approval", "awaiting_dependencies", "ancestor_paused", "not_yet_available"]
    with workspace.unchanged(), refused(409, "run_not_claimable", reasons=reasons):
        _claim(workspace, run_id)
    workspace.operator.post(f"/api/tasks/{task.id}/reject")
    workspace.operator.post(f"/api/tasks/{task.id}/pause", reason="wait")
    reasons[0], reasons[2] = "approval_rejected", "task_paused"
    with workspace.unchanged(), refused(409, "run_not_claimable", reasons=reasons):
        _claim(workspace, run_id)


def test_a_run_whose_time_has_come_is_claimed_before_anybody_looked(
    workspace: Workspace, agent: Agent, world: World
) -> None:
    workspace.task()
    held = agent.claim()
    held.release(delay_seconds=60)
    world.advance(61)
    assert _claim(workspace, held.run_id).lease.fence == 2


def test_only_a_queued_run_is_claimed_by_hand(workspace: Workspace, agent: Agent) -> None:
    workspace.task()
    held = agent.claim()
    claimed = {"run_id": held.run_id, "run_status": "claimed"}
    with workspace.unchanged(), refused(409, "run_not_queued", **claimed):
        _claim(workspace, held.run_id)
    held.complete()
    with workspace.unchanged(), refused(409, "run_not_queued", run_status="completed"):
        _claim(workspace, held.run_id)


def test_of_two_people_and_an_agent_one_gets_the_run(workspace: Workspace, world: World) -> None:
    """P1: at most one live lease."""
    run_id = _queued(workspace, workspace.task().id)

    def by_hand(_: int) -> str:
        try:
            _claim(workspace, run_id)
        except RefusedError as error:
            return error.code
        return "claimed"

    with ThreadPoolExecutor(3) as pool:
        with workspace.locked("log"):
            people = [pool.submit(by_hand, n) for n in range(2)]
            agents = pool.submit(workspace.agent().claims)
            world.until_blocked(2)
        told = [done.result() for done in people] + ["claimed"] * len(agents.result())
    assert sorted(told) in (["claimed", "run_not_queued"], ["claimed"] + ["run_not_queued"] * 2)


def test_a_claim_by_hand_may_be_for_a_session(workspace: Workspace) -> None:
    """The body or the header names it; the agent then works on as if it had claimed itself."""
    run_id = _queued(workspace, workspace.task().id)
    ann = workspace.agent("ann", "s-1")
    by = workspace.operator.also(X_Agent_Name="ann")
    told = by.post(f"/api/task-runs/{run_id}/claim", session_id="s-1", lease_seconds=60)
    assert (told.run.session_id, told.run.agent_name) == ("s-1", "ann")
    assert told.lease.lease_seconds == 60
    assert ann.leases() == [run_id]
    path = f"/api/agent/tasks/{run_id}"
    assert ann.post(f"{path}/heartbeat").lease.status == "running"
    ann.post(f"{path}/complete", claim_token=told.lease.claim_token, result=1)
    assert workspace.run(run_id).result == 1


def test_a_session_that_no_agent_names_is_nobodys(workspace: Workspace) -> None:
    """The header of an operator's program, which all its calls carry, makes no agent's session."""
    run_id = _queued(workspace, workspace.task().id)
    by = workspace.operator.also(X_Session_ID="s-1")
    assert by.post(f"/api/task-runs/{run_id}/claim").run.session_id is None


def test_a_session_has_one_agent_name(workspace: Workspace) -> None:
    workspace.agent("bob", "s-2").claims()
    run_id = _queued(workspace, workspace.task().id)
    ann = workspace.operator.also(X_Agent_Name="ann")
    path = f"/api/task-runs/{run_id}/claim"
    with workspace.unchanged():
        with refused(401, "identity_required", header="X-Agent-Name"):
            _claim(workspace, run_id, session_id="s-new")
        with refused(403, "identity_mismatch", session_id="s-2"):
            ann.post(path, session_id="s-2")
        with refused(422, "validation_failed"):
            ann.also(X_Session_ID="s-3").post(path, session_id="s-4")
    assert _claim(workspace, run_id, session_id="s-2").run.agent_name == "bob"


@pytest.mark.parametrize("lease_seconds", [0, 4, DAY + 1])
def test_a_claim_by_hand_lasts_five_seconds_to_a_day(
    workspace: Workspace, lease_seconds: int
) -> None:
    run_id = _queued(workspace, workspace.task().id)
    with workspace.unchanged(), refused(422, "validation_failed"):
        _claim(workspace, run_id, lease_seconds=lease_seconds)


def test_a_repeated_claim_by_hand_answers_the_same_lease(workspace: Workspace) -> None:
    """P5: the token is derived again."""
    run_id = _queued(workspace, workspace.task().id)
    first = _claim(workspace, run_id, "k")
    with workspace.unchanged():
        again = _claim(workspace, run_id, idempotency_key="k")
        assert workspace.operator.replayed
        with refused(422, "idempotency_key_reused"):
            _claim(workspace, run_id, "k", lease_seconds=60)
    assert again.lease == first.lease
    workspace.operator.post(f"/api/task-runs/{run_id}/complete")
    ended = _claim(workspace, run_id, "k")
    assert (ended.run.status, ended.lease.lease_until) == ("completed", None)
    assert ended.lease.claim_token == first.lease.claim_token


def test_a_repeated_claim_by_hand_tells_nothing_of_the_next_holders_lease(
    workspace: Workspace, agent: Agent
) -> None:
    """P5: its fence would open what the next holder guards with it."""
    run_id = _queued(workspace, workspace.task().id)
    first = _claim(workspace, run_id, "k").lease
    workspace.operator.post(f"/api/runs/{run_id}/release")
    assert agent.claim().fence == 2
    again = _claim(workspace, run_id, "k")
    assert (again.run.fence, again.run.session_id) == (2, agent.session)
    assert (again.lease.fence, again.lease.lease_until) == (1, None)
    assert (again.lease.session_id, again.lease.claimed_by) == (None, None)
    assert again.lease.claim_token == first.claim_token
    assert again.lease.claim_token_hash == first.claim_token_hash


def test_a_claim_by_hand_expires_and_is_swept(workspace: Workspace, world: World) -> None:
    """P10: like any other."""
    task = workspace.task(retry={"strategy": "none"}, max_lease_expiries=2)
    run_id = _queued(workspace, task.id)
    for status in ("queued", "needs_attention"):
        _claim(workspace, run_id, lease_seconds=5)
        world.advance(6)
        assert workspace.sweep() == 1
        assert workspace.run(run_id).status == status


def test_a_session_is_attached_to_a_claim_by_hand(workspace: Workspace) -> None:
    """P3: fence and token stay."""
    run_id = _queued(workspace, workspace.task().id)
    claimed = _claim(workspace, run_id).lease
    told = _attach(workspace, run_id, session_id="s-1", agent_name="ann")
    assert (told.run.status, told.run.session_id, told.run.agent_name) == ("starting", "s-1", "ann")
    assert (told.lease.fence, told.lease.claim_token) == (claimed.fence, claimed.claim_token)
    event = workspace.events(run_id=run_id)[-1]
    assert (event.event_type, event.payload["session_id"]) == ("task.run_session_bound", "s-1")
    ann = workspace.agent("ann", "s-1")
    assert ann.post(f"/api/agent/tasks/{run_id}/heartbeat").lease.status == "running"
    with workspace.unchanged(), refused(409, "session_already_bound", session_id="s-1"):
        _attach(workspace, run_id, session_id="s-2", agent_name="ann")


def test_a_session_is_attached_once_to_a_run_that_waits_for_one(workspace: Workspace) -> None:
    run_id = _queued(workspace, workspace.task().id)
    with workspace.unchanged(), refused(409, "run_not_claimed", run_status="queued"):
        _attach(workspace, run_id, session_id="s-1", agent_name="ann")
    held: Held = workspace.agent("ann").claim()
    with workspace.unchanged(), refused(409, "session_already_bound"):
        _attach(workspace, run_id, session_id="s-1", agent_name="ann")
    held.release()
    _claim(workspace, run_id)
    with workspace.unchanged():
        with refused(401, "identity_required", header="X-Agent-Name"):
            _attach(workspace, run_id, session_id="s-new")
        with refused(403, "identity_mismatch", session_id=held.agent.session):
            _attach(workspace, run_id, session_id=held.agent.session, agent_name="bob")
    workspace.operator.post(f"/api/task-runs/{run_id}/start")
    with workspace.unchanged(), refused(409, "run_not_claimed", run_status="running"):
        _attach(workspace, run_id, session_id=held.agent.session)
