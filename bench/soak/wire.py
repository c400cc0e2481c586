"""A client that costs next to nothing: requests and streams, on bare keep-alive connections."""

import asyncio
import time
from array import array
from typing import Any, NamedTuple, cast

import httptools
import msgspec


class Answer(NamedTuple):
    """What the server said, and how long it took."""

    status: int
    body: bytes
    ms: float

    def told(self) -> Any:
        """The body, read as JSON."""
        return msgspec.json.decode(self.body)


class Address(NamedTuple):
    """Where the server is, and the key to it."""

    port: int
    key: str

    def request(self, method: str, path: str, session: str, body: bytes = b"") -> bytes:
        """A request as it goes over the wire, with what agent_sdk sends along."""
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\n"
            f"Accept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\nUser-Agent: soak\r\n"
            f"Authorization: Bearer {self.key}\r\nContent-Type: application/json\r\n"
            f"X-Session-ID: {session}\r\nX-Agent-Name: local\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


class Connection(asyncio.Protocol):
    """One connection; one request at a time."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.WriteTransport | None = None
        self._body: list[bytes] = []
        self._answer: asyncio.Future[Answer] | None = None
        self._sent_at = 0.0

    async def ask(self, request: bytes) -> Answer:
        """Sends a request; its answer. Raises ConnectionError if the server hangs up."""
        if self._transport is None or self._transport.is_closing():
            raise ConnectionError("the server has closed a connection")
        self._answer = asyncio.get_running_loop().create_future()
        self._sent_at = time.perf_counter()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        """Hangs up."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands."""
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        """Something came."""
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        """A piece of an answer."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """An answer is whole."""
        body, self._body = b"".join(self._body), []
        if self._answer is not None and not self._answer.done():
            took = (time.perf_counter() - self._sent_at) * 1e3
            self._answer.set_result(Answer(self._parser.get_status_code(), body, took))

    def connection_lost(self, _: Exception | None) -> None:
        """The connection is gone."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("the server closed a connection"))


class Subscriber(Connection):
    """A stream: the sequences of the events that came, in the order in which they came."""

    def __init__(self) -> None:
        super().__init__()
        self.sequences = array("q")
        # What is no event, and ends or breaks a stream.
        self.trouble: list[str] = []
        self.ready = asyncio.get_running_loop().create_future()
        self._rest = b""

    def follow(self, request: bytes) -> None:
        """Asks for the stream."""
        assert self._transport is not None
        self._transport.write(request)

    def on_body(self, body: bytes) -> None:
        """Takes whole frames."""
        *frames, self._rest = (self._rest + body).split(b"\n\n")
        for frame in frames:
            if frame.startswith(b"id: "):
                self.sequences.append(int(frame[4 : frame.index(b"\n")]))
            elif frame.startswith(b"event: ready"):
                self.ready.set_result(None)
            elif not frame.startswith((b":", b"retry:")):
                self.trouble.append(frame.decode())

    def on_message_complete(self) -> None:
        """No stream ends by itself."""
        self._fail(f"ended with status {self._parser.get_status_code()}: {self._rest[:300]!r}")

    def connection_lost(self, error: Exception | None) -> None:
        """The server hung up, or we did."""
        if self._transport is not None and not self._transport.is_closing():
            self._fail(f"lost: {error}")

    def _fail(self, words: str) -> None:
        self.trouble.append(words)
        if not self.ready.done():
            self.ready.set_exception(ConnectionError(words))


async def connect(port: int) -> Connection:
    """A connection for requests."""
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(Connection, "127.0.0.1", port)
    return connection


async def subscribe(address: Address, path: str, session: str) -> Subscriber:
    """A stream that stands: what comes from now on it hears live."""
    loop = asyncio.get_running_loop()
    _, subscriber = await loop.create_connection(Subscriber, "127.0.0.1", address.port)
    subscriber.follow(address.request("GET", path, session))
    await subscriber.ready
    return subscriber
