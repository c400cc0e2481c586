"""What the clients of a round know of each other's work, and how a cheap client calls."""

import asyncio
import random
from collections import deque
from collections.abc import Mapping
from itertools import count
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tests.client import Client
from tests.crowd import Line, Reply, request
from tests.proof.histories.calls import Ledger

PATIENCE_SECONDS = 60
TRIES = 8
GONE = (OSError, EOFError)


class Known(NamedTuple):
    """A review that somebody had, and the run that it judges."""

    review_id: str
    run_id: str


class Field:
    """The newest tasks, runs and reviews, and whether the round is over."""

    def __init__(self, url: str, ledger: Ledger, name: str) -> None:
        self.url, self.ledger, self.name = url, ledger, name
        self.tasks: deque[str] = deque(maxlen=10)
        self.runs: deque[str] = deque(maxlen=10)
        self.reviews: deque[Known] = deque(maxlen=4)
        self.over = False
        # Not set while the database is away.
        self.up = asyncio.Event()
        self.up.set()
        # How many claims went away empty since tasks were last made.
        self.hungry = 0
        self.breaches: list[str] = []
        self._numbers = count(1)

    def new_id(self) -> str:
        """An id for a task that is nobody's yet."""
        return f"{self.name}.{next(self._numbers)}"


class Caller:
    """A client of the network: bytes over one connection. Its clock may be wrong."""

    def __init__(self, name: str, field: Field, by: Client, seed: int) -> None:
        self.name, self.field, self.by = name, field, by
        self.dice = random.Random(f"{seed} {name}")
        # By how many seconds its clock is wrong.
        self.skew = 0.0
        self._line: Line | None = None
        self._count = 0

    async def live(self) -> None:
        """Calls until the round is over."""
        raise NotImplementedError

    def key(self) -> str:
        """A key that this caller has not used yet."""
        self._count += 1
        return f"{self.name}-{self._count}"

    async def call(
        self, method: str, path: str, body: Any = None, key: str = "", by: Client | None = None
    ) -> Reply | None:
        """The answer; None if the connection broke before it came."""
        await self.field.up.wait()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                if self._line is None or self._line.closed.done():
                    self._line = await self._open()
                return await self._line.ask(request(by or self.by, method, path, body, key))
        except TimeoutError:
            self.field.breaches.append(f"no answer in {PATIENCE_SECONDS} s: {method} {path}")
        except GONE:
            pass
        await self.close()
        return None

    async def surely(self, method: str, path: str, body: Any, key: str = "") -> Reply | None:
        """Asks again until there is an answer, as whoever needs to know would; not for ever."""
        for _ in range(TRIES):
            reply = await self.call(method, path, body, key)
            if (
                reply is not None
                and reply.status != 503
                and reply.code != "idempotency_in_progress"
            ):
                return reply
        return None

    async def close(self) -> None:
        """Hangs up."""
        if self._line is not None:
            line, self._line = self._line, None
            await line.close()

    async def _open(self) -> Line:
        place, loop = urlsplit(self.field.url), asyncio.get_running_loop()
        _, line = await loop.create_connection(Line, place.hostname or "", place.port or 0)
        return line


def maybe(dice: random.Random, chance: float, **fields: Any) -> Mapping[str, Any]:
    """These fields, or none."""
    return fields if dice.random() < chance else {}
