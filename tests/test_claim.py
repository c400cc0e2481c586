"""Which run a claim gets, when, and what the claim says about it (P1, P6, P11)."""

import random
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pytest

from server.rules.tokens import token_hash
from tests.crowd import request
from tests.factories import Agent, Workspace, refused, seconds
from tests.serving import until
from tests.world import World

HEAD_START = {"low": 0, "medium": 600, "high": 3600, "urgent": 86400}


def test_a_claim_makes_run_and_lease_one_agents(workspace: Workspace, agent: Agent) -> None:
    """P1: the run, its lease and its task are in one agent's hands, and nobody else gets them."""
    task = workspace.task(payload={"n": 1}, description="do it")
    held = agent.claim(lease_seconds=60)
    claim = held.claim
    assert (claim.task.id, claim.payload, claim.description) == (task.id, {"n": 1}, "do it")
    assert (claim.run.status, claim.run.fence, claim.run.claim_count) == ("claimed", 1, 1)
    assert claim.lease.claim_token_hash == claim.run.claim_token_hash == token_hash(held.token)
    assert (claim.lease.session_id, claim.run.agent_name) == (agent.session, "worker")
    assert claim.lease.claimed_by == claim.run.claimed_by
    assert seconds(claim.lease.lease_until, claim.run.claimed_at) == 60
    after = workspace.get(task.id)
    assert (after.status, after.current_run_id, after.fence) == ("in_progress", held.run_id, 1)
    assert agent.leases() == [held.run_id]
    assert workspace.agent().claims() == agent.claims() == []


def test_nothing_to_claim_is_204_and_says_when_to_ask_again(agent: Agent) -> None:
    assert agent.claims() == []
    assert agent.last.status_code == 204
    assert 1 <= int(agent.last.headers["Retry-After"]) <= 30


def test_a_lease_never_outlasts_the_deadline(workspace: Workspace, agent: Agent) -> None:
    workspace.task(deadline_seconds=30)
    lease = agent.claim(lease_seconds=3600).claim.lease
    assert lease.lease_until == lease.deadline_at


def test_a_lease_lasts_as_long_as_the_workspace_says(world: World) -> None:
    own = world.workspace(default_lease_seconds=77)
    own.task()
    claim = own.agent().claim(lease_seconds=0).claim
    assert (claim.lease.lease_seconds, seconds(claim.lease.lease_until, claim.run.claimed_at)) == (
        77,
        77,
    )


def test_the_queue_is_in_order_of_time_less_head_start(
    world: World, workspace: Workspace, agent: Agent
) -> None:
    """P11: no run is passed over for one that came more than the head starts' difference later."""
    dice = random.Random(11)
    rank = {}
    for _ in range(14):
        priority = dice.choice(list(HEAD_START))
        task = workspace.task(priority=priority)
        start = datetime.fromisoformat(task.created_at).timestamp() - HEAD_START[priority]
        rank[task.id] = start
        world.advance(dice.choice([1, 200, 1500, 50_000]))
    claimed = [held.task_id for held in agent.claims(max_runs=100)]
    assert claimed == sorted(rank, key=rank.__getitem__)


def test_a_changed_priority_moves_the_queued_run_at_once(
    workspace: Workspace, agent: Agent
) -> None:
    first, second = workspace.task(), workspace.task()
    workspace.operator.patch(f"/api/tasks/{second.id}", priority="high")
    assert [agent.claim().task_id, agent.claim().task_id] == [second.id, first.id]


def test_a_released_run_goes_to_the_end(workspace: Workspace, agent: Agent) -> None:
    tasks = [workspace.task(), workspace.task()]
    agent.claim().release()
    assert [agent.claim().task_id, agent.claim().task_id] == [tasks[1].id, tasks[0].id]


def test_a_run_waits_for_its_time(world: World, workspace: Workspace, agent: Agent) -> None:
    """P6, P7: not claimable before its time; queued by the first claim or pass after it."""
    early = workspace.task(available_at="2099-01-01T00:00:00Z")
    late = workspace.task(available_at="2099-01-01T00:00:00+01:00")
    assert early.available_at == "2099-01-01T00:00:00.000000Z"
    world.promote()
    assert agent.claims() == []
    workspace.operator.patch(f"/api/tasks/{early.id}", available_at=None)
    assert agent.claim().task_id == early.id
    assert late.status == "ready"
    assert agent.claims() == []


