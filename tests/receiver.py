"""A receiver of notifications on this machine, which answers as a test tells it to."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import msgspec
from standardwebhooks import Webhook

from tests.factories import Workspace


class Got(NamedTuple):
    """A request: its headers by lower-case name, its path and its body."""

    headers: dict[str, str]
    path: str
    body: bytes

    @property
    def told(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def sequence(self) -> int:
        return int(self.told["data"]["sequence"])

    def signed_by(self, secret: str) -> bool:
        """Whether one of its signatures is what the reference implementation makes."""
        # Its clock may be the tests', which no verification would take for the present.
        moment = datetime.fromtimestamp(int(self.headers["webhook-timestamp"]), UTC)
        wanted = Webhook(secret).sign(self.headers["webhook-id"], moment, self.body.decode())
        return wanted in self.headers["webhook-signature"].split(" ")


class Receiver:
    """What it got, and what it answers next; 204 unless told otherwise."""

    def __init__(self) -> None:
        self.got: list[Got] = []
        # Of those what it was content with.
        self.taken: list[Got] = []
        self.answers: list[tuple[int, dict[str, str], bytes]] = []
        self.open = threading.Event()
        self.open.set()
        self.came = threading.Semaphore(0)
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?a=1"

    def answer(self, status: int, body: bytes = b"", /, **headers: str) -> None:
        """The answer to the next request that has none yet."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers.append((status, named, body))

    def sequences(self) -> list[int]:
        """Of the events that it was told, in the order in which they came."""
        return [got.sequence for got in self.got]

    def take(self, got: Got) -> tuple[int, dict[str, str], bytes]:
        """Takes a request, and waits until the receiver is open."""
        self.got.append(got)
        status = self.answers.pop(0) if self.answers else (204, {}, b"")
        self.taken += [got] * (status[0] < 300)
        self.came.release()
        self.open.wait(60)
        return status


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver that listens within the block."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, told, answer = receiver.take(Got(headers, self.path, body))
            self.send_response(status)
            for name, value in told.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            """Nothing: the test reads what came."""

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """Nothing: a sender may leave before its answer."""

    with Quiet(("127.0.0.1", 0), Handler) as server:
        receiver.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield receiver
        finally:
            receiver.open.set()
            server.shutdown()
            thread.join()


def bridge(workspace: Workspace, url: str, name: str = "hook", **fields: Any) -> Any:
    """A bridge to this URL, with its secret."""
    return workspace.operator.post("/api/bridges", name=name, url=url, **fields).bridge


def subscribe(workspace: Workspace, task_id: str, to: Any, **fields: Any) -> Any:
    """Sends the events of a task to a bridge."""
    body = {"bridge_instance_id": to.id, "delivery_mode": "direct-send", **fields}
    path = f"/api/tasks/{task_id}/notifications/bridges"
    return workspace.operator.post(path, **body).subscription


def cursor(workspace: Workspace, subscription: Any) -> Any:
    """How far a subscription has been told."""
    path = f"/api/tasks/{subscription.task_id}/notifications/bridges"
    return workspace.operator.get(f"{path}/{subscription.subscription_id}").subscription.cursor


def attempts(workspace: Workspace, to: Any, **query: Any) -> list[Any]:
    """The attempts over a bridge, oldest first."""
    path = f"/api/bridges/{to.id}/deliveries"
    told = workspace.operator.get(path, limit=500, **query).deliveries
    return list(reversed(told))
