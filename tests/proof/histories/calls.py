"""What went over the wire: every call with its answer, and the ticks of both.

It is written down next to the servers, behind the bad network: the answer to a call is known even
where its client never got it, and a call that was sent twice is two. So more is checked than the
clients themselves could tell.

A tick is a number that rises with each question and each answer, so it is real time in order. For
each tick the ledger knows between which times the server's clock must have been.
"""

import asyncio
import heapq
import time
from bisect import bisect_left
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from tests.proof.histories.state import NEVER

# Floating point, and clocks that are read one after the other.
SLACK_SECONDS = 0.002
# The server did not get hold of its database: it may have been done all the same.
UNKNOWN = frozenset({503})


@dataclass(slots=True)
class Call:
    """A call; without an answer nobody knows what became of it."""

    number: int
    method: str
    path: str
    headers: dict[str, str]
    content: bytes
    begun: int
    ended: int = NEVER
    status: int = 0
    replayed: bool = False
    reply: bytes = b""
    # What the network did to it, if anything.
    fate: str = ""

    @property
    def known(self) -> bool:
        return self.ended < NEVER and self.status not in UNKNOWN

    @property
    def body(self) -> Any:
        return msgspec.json.decode(self.content) if self.content else {}

    @property
    def told(self) -> Any:
        return msgspec.json.decode(self.reply) if self.reply else None

    @property
    def session(self) -> str:
        return self.headers.get("x-session-id", "")

    @property
    def code(self) -> str | None:
        """What was refused; None if nothing was."""
        return str(self.told["diagnostic"]["code"]) if self.status >= 400 else None

    def __str__(self) -> str:
        ended = "?" if self.ended == NEVER else str(self.ended)
        answer = f"{self.status} {self.code or ''}".strip() if self.status else "no answer"
        again = " (replayed)" if self.replayed else ""
        who = self.session or "operator"
        text = self.content.decode(errors="replace")[:200]
        fate = f" [{self.fate}]" if self.fate else ""
        return (
            f"#{self.number} [{self.begun}-{ended}] {who}: {self.method} {self.path} {text}"
            f" -> {answer}{again}{fate}"
        )


@dataclass
class Ledger:
    """All calls in the order in which they were made."""

    calls: list[Call] = field(default_factory=list)
    # The latest and the earliest that the server's clock can have shown at each tick.
    latest: list[float] = field(default_factory=list)
    earliest: list[float] = field(default_factory=list)
    # How far the server's clock is ahead, at least and at most.
    ahead: list[float] = field(default_factory=lambda: [0.0, 0.0])
    _waiting: list[tuple[int, int, asyncio.Future[None]]] = field(default_factory=list)
    _hurry: bool = False

    def tick(self) -> int:
        """The next tick."""
        now = time.time()
        self.earliest.append(now + self.ahead[0] - SLACK_SECONDS)
        self.latest.append(now + self.ahead[1] + SLACK_SECONDS)
        return len(self.latest) - 1

    def ask(self, method: str, path: str, headers: dict[str, str], content: bytes) -> Call:
        """A call that is being made."""
        call = Call(len(self.calls), method, path, headers, content, self.tick())
        self.calls.append(call)
        while self._waiting and self._waiting[0][0] <= len(self.calls):
            _free(heapq.heappop(self._waiting)[2])
        return call

    def answer(self, call: Call, status: int, *, replayed: bool, reply: bytes) -> None:
        """Notes the answer to a call."""
        call.ended, call.status, call.replayed, call.reply = self.tick(), status, replayed, reply

    def lapsed(self, until: float) -> int:
        """The first tick behind which the server's clock can have reached this time."""
        return bisect_left(self.latest, until) - 1 if until <= self.latest[-1] else NEVER

    async def later(self, calls: int) -> None:
        """Returns when so many more calls have been made, or nobody makes any more."""
        if not self._hurry:
            freed = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting, (len(self.calls) + calls, id(freed), freed))
            await freed

    def hurry(self) -> None:
        """Lets everybody go on who waits for more calls, from now on at once."""
        self._hurry = True
        while self._waiting:
            _free(heapq.heappop(self._waiting)[2])


def _free(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def seconds(stamp: str) -> float:
    """A time of the wire as the clock counts."""
    return datetime.fromisoformat(stamp).timestamp()
