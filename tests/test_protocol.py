"""What never reaches an endpoint: heads without end, requests that stop, what is no HTTP."""

import asyncio
import socket
import time
from typing import Any

import httpx2
import msgspec
import pytest
import uvicorn
import uvloop
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from server import limits
from server.api.feed import pause
from server.contract.base import ErrorEnvelope
from server.protocol import Protocol
from tests.client import RefusedError
from tests.factories import Workspace, refused
from tests.world import World

TOO_MUCH = limits.HEAD_LIMIT_BYTES * 2


def _raw(world: World, *pieces: bytes) -> tuple[int, Any]:
    """Status and diagnostic of what is answered to these bytes, until the server hangs up."""
    url = httpx2.URL(world.server.url)
    with socket.create_connection((url.host, url.port or 80), timeout=60) as caller:
        answer = b""
        try:
            for piece in pieces:
                caller.sendall(piece)
            while more := caller.recv(65536):
                answer += more
        except (BrokenPipeError, ConnectionResetError):
            pass  # it hung up in the midst of what was sent
    head, _, body = answer.partition(b"\r\n\r\n")
    told = msgspec.json.decode(body, type=ErrorEnvelope).diagnostic
    assert f"x-request-id: {told.id.partition('.')[2]}" in head.decode().lower()
    assert "date: " in head.decode().lower()
    return int(head.split()[1]), told


@pytest.mark.parametrize(
    "pieces",
    [
        [b"GET / HTTP/1.1\r\nX-A: " + b"a" * TOO_MUCH + b"\r\n\r\n"],
        [b"GET / HTTP/1.1\r\nX-A: ", *[b"a" * 8192] * 64],
        [b"GET / HTTP/1.1\r\n", *[b"X-A: b\r\n" * 1024] * 64],
        [b"GET /", *[b"a" * 8192] * 64],
        [b"POST /api/tasks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
         *[b"X-A: b\r\n" * 1024] * 64],
    ],
    ids=["at once", "one header", "many headers", "an address", "trailers"],
)  # fmt: skip
def test_a_head_without_end_is_refused(world: World, pieces: list[bytes]) -> None:
    status, told = _raw(world, *pieces)
    if status != 401:  # what stands behind a body is met after the call was refused
        assert (status, told.code) == (431, "head_too_large")
        assert told.evidence == {"limit_bytes": limits.HEAD_LIMIT_BYTES}


@pytest.mark.parametrize(
    "piece",
    [b"hello\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/9.9\r\n\r\n",
     b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
     b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"],
)  # fmt: skip
def test_what_is_no_http_is_refused_in_the_words_of_the_contract(
    world: World, piece: bytes
) -> None:
    status, told = _raw(world, piece)
    assert (status, told.code) == (400, "invalid_query")


@pytest.mark.parametrize(
    "name", ["Authorization", "X-API-Key", "X-Session-ID", "X-Workspace", "Idempotency-Key"]
)
def test_a_header_that_says_who_calls_stands_once(workspace: Workspace, name: str) -> None:
    """Else the last one would win here, and perhaps the first one at what stands in between."""
    twice = [*workspace.operator.sent().items(), (name, "a"), (name.lower(), "a")]
    with workspace.unchanged(), refused(400, "invalid_query", parameter=name):
        own = workspace.operator
        answer = own.http.request("GET", "/api/tasks", headers=twice)
        raise RefusedError(answer)


async def test_a_connection_on_which_a_request_does_not_go_on_is_closed() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("no request was whole")

    config = uvicorn.Config(app, http=Protocol, timeout_keep_alive=1, lifespan="off")
    state, loop = ServerState(), asyncio.get_running_loop()
    serving = await loop.create_server(lambda: Protocol(config, state, {}), "127.0.0.1", 0)
    for said in (b"", b"GET / HTTP/1.1\r\nHos"):
        reader, writer = await asyncio.open_connection(*serving.sockets[0].getsockname())
        writer.write(said)
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
    serving.close()
    await serving.wait_closed()


def test_who_waits_may_leave_in_the_moment_in_which_the_wait_ends() -> None:
    """Else the timer would end what has been given up, and the log would tell of a fault."""
    told = []

    async def leave() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(context))
        for _ in range(100):
            waiter = asyncio.ensure_future(pause(0.0001))
            # Longer than the pause, in the turn in which it would end.
            loop.call_soon(_hold, loop.time() + 0.002)
            loop.call_soon(waiter.cancel)
            await asyncio.wait([waiter])

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(leave())
    assert told == []


def _hold(until: float) -> None:
    while time.monotonic() < until:
        pass
