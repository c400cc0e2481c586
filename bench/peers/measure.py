"""What is measured of each: jobs a second, pick-up on an idle queue, a worker that comes back."""

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from bench.peers.peer import Peer
from bench.stage import percentiles

START_SECONDS = 60
WARM_UP_SECONDS = 1.0
LOOK_SECONDS = 0.5
STEP_SECONDS = 300
TAKE_OVER_SECONDS = 90
# How long a completion may take that a worker hands in.
HAND_IN_SECONDS = 3.0
# A lock younger than its worker's first sign of life would not be the rule.
SETTLE_SECONDS = 2.0


class Program:
    """A peer's program on one database."""

    def __init__(
        self, peer: Peer, conninfo: str, url: str, directory: Path, environment: dict[str, str]
    ) -> None:
        self.peer, self.conninfo = peer, conninfo
        self._url, self._directory, self._environment = url, directory, environment

    def do(self, verb: str, argument: object = "-") -> list[str]:
        """Runs it to its end; the lines it prints."""
        with self.begun(verb, argument) as process:
            told, _ = process.communicate(timeout=STEP_SECONDS)
        if process.returncode:
            raise SystemExit(f"{self.peer.name} {verb} failed, see {self.log}")
        return str(told).splitlines()

    @contextmanager
    def begun(self, verb: str, argument: object = "-") -> "Iterator[subprocess.Popen[str]]":
        """Runs it within the block."""
        with self.log.open("a") as log:
            process = subprocess.Popen(
                [*self.peer.command, self._url, verb, str(argument)],
                env=self._environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                text=True, bufsize=1,
            )  # fmt: skip
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None and not pipe.closed:
                    pipe.close()

    @property
    def log(self) -> Path:
        """Where its complaints go."""
        return self._directory / f"{self.peer.command[-1].rpartition('/')[2]}.log"

    def ask(self, statement: Any) -> Any:
        """The first value of a statement on its database."""
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            row = connection.execute(statement).fetchone()
        return row[0] if row else None

    def run(self, statement: Any) -> None:
        """Runs a statement on its database."""
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            connection.execute(statement)


def jobs_per_second(program: Program, how: str, seconds: float) -> float:
    """Jobs whose end is committed, per second, while there are some left."""
    program.do("fill", program.peer.fills[how])
    program.run("vacuum (analyze)")
    program.run("checkpoint")
    with (
        psycopg.connect(program.conninfo, autocommit=True) as connection,
        program.begun("work", how) as process,
    ):
        _until_begun(connection, program, how)
        time.sleep(WARM_UP_SECONDS)
        counts = [(time.monotonic(), _count(connection, program.peer))]
        while counts[-1][1] and counts[-1][0] < counts[0][0] + seconds:
            time.sleep(LOOK_SECONDS)
            counts.append((time.monotonic(), _count(connection, program.peer)))
        if process.poll() is not None:
            raise SystemExit(f"{program.peer.name} ended early, see {program.log}")
    busy = [(at, left) for at, left in counts if left]
    if len(busy) < 2:
        raise SystemExit(f"{program.peer.name} {how}: too few jobs were queued")
    (began, before), (ended, after) = busy[0], busy[-1]
    return (before - after) / (ended - began)


def _until_begun(connection: "psycopg.Connection[Any]", program: Program, how: str) -> None:
    end = time.monotonic() + START_SECONDS
    while _count(connection, program.peer) >= program.peer.fills[how]:
        if time.monotonic() > end:
            raise SystemExit(f"{program.peer.name} does nothing, see {program.log}")
        time.sleep(0.1)


def _count(connection: "psycopg.Connection[Any]", peer: Peer) -> int:
    row = connection.execute(peer.left).fetchone()
    return int(row[0]) if row else 0


def pick_up(program: Program, times: int) -> dict[str, float]:
    """From before the call that queues a job until its handler runs, in milliseconds."""
    return percentiles([float(line.split()[1]) for line in program.do("pickup", times)])


def come_back(program: Program) -> dict[str, Any]:
    """A worker is stopped with a job until another has it, comes back, and ends the job."""
    program.do("send")
    with program.begun("hold") as first:
        if not _says(first, "began", TAKE_OVER_SECONDS):
            raise SystemExit(f"{program.peer.name}: nobody began, see {program.log}")
        time.sleep(SETTLE_SECONDS)
        first.send_signal(signal.SIGSTOP)
        stopped = time.monotonic()
        if program.peer.age is not None:
            program.run(program.peer.age)
        with program.begun("hold") as second:
            taken = _says(second, "began", TAKE_OVER_SECONDS)
            took = time.monotonic() - stopped
            first.send_signal(signal.SIGCONT)
            _go_on(first)
            ended = _says(first, "ended", HAND_IN_SECONDS)
            time.sleep(HAND_IN_SECONDS)
            counted = bool(program.ask(program.peer.held_is_done))
            if taken:
                _go_on(second)
                _says(second, "ended", HAND_IN_SECONDS)
                time.sleep(HAND_IN_SECONDS)
            done = bool(program.ask(program.peer.held_is_done))
    return {
        "taken_over": taken, "after_seconds": round(took, 1), "stale_handler_ended": ended,
        "stale_completion_counted": counted, "done_at_the_end": done,
    }  # fmt: skip


def _go_on(process: "subprocess.Popen[str]") -> None:
    if process.stdin is not None and process.poll() is None:
        process.stdin.write("go on\n")
        process.stdin.flush()


def _says(process: "subprocess.Popen[str]", word: str, seconds: float) -> bool:
    """Whether it prints the word in time."""
    assert process.stdout is not None
    end = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while selector.select(max(0.0, end - time.monotonic())):
            line = os.read(process.stdout.fileno(), 100).decode()
            if word in line or not line:
                return word in line
    return False
