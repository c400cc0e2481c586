"""Slots under claimers of two servers: never one too many, and none left free while a run waits."""

import random
from contextlib import closing

import psycopg

from tests.crowd import Line, crowd, request
from tests.factories import Agent, Workspace
from tests.serving import PATIENCE_SECONDS
from tests.world import Servers, World

CLAIMERS, LIMIT, TASKS = 64, 3, 40
PRIORITIES = ["medium", "high"]
CLAIM = "/api/agent/tasks/claim-next"
STARTS, ENDS = {"task.run_claimed"}, {"task.run_completed", "task.run_failed", "task.run_released"}
KEYED = {"concurrency_key": "deploy", "concurrency_limit": LIMIT}


def _keyed(workspace: Workspace, count: int) -> None:
    """Tasks that share slots, in several lanes and priorities: each has first ones of its own."""
    items = [
        {"ref": str(n), "title": "t", "network_channel": f"c{n % 3}", "priority": PRIORITIES[n % 2]}
        for n in range(count)
    ]
    workspace.operator.post("/api/tasks/bulk", tasks=items, defaults=KEYED)


def _urls(world: World, servers: Servers) -> list[str]:
    further = servers.start()
    assert further.http.get("/healthz").status_code == 200
    return [world.server.url, further.server.url]


def _most_active(workspace: Workspace) -> int:
    """How many runs were leased at once, at most, as the log has it."""
    active = most = 0
    for event in workspace.log():
        active += (event.event_type in STARTS) - (event.event_type in ENDS)
        most = max(most, active)
    return most


def test_of_64_claimers_at_once_as_many_get_a_run_as_slots_are_free(
    world: World, workspace: Workspace, servers: Servers
) -> None:
    """P6, P7: half of them ask one server, half of them another; time after time."""
    _keyed(workspace, TASKS)
    agents = {agent.session: agent for agent in (workspace.agent() for _ in range(CLAIMERS))}
    claims = [request(agent, "POST", CLAIM, {}) for agent in agents.values()]
    with crowd(_urls(world, servers), CLAIMERS) as callers:
        for _ in range(TASKS // LIMIT):
            got = [r.told["claim"]["lease"] for r in callers.at_once(claims) if r.status == 200]
            assert len(got) == LIMIT
            ends = []
            for lease in got:
                path = f"/api/agent/tasks/{lease['run_id']}/complete"
                body = {"claim_token": lease["claim_token"]}
                ends.append(request(agents[lease["session_id"]], "POST", path, body))
            assert {reply.status for reply in callers.at_once(ends)} == {200}
            assert workspace.faults() == {}


def test_claimers_that_wait_are_woken_as_slots_come_free(
    world: World, workspace: Workspace, servers: Servers
) -> None:
    """P6, P7: whichever server the slot was freed at; and at no moment is one too many."""
    dice = random.Random(4)

    async def works(line: Line, agent: Agent) -> int:
        claimed = await line.ask(request(agent, "POST", CLAIM, {"wait": True}))
        assert claimed.status == 200
        lease = claimed.told["claim"]["lease"]
        end, body = dice.choice([("complete", {}), ("fail", {"error": "no", "retryable": False})])
        path, token = f"/api/agent/tasks/{lease['run_id']}", {"claim_token": lease["claim_token"]}
        assert workspace.faults() == {}
        return (await line.ask(request(agent, "POST", f"{path}/{end}", token | body))).status

    agents = [workspace.agent() for _ in range(CLAIMERS)]
    with crowd(_urls(world, servers), CLAIMERS) as callers:
        _keyed(workspace, CLAIMERS)
        lives = [works(*each) for each in zip(callers.lines, agents, strict=True)]
        assert set(callers.together(lives)) == {200}
    assert _most_active(workspace) == LIMIT


def test_a_claimer_that_waits_elsewhere_gets_the_slot_at_once(
    world: World, workspace: Workspace, servers: Servers, agent: Agent
) -> None:
    """P7: without the poll that a lost hint waits for."""
    _keyed(workspace, LIMIT + 1)
    held = agent.claims(max_runs=LIMIT)
    urls = _urls(world, servers)

    async def waits(line: Line) -> int:
        asked = request(workspace.agent(), "POST", CLAIM, {"wait_seconds": 55})
        return (await line.ask(asked)).status

    async def ends(line: Line) -> int:
        path = f"/api/agent/tasks/{held[0].run_id}/complete"
        return (await line.ask(request(agent, "POST", path, {"claim_token": held[0].token}))).status

    with crowd(urls, 2) as callers:
        first, second = callers.lines
        assert callers.together([waits(second), ends(first)]) == [200, 200]


def test_a_claim_tells_others_of_the_slots_that_it_leaves_free(
    world: World, workspace: Workspace, servers: Servers, agent: Agent
) -> None:
    """By an agent or by hand: who looked while it held the lock of the key passed them over."""
    _urls(world, servers)
    items = [{"ref": str(n), "title": "t"} for n in range(5)]
    defaults = {"concurrency_key": "wide", "concurrency_limit": 5}
    with closing(psycopg.connect(world.server.conninfo, autocommit=True)) as own:
        own.execute("listen worklease")
        told = (note.payload.split(" ", 1)[1] for note in own.notifies(timeout=PATIENCE_SECONDS))
        workspace.operator.post("/api/tasks/bulk", tasks=items, defaults=defaults)
        assert f"{workspace.id} 5" in told
        agent.claim()
        assert f"{workspace.id} 4" in told
        run = workspace.operator.get("/api/task-runs", status="queued").runs[0]
        workspace.operator.post(f"/api/task-runs/{run.id}/claim")
        assert f"{workspace.id} 3" in told
