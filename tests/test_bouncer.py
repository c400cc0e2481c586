"""PgBouncer between server and database: what it takes away, and what goes on without it."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import psycopg
import pytest

from server.db import schema
from server.db.pool import Busy, ConnectionLost, Dedicated, open_pool
from server.errors import Problem
from tests.bouncer import Bouncer, found
from tests.client import Client
from tests.streams import subscribed
from tests.world import Process, Servers, World

Start = Callable[..., Process]
LEFT = """
select current_setting('lock_timeout'), current_setting('statement_timeout'),
       (select array_agg(statement) from pg_prepared_statements)
"""


@pytest.fixture
def lent(bouncer: Bouncer, alone: Servers) -> Start:
    """Starts servers that find their database through PgBouncer, and no way past it."""
    url = bouncer.conninfo(alone.conninfo)
    return partial(alone.start, DATABASE_URL=url, DATABASE_DIRECT_URL="")


@pytest.fixture
def behind(lent: Start) -> Iterator[World]:
    """A server that finds its database through PgBouncer only."""
    own = World(lent().server)
    yield own
    own.close()


def test_a_lent_connection_is_known_by_its_backend(bouncer: Bouncer, fresh_database: str) -> None:
    assert schema.lent(bouncer.conninfo(fresh_database))
    assert not schema.lent(fresh_database)


async def test_nothing_is_left_on_a_connection_that_goes_back(
    bouncer: Bouncer, fresh_database: str
) -> None:
    """Or the next one to be lent it would have limits of others, and names of theirs."""
    conninfo = bouncer.conninfo(fresh_database)
    dedicated = Dedicated(conninfo, lent=True)
    async with open_pool(conninfo, 1, 5, 30, lent=True) as db:
        for _ in range(10):
            assert await dedicated.many("show lock_timeout") == [("100ms",)]
            assert await db.one("show statement_timeout") == ("30s",)
            async with db.transaction() as both:
                assert await both.one("show statement_timeout") == ("30s",)
    await dedicated.close()
    with psycopg.connect(conninfo, prepare_threshold=None) as next_one:
        assert next_one.execute(LEFT).fetchone() == ("0", "0", None)


async def test_who_is_lent_a_connection_waits_no_longer_for_a_lock(fresh_database: str) -> None:
    dedicated = Dedicated(fresh_database, lent=True)
    with psycopg.connect(fresh_database) as other:
        other.execute("lock table task")
        with pytest.raises(Busy):
            await dedicated.many("select from task")
    assert await dedicated.many("select from task") == []
    await dedicated.close()


async def test_who_is_lent_no_connection_is_told_so_in_time(
    postgres: str, fresh_database: str
) -> None:
    """And has changed nothing; PgBouncer itself would hold the call for two minutes."""
    program = found() or pytest.skip("there is no pgbouncer here")
    between = Bouncer(program, postgres, connections=1)
    try:
        conninfo = between.conninfo(fresh_database)
        async with open_pool(conninfo, 1, 0.5, 30, lent=True) as db:
            with psycopg.connect(conninfo, prepare_threshold=None) as other:
                other.execute("select")
                for _ in range(2):
                    with pytest.raises(Problem, match="database_unavailable") as told:
                        await db.many("select 1")
                    assert not isinstance(told.value, ConnectionLost)
                with pytest.raises(Problem, match="database_unavailable"):
                    async with db.transaction() as both:
                        await both.many("select 1")
            assert await db.many("select 1") == [(1,)]
    finally:
        between.stop()


def test_readiness_says_that_no_notification_comes_back(behind: World) -> None:
    """And that the server is ready all the same; its log names what is missing."""
    told = behind.admin.get("/readyz")
    assert (told.ready, told.degraded) == (True, True)
    assert (told.checks.notify.ok, told.checks.notify.age_seconds) == (False, None)
    behind.server.until_told("notifications_missing")


def test_a_claim_that_waits_gets_what_another_server_makes(behind: World, lent: Start) -> None:
    """P7: unheard, at the next poll."""
    workspace = behind.workspace()
    far = Client(lent().http, workspace.operator.key)
    with ThreadPoolExecutor(1) as pool:
        claim = pool.submit(workspace.agent().claim, wait_seconds=30)
        behind.until_waiting()
        task = far.post("/api/tasks", title="t", auto_enqueue_on_ready=True).task
        held = claim.result()
    assert held.task_id == task.id
    held.complete(result=1)
    assert workspace.get(task.id).status == "completed"


def test_a_stream_gets_what_another_server_writes(behind: World, lent: Start) -> None:
    """P9: in the order of the log, each event once."""
    workspace = behind.workspace()
    task = workspace.task()
    far = Client(lent().http, workspace.operator.key)
    with subscribed(workspace.operator, f"/api/tasks/{task.id}/stream") as stream:
        seen = stream.until("ready")
        for n in range(6):
            far.patch(f"/api/tasks/{task.id}", title=f"title {n}")
        while len(seen) < len(workspace.events(task_id=task.id)):
            frame = stream.next()
            assert frame is not None
            seen.append(frame)
    assert [frame.id for frame in seen] == [e.sequence for e in workspace.events(task_id=task.id)]


def test_agents_work_and_the_loops_run(lent: Start) -> None:
    """P1, P8: with every connection lent, those of batchers and loops as well."""
    world = World(lent(WORKLEASE_LOOPS=True).server)
    workspace = world.workspace()
    for _ in range(30):
        workspace.task()
    agents = [workspace.agent() for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        held = list(pool.map(lambda n: agents[n % 8].claim(), range(30)))
        list(pool.map(lambda each: each.complete(result=1), held))
    told = workspace.told()
    assert (told.count("task.run_claimed"), told.count("task.run_completed")) == (30, 30)
    assert workspace.faults() == {}
    world.close()
    assert world.server.errors() == []
