"""A server of one's own on this machine: a process, a directory, an embedded database, keys."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from agent_sdk.client import Client
from agent_sdk.errors import WorkleaseError

START_SECONDS = 90.0
STOP_SECONDS = 30.0
POLL_SECONDS = 0.1
LEASH = Path(__file__).with_name("leash.py")


class Server:
    """A running server: `url`, clients for its keys, and its clock."""

    def __init__(self, directory: Path, port: int, *, test_clock: bool) -> None:
        self.directory = directory
        self.url = f"http://127.0.0.1:{port}"
        self.log = directory / "server.log"
        self._port = port
        self._test_clock = test_clock
        self._process: subprocess.Popen[bytes] | None = None
        self._clients: list[Client] = []

    @property
    def environment(self) -> dict[str, str]:
        """The environment of this server's processes, and of agents that are to find it."""
        ours = ("WORKLEASE_", "DATABASE_")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        return {
            **inherited,
            "WORKLEASE_DATA_DIR": str(self.directory),
            "WORKLEASE_PORT": str(self._port),
            "WORKLEASE_TEST_CLOCK": str(self._test_clock).lower(),
            "WORKLEASE_URL": self.url,
        }

    @property
    def admin(self) -> Client:
        """A new client with the administrator's key."""
        return self.client(api_key=self._key("admin.key"))

    @property
    def agent(self) -> Client:
        """A new client with the local agent's key: another session with every use."""
        return self.client(api_key=self._key("agent.key"), agent_name="local")

    def client(self, **options: Any) -> Client:
        """A new client of this server, closed with it."""
        client = Client(self.url, **options)
        self._clients.append(client)
        return client

    def workspace(self, *agents: str) -> tuple[Client, ...]:
        """A new workspace: a client for its operator, then one for each agent, else for `agent`."""
        name = f"test-{uuid4().hex[:12]}"
        self.admin.workspaces.create(name)
        operator = self.admin.keys.create("operator", "operator", workspace=name)
        keys = [
            operator,
            *(self.admin.keys.create(a, "agent", workspace=name) for a in agents or ("agent",)),
        ]
        return tuple(self.client(api_key=key.secret) for key in keys)

    def advance(self, seconds: float) -> None:
        """Move the server's clock forward; its loops see it at their next pass."""
        self._command("clock", "advance", str(seconds))

    def start(self) -> None:
        """Start the process and wait until it can work."""
        command = [sys.executable, "-P", str(LEASH), sys.executable, "-m", "server", "serve"]
        with self.log.open("ab") as log:
            # A session of its own: Ctrl-C is for us, and we stop the server when we are done.
            self._process = subprocess.Popen(
                command,
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        until = time.monotonic() + START_SECONDS
        while not self._ready():
            if not self._alive(POLL_SECONDS) or time.monotonic() > until:
                raise WorkleaseError(f"the server did not start:\n{self.log.read_text()[-4000:]}")

    def stop(self) -> None:
        """Stop the process as an administrator would."""
        if self._process is None:
            return
        if self._process.stdin is not None:
            self._process.stdin.close()  # the end of its leash
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """End the process without a word, as a crash would; its database goes on."""
        process, self._process = self._process, None
        if process is None:
            return
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdin is not None:
            process.stdin.close()

    def close(self) -> None:
        """Stop the server, close the clients, and remove the database."""
        for client in self._clients:
            client.close()
        self.stop()
        if (self.directory / "database.key").exists():
            self._command("discard", str(self.directory))

    def _ready(self) -> bool:
        try:
            with Client(self.url, api_key="none") as client:
                return client.readyz().ready
        except WorkleaseError:
            return False

    def _alive(self, seconds: float) -> bool:
        if self._process is None:
            return False
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return True
        return False

    def _command(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "server", *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, check=False)
        if done.returncode != 0:
            raise WorkleaseError(done.stderr.decode())

    def _key(self, name: str) -> str:
        return (self.directory / name).read_text().strip()


@contextmanager
def running_server(*, test_clock: bool = False) -> Iterator[Server]:
    """A server that lives within the block; with `test_clock` its clock can be moved."""
    with tempfile.TemporaryDirectory(prefix="worklease-", ignore_cleanup_errors=True) as directory:
        server = Server(Path(directory), _free_port(), test_clock=test_clock)
        try:
            server.start()
            yield server
        finally:
            server.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
