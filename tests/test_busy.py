"""A database that is busy: calls wait their turn, and hear the truth when that takes too long."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from server.db.pool import open_pool
from server.errors import Problem
from tests.factories import Agent, Workspace, refused
from tests.world import Servers, World


@pytest.fixture
def hasty(workspace: Workspace, servers: Servers) -> Agent:
    """An agent at a server that waits 0.3 s for a lock."""
    process = servers.start(WORKLEASE_DB_TIMEOUT_SECONDS=0.3)
    headers = {"X_Agent_Name": "worker", "X_Session_ID": "hasty"}
    return Agent(process.http, workspace.key("agent"), **headers)


def test_a_batch_that_meets_a_lock_is_tried_again(
    workspace: Workspace, agent: Agent, world: World
) -> None:
    """Each try waits 0.1 s; the calls of the batch are answered when the lock is free."""
    for _ in range(5):
        workspace.task()
    held = agent.claims(max_runs=4)
    with ThreadPoolExecutor(5) as pool:
        with workspace.locked("log"):
            calls = [pool.submit(one.complete) for one in held]
            claim = pool.submit(agent.claim)
            # Meanwhile other workspaces are served.
            other = world.workspace()
            for _ in range(10):
                other.task()
                other.agent().claim().complete()
            assert not any(call.done() for call in calls)
        assert [call.result().lease.status for call in calls] == ["completed"] * 4
        assert claim.result().claim.run.status == "claimed"


def test_who_waits_too_long_for_a_lock_is_told_so(workspace: Workspace, hasty: Agent) -> None:
    workspace.task()
    held = hasty.claim()
    with workspace.locked("log"), refused(503, "database_unavailable") as told:
        held.complete()
    assert "Another transaction holds" in told[0].message
    assert hasty.last.headers["Retry-After"] == "1"
    held.complete()


def test_a_completion_does_not_hide_that_its_next_claim_may_be_lost(
    workspace: Workspace, hasty: Agent, world: World
) -> None:
    """P5: whoever repeats it is answered again, with the claim."""
    tasks = [workspace.task(), workspace.task()]
    held = hasty.claim()
    # Claims look whether the scheduler is paused; completions do not.
    with world.db.transaction():
        world.db.execute("lock table scheduler in access exclusive mode")
        with refused(503, "database_unavailable"):
            held.complete(claim_next={})
    assert workspace.get(tasks[0].id).status == "completed"
    told = held.complete(claim_next={})
    assert (hasty.replayed, told.claim.task.id) == (True, tasks[1].id)


async def test_a_statement_that_takes_too_long_is_told_so(fresh_database: str) -> None:
    async with open_pool(fresh_database, 1, 5, 0.001) as db:
        with pytest.raises(Problem, match="took too long") as told:
            await db.many("select pg_sleep(10)")
    assert (told.value.code, told.value.retry_after_seconds) == ("database_unavailable", 1)
