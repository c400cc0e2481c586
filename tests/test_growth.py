"""What a call reads does not grow with what is stored, also where nothing was ever analyzed."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from tests.factories import Agent, Workspace
from tests.serving import until
from tests.world import Process, Servers, World

NO_VACUUM = """
select format('alter table %I set (autovacuum_enabled = false)', relname)
  from pg_stat_user_tables
"""
READS = """
select relname, coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) + (
         select coalesce(sum(i.idx_tup_read), 0)::bigint from pg_stat_user_indexes i
          where i.relid = t.relid)
  from pg_stat_user_tables t
"""
CLIENTS = """
select coalesce(array_agg(pid), '{}') from pg_stat_activity
 where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'
"""
CYCLES = 20


def _work(workspace: Workspace, cycles: int) -> None:
    """What agents do all day."""
    agent = workspace.agent()
    for n in range(cycles):
        first = workspace.task()
        workspace.task(depends_on=[first.id])
        workspace.task(concurrency_key="few", concurrency_limit=4, priority="high")
        agent.claim(priority_min="high").complete()
        held = agent.claim(f"k{n}", lease_seconds=60)
        held.heartbeat()
        held.heartbeat(checkpoint=n)
        agent.claim().fail(retryable=False)
        agent.claim().release()
        held.complete(result=n)


def _fill(workspace: Workspace, filler: Process, tasks: int) -> None:
    """Tasks that are ready, leased and done; and as many that share a few slots."""
    agent = Agent(filler.http, workspace.key("agent"), **workspace.agent().headers)
    items = [{"ref": str(n), "title": "t"} for n in range(tasks)]
    agent.post("/api/tasks/bulk", tasks=items)
    defaults = {"concurrency_key": "few", "concurrency_limit": 4}
    agent.post("/api/tasks/bulk", tasks=items, defaults=defaults)
    for _ in range(tasks // 40):
        for held in agent.claims(max_runs=20)[:10]:
            held.complete()


def _reads(conninfo: str, directory: Path, tasks: int) -> Counter[str]:
    """The rows and index entries that the same work reads beside so many tasks, by table.

    The plans of the server that works are made while the tables are all but empty.
    """
    directory.mkdir()
    servers = Servers(conninfo, directory)
    try:
        with psycopg.connect(conninfo, autocommit=True) as own:
            for [statement] in own.execute(NO_VACUUM).fetchall():
                own.execute(statement)
            return _measured(own, servers, tasks)
    finally:
        servers.stop()


def _measured(own: psycopg.Connection[Any], servers: Servers, tasks: int) -> Counter[str]:
    filler, world = servers.start(), World(servers.start().server)
    workspace = world.workspace()
    for _ in range(3):
        workspace.task()
    _work(workspace, 8)
    workers = _clients(own)
    _fill(workspace, filler, tasks)
    filler.server.stop()
    before = _told(own, workers)
    _work(workspace, CYCLES)
    world.close()
    servers.stop()
    return _told(own, set()) - before


def _clients(own: psycopg.Connection[Any]) -> set[int]:
    [[pids]] = own.execute(CLIENTS)
    return set(pids)


def _told(own: psycopg.Connection[Any], workers: set[int]) -> Counter[str]:
    """What was read so far; a connection tells its part when it ends."""
    until(lambda: not _clients(own) - workers)
    return Counter(dict(own.execute(READS).fetchall()))


def test_what_a_call_reads_does_not_grow_with_what_is_stored(
    new_database: Callable[[bool], str], tmp_path: Path
) -> None:
    few = _reads(new_database(True), tmp_path / "few", 100)
    many = _reads(new_database(True), tmp_path / "many", 3000)
    assert {table: (few[table], n) for table, n in many.items() if n > 1.5 * few[table] + 50} == {}
