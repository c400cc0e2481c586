"""A claim that knows where the queue begins finds all that a claim finds that does not."""

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import psycopg
import pytest

from server.api.heads import Heads, Reach
from server.db.pool import Database
from server.store.leases import CLAIM_RUNS, QUEUE_HEADS
from tests.factories import Agent, Workspace

LANES = "select array_agg(lane_id) from lane where workspace_id = %s"
NEWEST_LANE = "select max(lane_id) from lane where workspace_id = %s"
QUEUE = """
select array_agg(q.run_id::text order by q.rank_at, q.run_id)
  from json_populate_record(null::claim_team, %(team)s::json) t
  cross join lateral _queue_of(%(ws)s, t, 1000) q
"""
OLD = "set transaction isolation level repeatable read; select from workspace"
PRIORITIES = ["low", "medium", "high", "urgent"]


def _team(workspace: Workspace, heads: dict[str, Any]) -> str:
    [[lanes]] = workspace.world.db.execute(LANES, [workspace.id])
    return msgspec.json.encode({"lanes": lanes or [], "priority_min": 0} | heads).decode()


def _heads(workspace: Workspace, known: dict[str, Any]) -> dict[str, Any]:
    asked = {"workspace_id": workspace.id, "team": _team(workspace, known)}
    [[told]] = workspace.world.db.execute(QUEUE_HEADS.encode(), asked)
    heads: dict[str, Any] = msgspec.json.decode(told)
    return heads


def _queue(workspace: Workspace, heads: dict[str, Any]) -> list[str]:
    asked = {"ws": workspace.id, "team": _team(workspace, heads)}
    [[runs]] = workspace.world.db.execute(QUEUE.encode(), asked)
    return runs or []


def _change(workspace: Workspace, agent: Agent, order: random.Random) -> None:
    """Something that puts an offer into the queue or takes one out of it."""
    task = workspace.task(priority=order.choice(PRIORITIES))
    match order.randrange(5):
        case 0:
            agent.claim().complete()
        case 1:
            for held in agent.claims(priority_min=order.choice(PRIORITIES)):
                held.release()
        case 2:
            workspace.operator.post(f"/api/tasks/{task.id}/pause", reason="wait")
            agent.claims()
            workspace.operator.post(f"/api/tasks/{task.id}/resume", reason="go on")
        case 3:
            workspace.operator.patch(f"/api/tasks/{task.id}", priority=order.choice(PRIORITIES))
        case 4:
            agent.claims(max_runs=3)


def test_heads_hide_nothing_however_old_they_are(workspace: Workspace, agent: Agent) -> None:
    """P7, P11: each is read with the help of the one before."""
    order, known = random.Random(1), [_heads(workspace, {})]
    for _ in range(40):
        _change(workspace, agent, order)
        queue = _queue(workspace, {})
        assert [_queue(workspace, heads) for heads in known] == [queue] * len(known)
        known = [*known[-4:], _heads(workspace, known[-1])]


@pytest.mark.parametrize("first", ["low", "urgent"])
def test_an_offer_that_was_being_made_when_the_heads_were_read_is_found(
    workspace: Workspace, first: str
) -> None:
    """P7: whether its lane and priority had others or none."""
    workspace.task(priority="low")
    with ThreadPoolExecutor(1) as pool:
        with workspace.locked("log"):
            making = pool.submit(workspace.task, priority=first)
            workspace.world.until_blocked()
            # Meanwhile somebody begins and ends: the snapshot goes past the one that waits.
            other = workspace.world.workspace()
            other.task()
            heads = _heads(workspace, {})
        making.result()
    assert len(_queue(workspace, heads)) == 2
    assert _queue(workspace, heads) == _queue(workspace, {})


def test_a_claim_that_knows_the_heads_reads_none_of_those_claimed_before(
    workspace: Workspace, agent: Agent
) -> None:
    """Also beside a snapshot that is old enough to see them all."""
    items = [{"ref": str(n), "title": "t"} for n in range(1100)]
    with psycopg.connect(workspace.world.server.conninfo) as forgotten:
        forgotten.execute(OLD)
        workspace.operator.post("/api/tasks/bulk", tasks=items)
        for _ in range(10):
            agent.claims(max_runs=100)
        few, many = _blocks(workspace, _heads(workspace, {})), _blocks(workspace, {})
    assert few + 500 < many, (few, many)


def _blocks(workspace: Workspace, heads: dict[str, Any]) -> int:
    """How many pages a claim looks at, by a connection that has claimed before."""
    [[lane]] = workspace.world.db.execute(NEWEST_LANE, [workspace.id])
    cause = {"actor_kind": "agent_session", "actor_ref": "s", "origin_kind": "http"}
    call = {"n": 0, "team": 0, "session_id": "s", "agent_name": "a", "max_runs": 1, "cause": cause}
    asked = {
        "workspace_id": workspace.id, "teams": f"[{_team(workspace, heads | {'team': 0})}]",
        "calls": msgspec.json.encode([call | {"cause": cause | {"origin_ref": "t"}}]).decode(),
        "newest_lane": lane, "outer": b"o", "inner": b"i", "outer_previous": b"",
        "inner_previous": b"",
    }  # fmt: skip
    explain = f"explain (analyze, buffers, format json) {CLAIM_RUNS}".encode()
    with psycopg.connect(workspace.world.server.conninfo) as own:
        for _ in range(3):
            [[[plan]]] = own.execute(explain, asked)
            own.rollback()
    return int(plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"])


def test_heads_are_read_after_a_claim_and_forgotten_with_the_connection(
    workspace: Workspace,
) -> None:
    workspace.task()
    first = _queue(workspace, {})
    [[lanes]] = workspace.world.db.execute(LANES, [workspace.id])
    reach: Reach = (tuple(lanes), 0, None)

    async def reads(db: Database) -> None:
        heads = Heads(db)
        assert heads.of(workspace.id, reach) == {}
        heads.claimed(workspace.id, reach)
        await heads.idle()
        assert heads.of(workspace.id, reach)["head_runs"] == first
        heads.forget()
        assert heads.of(workspace.id, reach) == {}

    workspace.world.run(reads)
