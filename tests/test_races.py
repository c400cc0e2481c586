"""Whoever races for one thing, over one server or several: one wins, the others are told."""

import random
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.client import Client
from tests.crowd import Line, Reply, crowd, request
from tests.factories import Agent, Held, Workspace
from tests.world import Servers, World

CLAIMERS = 64
TASK = {"title": "a task", "auto_enqueue_on_ready": True}
CLAIM = "/api/agent/tasks/claim-next"


def _urls(world: World, servers: Servers) -> list[str]:
    """Two servers on one database, both of which serve."""
    further = servers.start()
    assert further.http.get("/healthz").status_code == 200
    return [world.server.url, further.server.url]


def _runs(replies: Sequence[Reply]) -> list[str]:
    """The runs that these claims got."""
    assert {reply.status for reply in replies} <= {200, 204}
    return [reply.told["claim"]["run"]["id"] for reply in replies if reply.status == 200]


def _done(replies: Sequence[Reply], status: int) -> list[Reply]:
    """Those that were answered; the others came while the first was under way."""
    others = {reply.code for reply in replies if reply.status != status}
    assert others <= {"idempotency_in_progress"}
    return [reply for reply in replies if reply.status == status]


def test_of_64_claimers_one_gets_the_run_a_thousand_times(
    world: World, workspace: Workspace, servers: Servers
) -> None:
    """P1: half of them ask one server, half of them another."""
    agents = [workspace.agent() for _ in range(CLAIMERS)]
    claims = [request(agent, "POST", CLAIM, {}) for agent in agents]
    create = request(workspace.operator, "POST", "/api/tasks", TASK)
    won = []
    with crowd(_urls(world, servers), CLAIMERS) as callers:
        for _ in range(1000):
            assert callers.at_once([create])[0].status == 201
            won += (runs := _runs(callers.at_once(claims)))
            assert len(runs) == 1
    assert len(set(won)) == 1000


