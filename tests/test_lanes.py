"""Lanes: in order across all of them, a limited number in use, and none kept for ever."""

import random
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest

from server.store.lanes import delete_lanes, retire_lanes
from tests.client import RefusedError
from tests.factories import Workspace, refused
from tests.world import World

LANES = "select count(*) from lane where workspace_id = %s"
AN_HOUR = 3601


def _fill(workspace: Workspace, channels: Iterable[str], **fields: object) -> list[str]:
    """A task in each channel; their ids."""
    items = [
        {"ref": str(n), "title": name, "network_channel": name, **fields}
        for n, name in enumerate(channels)
    ]
    return [task.id for task in workspace.operator.post("/api/tasks/bulk", tasks=items).tasks]


def _lanes(world: World, workspace: Workspace) -> int:
    [[count]] = world.db.execute(LANES, [workspace.id])
    return int(count)


def _clean(world: World) -> None:
    """One pass of the clean-up, which keeps no lane for later."""
    world.run(delete_lanes)
    world.run(lambda db: retire_lanes(db, 0))


def test_queued_runs_make_a_thousand_lanes_at_most(workspace: Workspace) -> None:
    """Who would queue into one more is refused, whichever way."""
    failed = workspace.task(network_channel="failed")
    idle = workspace.task(network_channel="idle", auto_enqueue_on_ready=False)
    workspace.agent().work(failed.id, "fail", retryable=False)
    _fill(workspace, (f"c{n}" for n in range(1000)))
    run_id = workspace.operator.get(f"/api/tasks/{failed.id}/runs").runs[0].id
    with workspace.unchanged():
        limit = {"limit": 1000, "count": 1001}
        with refused(409, "lane_limit", **limit):
            workspace.task(network_channel="more")
        with refused(409, "lane_limit", limit=1000, count=1002):
            _fill(workspace, ("more", "c1", "and-more"))
        for path in (f"tasks/{idle.id}/start", f"tasks/{idle.id}/runs", f"runs/{run_id}/retry"):
            with refused(409, "lane_limit", **limit):
                workspace.operator.post(f"/api/{path}")
    assert workspace.task(network_channel="c1").status == "ready"
    assert workspace.task(network_channel="x", auto_enqueue_on_ready=False).status == "ready"
    workspace.agent().claim(channel="c2")
    workspace.operator.post(f"/api/runs/{run_id}/retry")


def test_what_the_server_queues_by_itself_is_never_refused(
    workspace: Workspace, world: World
) -> None:
    """P7: a completion, a release, a retry and an expiry each queue into one more lane."""
    first, tries = workspace.task(network_channel="first"), workspace.task(network_channel="tries")
    workspace.task(network_channel="second", depends_on=[first.id])
    agent = workspace.agent()
    held = {channel: agent.claim(channel=channel) for channel in ("first", "tries")}
    _fill(workspace, (f"c{n}" for n in range(1000)))
    held["first"].complete()
    held["tries"].fail(retry_after_seconds=0)
    held["second"] = agent.claim(channel="second", lease_seconds=5)
    agent.claim(channel="tries").release()
    with refused(409, "lane_limit", limit=1000, count=1002):
        workspace.task(network_channel="more")
    world.advance(6)
    assert workspace.sweep() == 1
    assert workspace.get(tries.id).status == "ready"


def test_runs_that_wait_for_a_gate_or_their_time_keep_their_lane(
    workspace: Workspace, world: World
) -> None:
    gate = workspace.task()
    late = workspace.task(network_channel="late", available_at="2099-01-01T00:00:00Z")
    waits = workspace.task(
        network_channel="waits", depends_on=[gate.id], auto_enqueue_on_ready=False
    )
    workspace.operator.post(f"/api/tasks/{waits.id}/runs")
    _fill(workspace, (f"c{n}" for n in range(997)))
    with refused(409, "lane_limit", limit=1000, count=1001):
        workspace.task(network_channel="more")
    for _ in range(3):
        world.advance(AN_HOUR)
        _clean(world)
    assert _lanes(world, workspace) == 1000
    workspace.operator.patch(f"/api/tasks/{late.id}", available_at=None)
    workspace.agent().work(gate.id)
    assert {workspace.agent().claim(channel=c).task_id for c in ("late", "waits")} == {
        late.id, waits.id,
    }  # fmt: skip


def test_two_calls_at_once_do_not_make_a_lane_too_many(workspace: Workspace, world: World) -> None:
    _fill(workspace, (f"c{n}" for n in range(999)))

    def create(channel: str) -> str:
        try:
            return workspace.task(network_channel=channel).status
        except RefusedError as error:
            return error.code

    with ThreadPoolExecutor(2) as pool:
        with workspace.locked("log"):
            calls = [pool.submit(create, channel) for channel in ("one", "other")]
            world.until_blocked(2)
        assert sorted(call.result() for call in calls) == ["lane_limit", "ready"]


def test_lanes_that_nobody_uses_go(workspace: Workspace, world: World) -> None:
    """A lane is retired, and two hours later deleted; its demands then have a new one."""
    tasks = _fill(workspace, ("a", "b", "c"))
    agent = workspace.agent()
    agent.work(tasks[0])
    held = agent.claim(channel="b")
    for _ in range(3):
        world.advance(AN_HOUR)
        held.heartbeat(lease_seconds=2 * AN_HOUR)
        _clean(world)
    # That of the held run stays, and that of the queued one.
    assert _lanes(world, workspace) == 2
    held.release()
    assert agent.claim(channel="b").run_id == held.run_id
    again = workspace.task(network_channel="a")
    assert agent.claim(channel="a").task_id == again.id


def test_a_run_queued_while_its_lane_is_retired_is_claimed(
    workspace: Workspace, world: World
) -> None:
    workspace.agent().work(workspace.task(network_channel="a").id)
    world.advance(AN_HOUR)
    with ThreadPoolExecutor(1) as pool:
        # The call has found its lane, and waits to write into the log.
        with workspace.locked("log"):
            call = pool.submit(workspace.task, network_channel="a")
            world.until_blocked()
            world.run(lambda db: retire_lanes(db, 0))
        call.result()
    world.advance(2 * AN_HOUR)
    _clean(world)
    newer = workspace.task(network_channel="a")
    agent = workspace.agent()
    assert agent.claim(channel="a").task_id == call.result().id
    assert agent.claim(channel="a").task_id == newer.id


@pytest.mark.parametrize("lanes", [70, 300])
def test_the_queue_is_in_order_across_many_lanes(
    workspace: Workspace, world: World, lanes: int
) -> None:
    """P11: however many lanes a claimer may take from, and however uneven they are."""
    dice = random.Random(lanes)
    rank: dict[str, int] = {}
    for place in range(6):
        names = [f"c{dice.randrange(lanes if place else 5)}" for _ in range(40)]
        names += [f"c{n}" for n in range(lanes)] if place == 0 else []
        for priority in ("low", "medium"):
            made = _fill(workspace, names, priority=priority)
            rank |= dict.fromkeys(made, place * 100 - (600 if priority == "medium" else 0))
        world.advance(100)
    agent, claimed = workspace.agent(), []
    for wanted in (1, 7, 100):
        claimed += [held.task_id for held in agent.claims(max_runs=wanted)]
    assert [rank[task] for task in claimed] == sorted(rank.values())[: len(claimed)]
    assert len(claimed) == 108
