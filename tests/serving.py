"""Real server processes, as a developer would start them."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import msgspec

from server.db import embedded
from server.rules.ids import new_id
from server.rules.tokens import new_api_key

ADMIN_KEY = new_api_key(new_id("key", 1))
SECRET = "a secret that all servers of a test share"
START = (sys.executable, "-m", "server")
STOP_SECONDS = 60
PATIENCE_SECONDS = 60
# The settings that lead a server to its database; a run may put PgBouncer between.
leads: Callable[[str], dict[str, str]] = lambda conninfo: {"DATABASE_URL": conninfo}  # noqa: E731


def until(reached: Callable[[], bool]) -> None:
    """Asks again and again, until it is so; fails if it never is."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not reached():
        assert time.monotonic() < end, "what was waited for did not come"


@contextmanager
def throwaway_postgres() -> Iterator[str]:
    """The conninfo of an embedded PostgreSQL that is gone afterwards."""
    data_dir = Path(tempfile.mkdtemp(prefix="worklease-test-"))
    postgres = embedded.join(data_dir, durable=False)
    try:
        yield postgres.conninfo
    finally:
        postgres.leave()
        embedded.discard(data_dir)


class Server:
    """One server process on a database; it logs into a file."""

    secret = SECRET.encode()

    def __init__(self, conninfo: str, directory: Path, **settings: object) -> None:
        self.conninfo = conninfo
        self.directory = directory
        self.log = directory / "server.log"
        given = {
            **leads(conninfo),
            "WORKLEASE_DATA_DIR": directory,
            "WORKLEASE_ADMIN_KEY": ADMIN_KEY,
            "WORKLEASE_SECRET": SECRET,
            "WORKLEASE_PORT": 0,
            **settings,
        }
        clean = {k: v for k, v in os.environ.items() if not k.startswith("WORKLEASE_")}
        environ = clean | {name: str(value) for name, value in given.items()}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(START, env=environ, stdout=subprocess.PIPE, stderr=log)
        assert self.process.stdout is not None
        # The first line tells the address; from then on connections queue until it serves.
        told = self.process.stdout.readline().decode()
        assert told.startswith("Worklease serves "), self.log.read_text()
        self.url = told.split()[-1]

    def is_ready(self) -> bool:
        """Whether it can work now."""
        try:
            return httpx2.get(f"{self.url}/readyz", trust_env=False).status_code == 200
        except httpx2.TransportError:
            return False

    def kill(self) -> None:
        """Ends the process without a word, as a crash does."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """Asks the process to end, and waits until it has; its exit status."""
        self._end(signal.SIGTERM)
        return self.process.returncode

    def until_told(self, event: str) -> None:
        """Returns when this stands in its log."""
        until(lambda: event in self.log.read_text())

    def errors(self, since: int = 0) -> list[dict[str, Any]]:
        """What was logged at error level behind this position of the log."""
        lines = self.log.read_bytes()[since:].splitlines()
        told = [msgspec.json.decode(line) for line in lines if line.startswith(b"{")]
        told += [{"level": "error", "text": line} for line in lines if not line.startswith(b"{")]
        return [line for line in told if line["level"] in ("error", "critical")]

    def _end(self, number: int) -> None:
        self.process.send_signal(number)
        self.process.wait(STOP_SECONDS)
        assert self.process.stdout is not None
        self.process.stdout.close()