def test_unlike_claimers_at_once_share_no_run_and_leave_none(
    world: World, workspace: Workspace
) -> None:
    """P1, P7, P8: what one caller of a batch took is out of reach of the others in it."""
    wishes = [{"priority_min": n % 4 * 10} for n in range(CLAIMERS)]
    claims = [request(workspace.agent(), "POST", CLAIM, wish) for wish in wishes]
    items = [{"ref": str(n), "title": "t", "priority": "high"} for n in range(CLAIMERS // 2)]
    with crowd([world.server.url], CLAIMERS) as callers:
        for _ in range(5):
            workspace.operator.post("/api/tasks/bulk", tasks=items)
            runs = _runs(callers.at_once(claims))
            assert len(runs) == len(set(runs)) == len(items)
            assert workspace.faults() == {}


def test_64_claimers_that_wait_get_one_run_each(
    world: World, workspace: Workspace, servers: Servers
) -> None:
    """P1, P7: over two servers; the runs come one by one, through one of them."""
    claims = [request(workspace.agent(), "POST", CLAIM, {"wait": True}) for _ in range(CLAIMERS)]
    create = request(workspace.operator, "POST", "/api/tasks", TASK)

    async def creates(line: Line) -> list[Reply]:
        return [await line.ask(create) for _ in range(CLAIMERS)]

    async def claims_once(line: Line, claim: bytes) -> list[Reply]:
        return [await line.ask(claim)]

    with crowd(_urls(world, servers), CLAIMERS + 1) as callers:
        *waiting, creator = callers.lines
        for _ in range(3):
            lives = [claims_once(*each) for each in zip(waiting, claims, strict=True)]
            *got, _ = callers.together([*lives, creates(creator)])
            assert len(set(_runs([reply for replies in got for reply in replies]))) == CLAIMERS


def test_a_queue_is_shared_by_the_claimers_of_two_servers(
    world: World, workspace: Workspace, servers: Servers
) -> None:
    """P1: each run is done once, and neither server starves."""
    tasks = [workspace.task().id for _ in range(300)]
    agents = [workspace.agent() for _ in range(16)]

    async def works(line: Line, agent: Agent) -> list[str]:
        done = []
        while (claimed := await line.ask(request(agent, "POST", CLAIM, {}))).status == 200:
            lease = claimed.told["claim"]["lease"]
            path = f"/api/agent/tasks/{lease['run_id']}/complete"
            body = {"claim_token": lease["claim_token"]}
            assert (await line.ask(request(agent, "POST", path, body))).status == 200
            done.append(claimed.told["claim"]["task"]["id"])
        return done

    with crowd(_urls(world, servers), 16) as callers:
        done = callers.together([works(*each) for each in zip(callers.lines, agents, strict=True)])
    assert sorted(task for share in done for task in share) == sorted(tasks)
    assert all(any(done[first::2]) for first in (0, 1))


ENDS: dict[str, dict[str, Any]] = {
    "complete": {"result": 1},
    "fail": {"error": "no", "retryable": False},
    "release": {},
    "heartbeat": {"checkpoint": 1},
}
LOST = {"run_canceled", "task_run_already_terminal", "lease_released", "lease_expired"}


def _endings(held: Held, operator: Client) -> dict[str, bytes]:
    """All that can end a lease at once, but the sweep."""
    by, path, token = held.agent, f"/api/agent/tasks/{held.run_id}", {"claim_token": held.token}
    ends = {op: request(by, "POST", f"{path}/{op}", token | body) for op, body in ENDS.items()}
    cancel = request(operator, "POST", f"/api/task-runs/{held.run_id}/cancel", {})
    return {**ends, "cancel": cancel}


def _judge_endings(workspace: Workspace, held: Held, replies: dict[str, Reply]) -> None:
    good = {op for op, reply in replies.items() if reply.status == 200}
    assert {reply.code for op, reply in replies.items() if op not in good} <= LOST
    # A run that was given back, or whose lease expired, is canceled then: the last end is final.
    [final] = good & {"complete", "fail", "cancel"}
    assert final == "cancel" or "release" not in good
    told = Counter(event.event_type for event in workspace.events(run_id=held.run_id))
    statuses = {"complete": "completed", "fail": "failed", "cancel": "canceled"}
    assert workspace.run(held.run_id).status == statuses[final]
    assert {op: told[f"task.run_{name}"] for op, name in statuses.items()} == {
        op: int(op == final) for op in statuses
    }
    assert told["task.run_released"] == int("release" in good)
    assert told["task.run_released"] + told["task.run_lease_expired"] <= int(final == "cancel")


def test_of_all_that_can_end_a_lease_one_does(
    world: World, workspace: Workspace, servers: Servers
) -> None:
    """P1, P2, P4: complete, fail, release, heartbeat, cancel and the sweep, all at once."""
    urls, order = _urls(world, servers), random.Random(1)
    with crowd(urls, 60) as callers, ThreadPoolExecutor(1) as sweeper:
        for _ in range(8):
            for _ in range(12):
                workspace.task(max_attempts=1)
            held = workspace.agent().claims(max_runs=12, lease_seconds=5)
            calls = [
                (h, op, told) for h in held for op, told in _endings(h, workspace.operator).items()
            ]
            order.shuffle(calls)
            world.advance(6)
            sweep = sweeper.submit(world.sweep)
            replies = callers.at_once([told for _, _, told in calls])
            sweep.result()
            for h in held:
                own = zip(calls, replies, strict=True)
                _judge_endings(workspace, h, {op: r for (by, op, _), r in own if by is h})


def test_a_creation_sent_many_times_at_once_is_done_once(
    world: World, workspace: Workspace, servers: Servers
) -> None:
    """P5: under one key, over two servers; who comes too early is told to come again."""
    with crowd(_urls(world, servers), 16) as callers:
        for n in range(20):
            create = request(workspace.operator, "POST", "/api/tasks", TASK, f"k{n}")
            good = _done(callers.at_once([create] * 16), 201)
            assert len({reply.told["task"]["id"] for reply in good}) == 1
    assert workspace.told(event_type="task.created") == ["task.created"] * 20


def test_a_claim_sent_many_times_at_once_is_one_claim(
    world: World, workspace: Workspace, servers: Servers
) -> None:
    """P5: under one key, over two servers; and so is the completion that follows."""
    for _ in range(40):
        workspace.task()
    agent = workspace.agent()
    with crowd(_urls(world, servers), 16) as callers:
        for n in range(20):
            good = _done(callers.at_once([request(agent, "POST", CLAIM, {}, f"k{n}")] * 16), 200)
            leases = [reply.told["claim"]["lease"] for reply in good]
            assert len({(lease["run_id"], lease["claim_token"]) for lease in leases}) == 1
            path = f"/api/agent/tasks/{leases[0]['run_id']}/complete"
            body = {"claim_token": leases[0]["claim_token"], "result": n}
            replies = callers.at_once([request(agent, "POST", path, body)] * 16)
            assert {reply.status for reply in replies} == {200}
    told = Counter(workspace.told())
    assert (told["task.run_claimed"], told["task.run_completed"]) == (20, 20)
