"""Times dashboard and inbox over a large workspace, and what keeping their digests costs.

    python -m bench.observe --tasks 1000000

makes a database of its own on the given server (DATABASE_URL) or on an embedded one, fills it by
SQL with so many tasks and five times as many events, keeps the digests, asks, prints, and drops it.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from server.db import embedded, schema

FILL = Path(__file__).with_name("observe.sql")
DASHBOARD = "select read_dashboard('bench', {scope}, {kind}, {ref}, {channel}, null, 300)"
INBOX = """
select * from read_inbox('{{"workspace_id": "bench", "actor_kind": "human", "actor_ref": "owner-1",
  "count": 50 {more}}}', '{{my_work,approvals,failed_runs,blocked,archived}}')
"""
ASKED = {
    "dashboard": DASHBOARD.format(scope="null", kind="null", ref="null", channel="null"),
    "dashboard of a scope": DASHBOARD.format(
        scope="'workspace'", kind="null", ref="null", channel="null"
    ),
    "dashboard of an owner": DASHBOARD.format(
        scope="null", kind="'human'", ref="'owner-7'", channel="null"
    ),
    "dashboard of a channel": DASHBOARD.format(
        scope="null", kind="null", ref="null", channel="'channel-3'"
    ),
    "inbox": INBOX.format(more=""),
    "inbox of an owner": INBOX.format(more=', "owner_kind": "human", "owner_ref": "owner-7"'),
    "inbox of a rare word": INBOX.format(more=', "query": "task 77777"'),
    "inbox, unread": INBOX.format(more=', "unread": true'),
    "gauges": "select * from measure_gauges()",
}
KEEP = "select events from keep_digests('bench', 5000)"
TIMES = 7


def main() -> None:
    """Fills, keeps, asks, prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--keep", action="store_true", help="do not drop the database")
    arguments = parser.parse_args()
    with _database(arguments.keep) as conninfo, psycopg.connect(conninfo, autocommit=True) as db:
        _timed("fill", lambda: _fill(db, arguments.tasks))
        _timed("keep the digests", lambda: _keep(db, arguments.tasks))
        db.execute("vacuum analyze")
        _ask(db)


@contextmanager
def _database(keep: bool) -> Iterator[str]:
    url = os.environ.get("DATABASE_URL")
    data_dir = Path(tempfile.mkdtemp(prefix="worklease-bench-"))
    server = None if url else embedded.join(data_dir)
    base = url or (server.conninfo if server else "")
    name = sql.Identifier(f"worklease_bench_{token_hex(4)}")
    with psycopg.connect(base, autocommit=True) as db:
        db.execute(sql.SQL("create database {}").format(name))
        conninfo = make_conninfo(base, dbname=name.as_string().strip('"'))
        schema.apply(conninfo)
        print(name.as_string())
        yield conninfo
        if not keep:
            db.execute(sql.SQL("drop database {} with (force)").format(name))
    if server:
        server.leave()
        embedded.discard(data_dir)


def _fill(db: "psycopg.Connection[tuple[int]]", tasks: int) -> None:
    db.execute("set session_replication_role = replica")
    for statement in FILL.read_text().split(";\n"):
        if statement.strip():
            db.execute(statement.replace(":tasks", str(tasks)).encode())
    db.execute("set session_replication_role = origin")
    db.execute("vacuum analyze")


def _keep(db: "psycopg.Connection[tuple[int]]", tasks: int) -> None:
    began, cpu, events = time.perf_counter(), 0.0, 0
    while kept := sum(db.execute(KEEP).fetchone() or ()):
        events += kept
        if events == min(100_000, tasks):
            cpu = time.perf_counter() - began
            print(f"  {1e6 * cpu / events:.1f} µs an event at the beginning")
    if events:
        print(f"  {1e6 * (time.perf_counter() - began) / events:.1f} µs an event in all")


def _ask(db: "psycopg.Connection[tuple[int]]") -> None:
    for name, statement in ASKED.items():
        times = []
        for _ in range(TIMES):
            began = time.perf_counter()
            db.execute(statement.encode()).fetchall()
            times.append(1000 * (time.perf_counter() - began))
        print(f"{name:<24} first {times[0]:7.1f} ms, median {sorted(times)[TIMES // 2]:7.1f} ms")


def _timed(name: str, do: Callable[[], None]) -> None:
    began = time.perf_counter()
    do()
    print(f"{name}: {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()
