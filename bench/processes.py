"""The processes of a benchmark: servers, the load, and what each of them used of the CPU."""

import http.client
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import msgspec

TOP = Path(__file__).parents[1]
SOURCE = Path(__file__).with_name("drive.c")
START_SECONDS = 30
STOP_SECONDS = 30
MOST_REQUESTS = 10_000_000
TICKS = os.sysconf("SC_CLK_TCK")
SECRET = "a secret of benchmarks, known to everybody"
# What a server inherits from whoever runs the benchmark: nothing that is a setting.
INHERITED = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}


class Server(NamedTuple):
    """One server process."""

    pid: int
    port: int


class Latency(msgspec.Struct):
    """How long the answers took."""

    count: int
    p50_ms: float
    p99_ms: float


class Drive(msgspec.Struct):
    """What the load tells."""

    seconds: float
    jobs: int
    claimed: int
    done: int
    requests: int
    dry: int
    errors: int
    unanswered: int
    cpu_seconds: float
    claim: Latency
    other: Latency


@contextmanager
def servers(count: int, conninfo: str, directory: Path) -> Iterator[list[Server]]:
    """Server processes on one database, each on a port of its own; they share keys and secret."""
    started = []
    try:
        with (directory.parent / "server.log").open("a") as log:
            started = [_start(conninfo, directory, log) for _ in range(count)]
        yield [Server(process.pid, _port(process)) for process in started]
    finally:
        for process in started:
            process.terminate()
        for process in started:
            _stop(process)


def _start(conninfo: str, directory: Path, log: IO[str]) -> subprocess.Popen[str]:
    settings = {
        "DATABASE_URL": conninfo,
        "WORKLEASE_SECRET": SECRET,
        "WORKLEASE_DATA_DIR": str(directory),
        "WORKLEASE_PORT": "0",
        "WORKLEASE_LOG_LEVEL": "warning",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "server"],
        cwd=TOP, env=INHERITED | settings, stdout=subprocess.PIPE, stderr=log, text=True,
    )  # fmt: skip


def _port(process: subprocess.Popen[str]) -> int:
    """The port a server says it listens on, once it is ready."""
    greeting = process.stdout.readline() if process.stdout else ""
    told = re.search(r":(\d+)$", greeting.strip())
    if told is None:
        raise SystemExit(f"the server did not start, see .bench/server.log: {greeting}")
    connection = http.client.HTTPConnection("127.0.0.1", int(told[1]), timeout=START_SECONDS)
    # The socket listens already: the answer comes when the server is up.
    connection.request("GET", "/readyz")
    if connection.getresponse().status != 200:
        raise SystemExit("the server is not ready, see .bench/server.log")
    connection.close()
    return int(told[1])


def _stop(process: subprocess.Popen[str]) -> None:
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout:
        process.stdout.close()


def compile_drive(directory: Path) -> Path:
    """The load as a program; raises SystemExit without a C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise SystemExit("the benchmark needs a C compiler (cc) for its load, and there is none")
    program = directory / "drive"
    subprocess.run([compiler, "-O2", "-Wall", "-o", str(program), str(SOURCE)], check=True)
    return program


def drive(
    program: Path, mode: str, running: list[Server], key: str, agents: int, seconds: float,
    body: str, requests: int = MOST_REQUESTS, warm_up: float = 1.0, rate: float = 0,
) -> Drive:  # fmt: skip
    """Lets agents work for a while; raises SystemExit at an answer that is no success.

    rate: so many claims a second; 0 for as many as they can.
    """
    ports = ",".join(str(server.port) for server in running)
    arguments = [mode, ports, agents, warm_up, seconds, requests, body, rate]
    told = subprocess.run(
        [str(program), *map(str, arguments)],
        env={"WORKLEASE_API_KEY": key}, check=False, capture_output=True, text=True,
        timeout=warm_up + seconds + 60,
    )  # fmt: skip
    if told.returncode:
        raise SystemExit(f"the load met errors: {told.stderr.strip()}\n{told.stdout}")
    return msgspec.json.decode(told.stdout, type=Drive)


class Usage(NamedTuple):
    """CPU seconds so far, and when."""

    at: float
    servers: float
    postgres: float
    everything: float


def usage(running: list[Server], postmaster: int) -> Usage:
    """What the servers, PostgreSQL and the whole machine used so far."""
    spent: dict[int, float] = {}
    of_postgres = 0.0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        fields = _stat(entry)
        if not fields:
            continue
        own = (int(fields[11]) + int(fields[12])) / TICKS
        spent[int(entry.name)] = own
        if int(entry.name) == postmaster:
            # With what its children used that have ended.
            of_postgres += own + (int(fields[13]) + int(fields[14])) / TICKS
        elif int(fields[1]) == postmaster:
            of_postgres += own
    totals = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    # All but idle and waiting for a disk; guests are counted in user time.
    busy = (sum(totals[:8]) - totals[3] - totals[4]) / TICKS
    of_servers = sum(spent.get(server.pid, 0.0) for server in running)
    return Usage(time.monotonic(), of_servers, of_postgres, busy)


def spent(pids: Iterable[int]) -> float:
    """CPU seconds so far of these processes; one that has ended counts as none."""
    used = (_stat(Path(f"/proc/{pid}")) for pid in pids)
    return sum((int(fields[11]) + int(fields[12])) / TICKS for fields in used if fields)


def _stat(process: Path) -> list[str]:
    """Its numbers, beginning with the state; empty if it has ended."""
    try:
        return (process / "stat").read_text().rpartition(") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
