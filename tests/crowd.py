"""A crowd of callers, each on a connection of its own, that call at the same moment.

Cheap on purpose: a request is bytes made before the race, and an answer is hardly looked at.
"""

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar, cast
from urllib.parse import urlsplit

import msgspec
import uvloop

from tests.client import Client

T = TypeVar("T")
HEAD_END = b"\r\n\r\n"
LENGTH = b"content-length: "
PATIENCE_SECONDS = 60


class Reply(NamedTuple):
    """An answer; `told` decodes it."""

    status: int
    body: bytes

    @property
    def told(self) -> Any:
        return msgspec.json.decode(self.body) if self.body else None

    @property
    def code(self) -> str | None:
        """What was refused; None if nothing was."""
        code: str | None = self.told["diagnostic"]["code"] if self.status >= 400 else None
        return code


def request(by: Client, method: str, path: str, body: Any = None, key: str = "") -> bytes:
    """A request of this caller, as it goes over the wire."""
    content = b"" if body is None else msgspec.json.encode(body)
    headers = {**by.sent(), "Host": "worklease.test", "Content-Length": str(len(content))}
    if key:
        headers["Idempotency-Key"] = key
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {told}" for name, told in headers.items())]
    return "\r\n".join(lines).encode() + HEAD_END + content


class Line(asyncio.Protocol):
    """One connection that stays open; one question at a time."""

    def __init__(self) -> None:
        self._buffer = b""
        self._answer: asyncio.Future[Reply] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def ask(self, request: bytes) -> "asyncio.Future[Reply]":
        """Sends a request; the answer comes later."""
        assert self._answer is None
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(HEAD_END)
        told = head.lower().partition(LENGTH)[2].partition(b"\r\n")[0]
        if found and len(body) == int(told or 0):
            self._buffer, answer, self._answer = b"", self._answer, None
            assert answer is not None
            if not answer.done():  # nobody waits for it any more
                answer.set_result(Reply(int(head[9:12]), body))

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set_result(None)
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or EOFError("the server hung up"))

    async def close(self) -> None:
        """Hangs up."""
        self.transport.abort()
        await self.closed


class Crowd:
    """Open connections, dealt out over some servers."""

    def __init__(self, runner: asyncio.Runner, lines: list[Line]) -> None:
        self._runner, self.lines = runner, lines

    def at_once(self, requests: Sequence[bytes]) -> list[Reply]:
        """The answers; every request is on its way before the first answer comes."""
        return self.together([_asked(*each) for each in zip(self.lines, requests, strict=False)])

    def together(self, lives: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
        """Runs what several callers do side by side, to its end."""

        async def live() -> list[T]:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await asyncio.gather(*lives)

        return self._runner.run(live())


@contextmanager
def crowd(urls: Sequence[str], count: int) -> Iterator[Crowd]:
    """So many connections, to these servers in turn."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        lines = [runner.run(_open(urls[n % len(urls)])) for n in range(count)]
        try:
            yield Crowd(runner, lines)
        finally:
            for line in lines:
                runner.run(line.close())


async def _open(url: str) -> Line:
    place, loop = urlsplit(url), asyncio.get_running_loop()
    _, line = await loop.create_connection(Line, place.hostname or "", place.port or 0)
    return line


async def _asked(line: Line, request: bytes) -> Reply:
    return await line.ask(request)
