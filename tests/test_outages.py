"""A server without its database says so and recovers by itself; one that is told to stop drains."""

import random
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict

from server.db.listen import listen
from server.db.pool import Dedicated, open_pool
from tests.client import Client
from tests.crowd import Line, crowd, request
from tests.factories import Agent, Workspace
from tests.streams import subscribed
from tests.world import Servers, World

DROP_ALL = """
select count(pg_terminate_backend(pid)) from pg_stat_activity
 where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'
"""
CLAIM = "/api/agent/tasks/claim-next"
DROPS, LOADS = 4, 16


class Work:
    """Calls that go on while connections to the database are dropped."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.met: Counter[str] = Counter()
        self.made: list[str] = []
        self.completed: list[str] = []
        self.over = False

    async def goes_on(self, line: Line, agent: Agent) -> None:
        """Makes a task, claims one and completes it, until all drops have been got over."""
        while not self.over:
            body = {"title": "t", "auto_enqueue_on_ready": True}
            made = await self._call(line, request(agent, "POST", "/api/tasks", body))
            self.made += [made["task"]["id"]] if made else []
            claimed = await self._call(line, request(agent, "POST", CLAIM, {}))
            if claimed:
                lease = claimed["claim"]["lease"]
                path = f"/api/agent/tasks/{lease['run_id']}/complete"
                done = request(agent, "POST", path, {"claim_token": lease["claim_token"]})
                if await self._call(line, done):
                    self.completed.append(lease["run_id"])

    async def _call(self, line: Line, call: bytes) -> Any:
        reply = await line.ask(call)
        self.met[reply.code or str(reply.status)] += 1
        return reply.told if reply.status < 300 else None

    async def drop(self, line: Line) -> None:
        """Drops every connection, each time after some more calls went well."""
        dice = random.Random(1)
        look = request(self.workspace.operator, "GET", "/api/tasks?limit=1")
        for drop in range(DROPS + 1):
            if drop > 0:
                self.workspace.world.db.execute(DROP_ALL)
            enough = self.met + Counter({"201": dice.randint(5, 15), "looked": 10})
            while self.met["201"] < enough["201"] or self.met["looked"] < enough["looked"]:
                reply = await line.ask(look)
                self.met[reply.code or "looked"] += 1
        self.over = True


def test_a_server_whose_connections_are_all_dropped_goes_on(lonely: World) -> None:
    """P5, P8: clients see errors that may be tried again, and no other; nothing told is lost."""
    workspace = lonely.workspace()
    work, agents = Work(workspace), [workspace.agent() for _ in range(LOADS)]
    with crowd([lonely.server.url], LOADS + 1) as callers:
        dropper, *lines = callers.lines
        lives = [work.goes_on(*each) for each in zip(lines, agents, strict=True)]
        callers.together([work.drop(dropper), *lives])
    assert work.met["database_unavailable"] > 0
    assert work.met.keys() <= {"200", "201", "204", "looked", "database_unavailable"}
    with subscribed(workspace.operator, f"/api/tasks/{work.made[0]}/stream") as stream:
        stream.until("ready")
        workspace.operator.patch(f"/api/tasks/{work.made[0]}", title="still here")
        frame = stream.next()
        assert frame is not None
        assert frame.event == "task.updated"
    told = Counter((e.event_type, e.run_id or e.task_id) for e in workspace.log())
    done = [("task.run_completed", run_id) for run_id in work.completed]
    made = [("task.created", task_id) for task_id in work.made]
    assert {told[each] for each in done + made} == {1}
    assert workspace.faults() == {}


def test_a_server_that_is_told_to_stop_ends_waits_and_streams(
    workspace: Workspace, servers: Servers
) -> None:
    """Long-polls answer that there is nothing, streams end, and the exit status is 0."""
    further, task = servers.start(), workspace.task(auto_enqueue_on_ready=False)
    admin = Client(further.http, workspace.world.admin.key)
    agent = Agent(further.http, workspace.key("agent"), **workspace.agent().headers)
    own = Client(further.http, workspace.operator.key)
    with ThreadPoolExecutor(1) as pool:
        with subscribed(own, f"/api/tasks/{task.id}/stream") as stream:
            stream.until("ready")
            claim = pool.submit(agent.claims, wait_seconds=55)
            workspace.world.until_waiting(2, at=admin)
            further.server.process.send_signal(signal.SIGTERM)
            assert stream.rest() == []
        assert claim.result() == []
    assert further.server.stop() == 0
    assert further.server.errors() == []


def test_a_server_that_is_told_to_stop_finishes_what_is_under_way(
    world: World, workspace: Workspace, servers: Servers
) -> None:
    """P5: a batch that is at the database is answered before the process ends."""
    further = servers.start()
    agent = Agent(further.http, workspace.key("agent"), **workspace.agent().headers)
    task = workspace.task()
    held = agent.claim()
    with ThreadPoolExecutor(1) as pool:
        with workspace.locked("log"):
            done = pool.submit(held.complete, result=1)
            world.until_blocked()
            further.server.process.send_signal(signal.SIGTERM)
            further.server.until_told("server_draining")
        assert done.result().lease.status == "completed"
    assert (further.server.stop(), workspace.get(task.id).status) == (0, "completed")


async def test_every_connection_notices_when_the_database_is_gone(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that vanished without a word is given up after seconds, not after hours."""
    connect, ways = AsyncConnection.connect, []

    async def noted(conninfo: str = "", **how: Any) -> AsyncConnection[Any]:
        ways.append(conninfo_to_dict(conninfo))
        return await connect(conninfo, **how)

    monkeypatch.setattr(AsyncConnection, "connect", noted)
    dedicated, listening = Dedicated(database), listen(database, "worklease")
    await dedicated.many("select 1")
    await dedicated.close()
    async with open_pool(database, 1, 5, 30) as db:
        await db.many("select 1")
    await anext(listening)
    await listening.aclose()
    assert [(way["keepalives_idle"], way["tcp_user_timeout"]) for way in ways] == [
        ("5", "15000")
    ] * 3