def test_time_alone_brings_a_delayed_run_back(world: World, workspace: Workspace) -> None:
    """P7: once through the claim that looks, once through the loop."""
    agent = workspace.agent()
    workspace.task()
    for by_the_loop in (False, True):
        agent.claim().release(delay_seconds=600)
        assert agent.claims() == []
        world.advance(601)
        if by_the_loop:
            assert world.promote() >= 1
        agent.claim().release()


@pytest.mark.parametrize(
    ("fields", "wish"),
    [
        ({"execution_profile": {"worker": {"required_capabilities": ["gpu"]}}}, {}),
        (
            {"execution_profile": {"participants": {"required_capabilities": ["a", "b"]}}},
            {"capabilities": ["a"], "required_capabilities": ["c"]},
        ),
        ({"network_channel": "blue"}, {"channel": "red"}),
        ({}, {"channel": "red"}),
        ({"execution_profile": {"worker": {"mode": "select", "agent_name": "ann"}}}, {}),
        ({"execution_profile": {"worker": {"allowed_agent_names": ["ann"]}}}, {}),
        ({"execution_profile": {"participants": {"allowed_agent_names": ["ann"]}}}, {}),
        ({"execution_profile": {"participants": {"allowed_peer_ids": ["p"]}}}, {"peer_id": "q"}),
        ({"execution_profile": {"participants": {"allowed_channel_ids": ["blue"]}}}, {}),
        ({"owner": {"kind": "pool", "ref": "ann"}}, {}),
        ({"owner": {"kind": "agent_session", "ref": "elsewhere"}}, {}),
        ({"owner": {"kind": "human", "ref": "worker"}}, {}),
        ({"priority": "low"}, {"priority_min": "medium"}),
    ],
)
def test_who_does_not_meet_a_demand_gets_nothing(
    workspace: Workspace, agent: Agent, fields: dict[str, object], wish: dict[str, object]
) -> None:
    workspace.task("not for them", **fields)
    assert agent.claims(**wish) == []


@pytest.mark.parametrize(
    ("fields", "wish"),
    [
        (
            {"execution_profile": {"worker": {"required_capabilities": ["gpu", "a"]}}},
            {"capabilities": ["a"], "required_capabilities": ["gpu", "more"]},
        ),
        ({"network_channel": "blue"}, {}),
        ({"network_channel": "blue"}, {"channel": "blue"}),
        ({"execution_profile": {"worker": {"mode": "select", "agent_name": "worker"}}}, {}),
        ({"execution_profile": {"worker": {"allowed_agent_names": ["ann", "worker"]}}}, {}),
        ({"execution_profile": {"participants": {"allowed_peer_ids": ["p"]}}}, {"peer_id": "p"}),
        (
            {
                "network_channel": "blue",
                "execution_profile": {"participants": {"allowed_channel_ids": ["blue"]}},
            },
            {},
        ),
        ({"owner": {"kind": "pool", "ref": "worker"}}, {}),
        ({"owner": {"kind": "agent_session", "ref": "session-1"}}, {}),
        ({"priority": "high"}, {"priority_min": 30}),
    ],
)
def test_who_meets_the_demands_gets_the_run(
    workspace: Workspace, fields: dict[str, object], wish: dict[str, object]
) -> None:
    task = workspace.task("for them", **fields)
    assert workspace.agent("worker", "session-1").claim(**wish).task_id == task.id


def test_a_coordination_channel_names_one_run(workspace: Workspace, agent: Agent) -> None:
    tasks = [workspace.task(), workspace.task(priority="low")]
    runs = [workspace.operator.get(f"/api/tasks/{t.id}/runs").runs[0] for t in tasks]
    channel = runs[1].coordination_channel_id
    assert channel == f"coord-{runs[1].id}"
    assert agent.claims(channel=channel, priority_min="medium") == []
    assert agent.claim(channel=channel).run_id == runs[1].id
    assert agent.claims(channel=channel) == []
    assert agent.claims(channel="coord-nobody") == []


