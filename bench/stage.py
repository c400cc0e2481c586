"""What every scenario stands on: the cluster, its prepared databases, the keys, the load."""

import http.client
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import psycopg

from bench.cluster import BACKENDS, COUNT_EVENTS, NEWEST_SEQUENCE, Cluster
from bench.processes import Drive, Server, Usage, drive, servers, spent, usage

FILL = Path(__file__).with_name("fill.sql").read_text()
EMPTY = "bench_empty"
FILLED = "bench_filled"
# What the loops would do about the log of the preparation, while something else is measured.
KEEP_UP = "select keep_digests(workspace_id, 1000000) from workspace"
# A queue that was prepared minutes ago is not to be told of as starved while something is measured.
PATIENT = """update workspace set settings = settings || '{"starvation_seconds": 86400}'"""
# A copy begins with cold buffers; what is measured is a server that has been running.
WARM = "select sum(pg_prewarm(oid)) from pg_class where relkind in ('r', 'i')"
BULK = 10_000
FILLED_BULKS = 4
ANSWER_SECONDS = 120
PAYLOAD = {"prompt": "Read the report, find what changed since the last one, and say why. " * 3}
Metrics = dict[str, float]


@dataclass(frozen=True)
class Stage:
    """A running cluster with a database without tasks and one with a queue."""

    cluster: Cluster
    directory: Path
    program: Path
    seconds: float

    @property
    def key(self) -> str:
        """The agents' key."""
        return (self.directory / "agent.key").read_text().strip()

    @contextmanager
    def serving(self, template: str, count: int = 1) -> Iterator["Run"]:
        """Servers on a fresh copy of a prepared database."""
        self.cluster.make("bench_run", template)
        self.cluster.ask("bench_run", WARM)
        with self.serving_on("bench_run", count) as run:
            yield run
        self.cluster.drop("bench_run")

    @contextmanager
    def serving_on(self, database: str, count: int = 1) -> Iterator["Run"]:
        """Servers on a database that stays."""
        conninfo = self.cluster.conninfo(database)
        with servers(count, conninfo, self.directory) as running:
            yield Run(self, database, running)

    def prepare(self) -> None:
        """Makes the prepared databases, the queue through the server's own bulk creation."""
        self.prepare_empty()
        self.cluster.make(FILLED, EMPTY)
        with self.serving_on(FILLED) as run:
            for _ in range(FILLED_BULKS):
                run.post("/api/tasks/bulk", bulk(BULK))
        self.cluster.execute(FILLED, KEEP_UP)
        self.cluster.execute(FILLED, "vacuum (analyze)")

    def prepare_empty(self) -> None:
        """Makes the database without tasks."""
        self.cluster.make(EMPTY)
        self.cluster.execute(EMPTY, "create extension pg_prewarm")
        with self.serving_on(EMPTY):
            pass
        self.cluster.execute(EMPTY, PATIENT)

    def queue(self, database: str, count: int) -> None:
        """Makes a database with this many queued runs, if it is not there yet."""
        known = "select true from pg_database where datname = %(name)s"
        if self.cluster.ask("postgres", known, name=database):
            return
        first = min(count, BULK)
        self.cluster.make(database, EMPTY)
        with self.serving_on(database) as run:
            run.post("/api/tasks/bulk", bulk(first))
        self.cluster.execute(database, KEEP_UP)
        with psycopg.connect(self.cluster.conninfo(database)) as connection:
            # The copies are whole, so their foreign keys need no look.
            connection.execute("set local session_replication_role = replica")
            connection.execute(FILL.encode(), {"copies": count // first - 1})
        self.cluster.execute(database, "vacuum (analyze);\ncheckpoint;\n")


class Run:
    """Servers on one database, and the load on them."""

    def __init__(self, stage: Stage, database: str, running: list[Server]) -> None:
        self._stage = stage
        self.database = database
        self.running = running

    def post(self, path: str, body: bytes) -> bytes:
        """One request; raises SystemExit if it fails."""
        return self.send("POST", path, body, {})

    def send(self, method: str, path: str, body: bytes, others: dict[str, str]) -> bytes:
        """One request with other headers than usual; raises SystemExit if it fails."""
        port = self.running[0].port
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
        connection.request(method, path, body, self.headers | others)
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        if answer.status // 100 != 2:
            raise SystemExit(f"{path} answered {answer.status}: {text[:500].decode()}")
        return text

    @property
    def headers(self) -> dict[str, str]:
        """What agent_sdk sends with every request."""
        return {
            "Authorization": f"Bearer {self._stage.key}",
            "Content-Type": "application/json",
            "X-Agent-Name": "local",
            "X-Session-ID": "bench",
        }

    def drive(self, mode: str, agents: int, body: str = "{}", **options: Any) -> Metrics:
        """Lets agents work, checks what the log says they did, and measures."""
        cluster, stage = self._stage.cluster, self._stage
        [after] = cluster.ask(self.database, NEWEST_SEQUENCE)
        before = self.usage()
        told = drive(stage.program, mode, self.running, stage.key, agents,
                     options.pop("seconds", stage.seconds), body, **options)  # fmt: skip
        after_it = self.usage()
        metrics = cores(before, after_it, told.cpu_seconds)
        check(mode, told, cluster.ask(self.database, COUNT_EVENTS, after=after))
        if told.seconds <= 0 or not told.other.count:
            raise SystemExit("the load ended before it was measured: too few runs in the queue")
        # Over the whole drive; steadier than the rate where something else uses the machine.
        each = 1e6 * (after_it.at - before.at) / max(told.done, 1)
        return metrics | {
            "server_us_each": metrics["server_cores"] * each,
            "postgres_us_each": metrics["postgres_cores"] * each,
            "per_second": told.jobs / told.seconds,
            "claim_p50_ms": told.claim.p50_ms,
            "claim_p99_ms": told.claim.p99_ms,
            "other_p50_ms": told.other.p50_ms,
            "other_p99_ms": told.other.p99_ms,
        }

    def backends(self) -> list[int]:
        """The processes of PostgreSQL that serve these servers."""
        [pids] = self._stage.cluster.ask(self.database, BACKENDS)
        return list(pids)

    def usage(self) -> Usage:
        """What was used of the CPU until now."""
        return usage(self.running, self._stage.cluster.postmaster())


def check(mode: str, told: Drive, counted: tuple[Any, ...]) -> None:
    """Compares what the load was answered with what the log holds; a difference ends it all."""
    claims, claims_once, completions, completions_once, creations, losses = counted
    right = {
        "work": (told.claimed, told.claimed, told.done, told.done, 0),
        "chain": (told.claimed, told.claimed, told.done, told.done, 0),
        "hold": (told.claimed, told.claimed, 0, 0, 0),
        "create": (0, 0, 0, 0, told.done),
    }[mode]
    held = (claims, claims_once, completions, completions_once, creations)
    if held != right or losses or (mode in {"work", "chain"} and told.claimed != told.done):
        raise SystemExit(f"integrity: the load was answered {told}, the log holds {counted}")


def cores(before: Usage, after: Usage, load: float) -> Metrics:
    """Who used how many cores; `others` is what had nothing to do with the benchmark."""
    lasted = after.at - before.at
    of_servers, of_postgres = after.servers - before.servers, after.postgres - before.postgres
    busy = after.everything - before.everything
    return {
        "server_cores": of_servers / lasted,
        "postgres_cores": of_postgres / lasted,
        "load_cores": load / lasted,
        "other_cores": max(0.0, busy - of_servers - of_postgres - load) / lasted,
    }


def percentiles(took: list[float]) -> Metrics:
    """The usual and the slow one of these milliseconds."""
    took = sorted(took)
    return {"p50_ms": took[len(took) // 2], "p99_ms": took[len(took) * 99 // 100]}


def idle(run: Run, seconds: float) -> Metrics:
    """What servers and the backends that serve them use while nobody asks for anything.

    Not the rest of PostgreSQL: it may be clearing up the databases of other scenarios.
    """
    processes, backends = [server.pid for server in run.running], run.backends()
    began, of_servers, of_postgres = time.monotonic(), spent(processes), spent(backends)
    time.sleep(seconds)
    lasted = time.monotonic() - began
    return {
        "server_cores": (spent(processes) - of_servers) / lasted,
        "postgres_cores": (spent(backends) - of_postgres) / lasted,
    }


def bulk(count: int, woven: bool = False) -> bytes:
    """A bulk creation; woven: each task waits for two of those before it."""
    tasks: list[dict[str, Any]] = []
    for n in range(count):
        task: dict[str, Any] = {"ref": f"t{n}", "title": f"Task {n}", "payload": PAYLOAD}
        if woven and n:
            reach = min(n, 500)
            back = {7 * n % reach, (7 * n + reach // 2) % reach}
            task["depends_on_refs"] = [f"t{n - 1 - far}" for far in sorted(back)]
        tasks.append(task)
    return msgspec.json.encode({"tasks": tasks})
