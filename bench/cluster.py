"""The PostgreSQL of one benchmark run: an embedded cluster of its own, databases to throw away."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from server.db import embedded
from server.db.binaries import Account, programs

YARDSTICK = Path(__file__).with_name("yardstick")
YARDSTICK_CLIENTS = 8
YARDSTICK_LIMIT_SECONDS = 60
TPS = re.compile(r"^tps = ([\d.]+)", re.MULTILINE)

# Of the events behind a sequence: what happened to how many runs, and whether it happened twice.
COUNT_EVENTS = """
select count(*) filter (where event_type = 'task.run_claimed') as claims,
       count(distinct (run_id, payload ->> 'fence')) filter (where event_type = 'task.run_claimed')
         as claims_once,
       count(*) filter (where event_type = 'task.run_completed') as completions,
       count(distinct run_id) filter (where event_type = 'task.run_completed') as completions_once,
       count(*) filter (where event_type = 'task.created') as creations,
       count(distinct (run_id, payload ->> 'fence')) filter (where event_type in (
         'task.run_released', 'task.run_lease_expired', 'task.run_canceled')) as losses
  from event where sequence > %(after)s
"""
NEWEST_SEQUENCE = "select coalesce(max(sequence), 0) from event"
BACKENDS = """
select array_agg(pid) from pg_stat_activity
 where datname = current_database() and pid <> pg_backend_pid()
"""
YARDSTICK_COUNTS = """
select (select count(*) from event), (select count(*) from event where kind = 'completed'),
       (select count(*) from job where state = 2), (select max(attempt) from job)
"""


class Cluster:
    """One running PostgreSQL."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo

    def conninfo(self, database: str) -> str:
        """How to reach one of its databases."""
        return make_conninfo(self._conninfo, dbname=database)

    def ask(self, database: str, statement: LiteralString, **parameters: Any) -> tuple[Any, ...]:
        """The first row of a statement."""
        with psycopg.connect(self.conninfo(database), autocommit=True) as connection:
            row = connection.execute(statement, parameters).fetchone()
        return row or ()

    def execute(self, database: str, script: str) -> None:
        """Runs SQL text, statement by statement."""
        with psycopg.connect(self.conninfo(database), autocommit=True) as connection:
            for statement in script.split(";\n"):
                if statement.strip():
                    connection.execute(statement.encode())

    def make(self, database: str, template: str = "template0") -> None:
        """Makes a database, as a copy of another one; then a checkpoint, for equal beginnings."""
        self.drop(database)
        create = sql.SQL("create database {} template {}")
        with psycopg.connect(self.conninfo("postgres"), autocommit=True) as connection:
            connection.execute(create.format(sql.Identifier(database), sql.Identifier(template)))
            connection.execute("checkpoint")

    def drop(self, database: str) -> None:
        """Drops a database, if it is there."""
        drop = sql.SQL("drop database if exists {} with (force)")
        with psycopg.connect(self.conninfo("postgres"), autocommit=True) as connection:
            connection.execute(drop.format(sql.Identifier(database)))

    def postmaster(self) -> int:
        """The process that all others of this cluster descend from."""
        [row] = self.ask("postgres", "select pg_read_file('postmaster.pid')")
        return int(row.split()[0])

    def pgbench(self, script: str, length: str) -> float:
        """Transactions per second of a yardstick script; raises SystemExit if it miscounts."""
        self.make("yardstick")
        self.execute("yardstick", (YARDSTICK / "tables.sql").read_text())
        where = conninfo_to_dict(self.conninfo("yardstick"))
        told = subprocess.run(
            [
                _pgbench(), "--no-vacuum", "--protocol=prepared", f"--client={YARDSTICK_CLIENTS}",
                "--jobs=2", length, f"--file={YARDSTICK / script}",
            ],
            env={"PGHOST": str(where["host"]), "PGPORT": str(where["port"]),
                 "PGUSER": str(where["user"]), "PGPASSWORD": str(where["password"]),
                 "PGDATABASE": "yardstick"},
            check=False, capture_output=True, text=True, timeout=YARDSTICK_LIMIT_SECONDS,
        )  # fmt: skip
        found = TPS.search(told.stdout)
        if told.returncode or not found:
            raise SystemExit(f"pgbench failed:\n{told.stdout}{told.stderr}")
        events, completed, done, attempts = self.ask("yardstick", YARDSTICK_COUNTS)
        if not events == 2 * completed == 2 * done or attempts > 1:
            raise SystemExit(f"the yardstick miscounts: {events} events, {done} jobs done")
        self.drop("yardstick")
        return float(found[1])


def _pgbench() -> str:
    shipped = programs(Account.find()) / "pgbench"
    found = str(shipped) if shipped.exists() else shutil.which("pgbench")
    if found is None:
        raise SystemExit("there is no pgbench: neither in the embedded PostgreSQL nor on the PATH")
    return found


@contextmanager
def cluster(directory: Path) -> Iterator[Cluster]:
    """A cluster below this directory, removed at the end."""
    joined = embedded.join(directory)
    try:
        yield Cluster(joined.conninfo)
    finally:
        joined.leave()
        embedded.discard(directory)