def test_a_new_owner_moves_the_queued_run_to_another_lane(
    workspace: Workspace, agent: Agent
) -> None:
    task = workspace.task()
    workspace.operator.patch(f"/api/tasks/{task.id}", owner={"kind": "pool", "ref": "ann"})
    assert agent.claims() == []
    assert workspace.agent("ann").claim().task_id == task.id


def test_max_runs_is_a_wish_and_the_answer_is_in_order(workspace: Workspace, agent: Agent) -> None:
    tasks = [workspace.task().id for _ in range(5)]
    held = agent.claims(max_runs=3)
    assert [h.task_id for h in held] == tasks[:3]
    assert [h.task_id for h in agent.claims(max_runs=100)] == tasks[3:]
    assert agent.leases() == sorted(h.run_id for h in held) + [
        run for run in agent.leases() if run not in {h.run_id for h in held}
    ]


def test_claims_that_share_a_batch_never_share_a_run(workspace: Workspace) -> None:
    """P1: each caller gets runs of its own, under its own name, with a token of its own."""
    for _ in range(24):
        workspace.task()
    agents = [workspace.agent(f"agent-{n}") for n in range(12)]
    with ThreadPoolExecutor(len(agents)) as pool:
        shares = list(pool.map(lambda agent: agent.claims(max_runs=2), agents))
    held = [h for share in shares for h in share]
    assert len({h.run_id for h in held}) == len({h.token for h in held}) == 24
    for agent, share in zip(agents, shares, strict=True):
        assert {h.claim.run.session_id for h in share} == {agent.session}
        assert {h.claim.run.agent_name for h in share} == {agent.headers["X-Agent-Name"]}
        assert agent.leases() == sorted(agent.leases())
        for h in share:
            h.complete()


def test_another_workspaces_runs_are_never_claimed(world: World, workspace: Workspace) -> None:
    """P12: and a claim may not name another workspace."""
    other = world.workspace()
    other.task()
    agent = workspace.agent()
    assert agent.claims() == []
    with refused(404, "workspace_not_found"):
        agent.claims(workspace_id=other.id)
    assert agent.claims(workspace_id=workspace.name) == []


def test_a_waiting_claim_gets_what_comes(workspace: Workspace) -> None:
    agent = workspace.agent()
    with ThreadPoolExecutor(1) as pool:
        waits = []
        for _ in range(3):
            claim = pool.submit(agent.claim, wait_seconds=30)
            workspace.world.until_waiting()
            task = workspace.task()
            assert claim.result().task_id == task.id
            waits.append(agent.last.elapsed.total_seconds())
    # The poll for lost hints comes after 1.5 s at the earliest: it was the hint that woke it.
    assert min(waits) < 1.5


def test_a_waiting_claim_ends_empty_handed_when_its_time_is_over(agent: Agent) -> None:
    assert agent.claims(wait_seconds=1) == []
    assert agent.last.elapsed.total_seconds() >= 1


def test_a_client_that_left_gets_nothing(workspace: Workspace, agent: Agent, world: World) -> None:
    with leaving(workspace.agent(), {"wait_seconds": 55}):
        world.until_waiting()
    task = workspace.task()
    assert agent.claim(wait_seconds=30).task_id == task.id


@pytest.mark.parametrize("wait_seconds", [0, 20])
def test_what_a_client_that_left_had_got_is_given_back(
    workspace: Workspace, agent: Agent, world: World, wait_seconds: int
) -> None:
    """P5: without a key nobody could ask for the lease again, so the run comes back by itself."""
    task = workspace.task()
    with workspace.locked("log"), leaving(workspace.agent(), {"wait_seconds": wait_seconds}):
        world.until_blocked()
    until(lambda: "task.run_released" in workspace.told(task_id=task.id))
    assert workspace.events()[-1].payload["reason"] == "client_gone"
    assert agent.claim().task_id == task.id


@contextmanager
def leaving(agent: Agent, wish: dict[str, Any]) -> Iterator[None]:
    """A claim whose client hangs up before it hears of it."""
    url = agent.http.base_url
    with socket.create_connection((url.host, url.port)) as line:
        line.sendall(request(agent, "POST", "/api/agent/tasks/claim-next", wish))
        yield
