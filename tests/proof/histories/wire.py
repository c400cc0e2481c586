"""A small proxy between clients and servers: writes every call down, and is a bad network.

Each connection of a client leads to one server at a time, and to another one if that is gone.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

from tests.proof.histories.calls import Call, Ledger

HEAD_END = b"\r\n\r\n"
BIGGEST = 1 << 24
# Of a thousand calls so many suffer this; `cut` is a connection that breaks before the answer.
RATES = {"lost": 8, "doubled": 8, "late": 6, "cut": 3}
# How many later calls a late one is overtaken by, and how many may make their clients wait for it.
LATE, PATIENT = (5, 250), 2
GONE = (OSError, asyncio.IncompleteReadError, EOFError)
T = TypeVar("T")
Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Wire:
    """Where clients call; `urls` tells which servers there are now."""

    def __init__(
        self, ledger: Ledger, urls: Callable[[], Sequence[str]], dice: random.Random,
        faults: frozenset[str],
    ) -> None:  # fmt: skip
        self.ledger, self.urls, self.dice = ledger, urls, dice
        self.rates = {fault: rate for fault, rate in RATES.items() if fault in faults}
        self.met: Counter[str] = Counter()
        self.calm = False
        # Told of each call before it is sent on.
        self.watch: Callable[[Call], None] = lambda _: None
        self._patient = 0
        self._lines: set[asyncio.StreamWriter] = set()
        self._served: list[asyncio.Task[Any]] = []
        self._tasks: set[asyncio.Task[Any]] = set()

    async def open(self) -> str:
        """Begins to listen; the address for clients."""
        self._server = await asyncio.start_server(self._greet, "127.0.0.1", 0, limit=BIGGEST)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        """Hangs up."""
        self._server.close()
        for task in self._served:
            task.cancel()
        await asyncio.gather(*self._served, return_exceptions=True)

    async def quiet(self) -> None:
        """Returns when nothing is under way any more that no client waits for."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def cut(self) -> None:
        """Breaks every connection of a client, whatever is under way on it."""
        for line in self._lines:
            line.transport.abort()

    def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._served.append(asyncio.get_running_loop().create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._lines.add(writer)
        line = _Line(self)
        try:
            await self._carry_all(reader, writer, line)
        except GONE:
            pass
        finally:
            self._lines.discard(writer)
            writer.transport.abort()
            line.close()

    async def _carry_all(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: "_Line"
    ) -> None:
        while True:
            message = await _message(reader)
            if b"/api/agent/stream" in message[0]:
                return await line.stream(message, writer)
            if not await self._carry(self._ask(message, self._fate()), line, writer):
                return None

    def _fate(self) -> str:
        """What becomes of the next call: of the kinds that fail first each one, then any."""
        if self.calm or self.dice.randrange(1000) >= sum(self.rates.values()):
            return ""
        weights = [0 if self.met[kind] else 1 for kind in self.rates]
        [fate] = self.dice.choices(
            list(self.rates), weights if any(weights) else [*self.rates.values()]
        )
        self.met[fate] += 1
        return fate

    def _ask(self, message: tuple[bytes, bytes], fate: str) -> Call:
        first, *lines = message[0].decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ", 2)
        headers = {name.lower(): told for name, _, told in (x.partition(": ") for x in lines)}
        headers.pop("accept-encoding", None)  # what is written down is to be read
        call = self.ledger.ask(method, path, headers, message[1])
        call.fate = fate
        self.watch(call)
        return call

    async def _carry(self, call: Call, line: "_Line", writer: asyncio.StreamWriter) -> bool:
        """Sends a call on, and its answer back; whether the client may go on on this line."""
        if call.fate == "doubled":
            copy = self.ledger.ask(call.method, call.path, call.headers, call.content)
            copy.fate = "copy"
            self._aside(_Line(self).once(copy))
        if call.fate == "late":
            waits = self._patient < PATIENT and self.dice.random() < 0.4
            if not waits:
                self._aside(self._late(call))
                return False
            self._patient += 1
            await self.ledger.later(self.dice.randint(*LATE))
            self._patient -= 1
        raw = await asyncio.shield(self._aside(line.exchange(call, cut=call.fate == "cut")))
        if raw is None or call.fate == "lost" or writer.is_closing():
            return False
        writer.write(raw)
        return True

    async def _late(self, call: Call) -> None:
        await self.ledger.later(self.dice.randint(*LATE))
        await _Line(self).once(call)

    def _aside(self, life: Coroutine[None, None, T]) -> "asyncio.Task[T]":
        task = asyncio.get_running_loop().create_task(life)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class _Line:
    """A connection to a server, made when it is needed."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._ends: Ends | None = None

    async def once(self, call: Call) -> None:
        """Makes one call, whose answer nobody waits for."""
        await self.exchange(call)
        self.close()

    async def exchange(self, call: Call, *, cut: bool = False) -> bytes | None:
        """The answer, noted in the ledger; None if the connection broke."""
        try:
            reader, writer = self._ends = self._ends or await self._connect()
            writer.write(_request(call))
            if cut:
                await writer.drain()
                raise EOFError
            head, body = await _message(reader, answer=True)
        except GONE:
            self.close()
            return None
        told = head.lower()
        replayed = b"idempotent-replayed: true" in told
        self._wire.ledger.answer(call, int(head[9:12]), replayed=replayed, reply=body)
        if b"connection: close" in told:
            self.close()
        return head + HEAD_END + body

    async def stream(self, message: tuple[bytes, bytes], client: asyncio.StreamWriter) -> None:
        """Passes on a stream until either side ends it."""
        reader, writer = self._ends = await self._connect()
        writer.write(message[0] + HEAD_END)
        while (more := await reader.read(1 << 16)) and not client.is_closing():
            client.write(more)

    async def _connect(self) -> Ends:
        place = urlsplit(self._wire.dice.choice(self._wire.urls()))
        return await asyncio.open_connection(place.hostname, place.port, limit=BIGGEST)

    def close(self) -> None:
        if self._ends is not None:
            self._ends[1].transport.abort()
            self._ends = None


def _request(call: Call) -> bytes:
    lines = [f"{call.method} {call.path} HTTP/1.1", *(f"{k}: {v}" for k, v in call.headers.items())]
    return "\r\n".join(lines).encode("latin-1") + HEAD_END + call.content


async def _message(reader: asyncio.StreamReader, *, answer: bool = False) -> tuple[bytes, bytes]:
    """The head and the body of the next message."""
    head = (await reader.readuntil(HEAD_END))[: -len(HEAD_END)]
    told = head.lower().partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0]
    return head, await reader.readexactly(int(told or 0))
