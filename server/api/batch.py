"""Micro-batching: while one batch is at the database, later calls queue and leave together."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

import msgspec

from server.db.pool import Busy, ConnectionLost, Fault
from server.errors import Problem
from server.store.leases import CallAnswer
from server.telemetry import BatchServed, occur


class Call(Protocol):
    """A queued call: `one` names what it is about, for a batch never holds that twice."""

    @property
    def one(self) -> str: ...


# How many locks of others one batch waits for, one after the other.
HELD_AT_ONCE: Final = 2

C = TypeVar("C", bound=Call)
A = TypeVar("A")
Serve = Callable[[str, Sequence[C]], Awaitable[Sequence[A]]]


class Waiting(NamedTuple, Generic[C, A]):
    """A call, and who waits for its answer."""

    call: C
    answer: "asyncio.Future[A]"
    since: float


class Batcher(Generic[C, A]):
    """One kind of call. Batches are of one workspace; workspaces are served in turn."""

    def __init__(
        self, operation: str, serve: Serve[C, A], limit: int, busy_seconds: float,
        repeatable: Callable[[C], bool], aside: "Batcher[C, A] | None" = None,
    ) -> None:  # fmt: skip
        self._operation = operation
        self._serve = serve
        self._limit = limit
        # How long a call may wait for a lock that another transaction holds.
        self._busy_seconds = busy_seconds
        self._repeatable = repeatable
        self._queues: OrderedDict[str, list[Waiting[C, A]]] = OrderedDict()
        self._running: asyncio.Task[None] | None = None
        self._serving: str | None = None
        # Serves the workspaces that are held up, on a connection of its own, until they are not.
        self._aside = aside

    async def submit(self, workspace_id: str, call: C) -> A:
        """The answer to this call alone; raises its Problem."""
        answer: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        held_up = self._aside is not None and self._aside.is_at(workspace_id)
        by = self._aside if self._aside is not None and held_up else self
        by.queue(workspace_id, [Waiting(call, answer, time.monotonic())])
        return await answer

    def queue(self, workspace_id: str, calls: "list[Waiting[C, A]]") -> None:
        """Takes calls to be answered."""
        self._queues.setdefault(workspace_id, []).extend(calls)
        if self._running is None:
            self._running = asyncio.create_task(self._run())

    def is_at(self, workspace_id: str) -> bool:
        """Whether calls of this workspace wait here, or are at the database."""
        return workspace_id == self._serving or workspace_id in self._queues

    async def idle(self) -> None:
        """Returns when nothing is under way."""
        if self._running is not None:
            await self._running
        if self._aside is not None:
            await self._aside.idle()

    async def _run(self) -> None:
        try:
            while self._queues:
                workspace_id, queue = self._queues.popitem(last=False)
                batch, left = self._take(queue)
                if left:
                    self._queues[workspace_id] = left
                self._serving = workspace_id
                if batch:
                    await self._answer(workspace_id, batch)
        finally:
            self._serving = None
            # After a fault of our own, the batches behind it go on all the same.
            self._running = asyncio.create_task(self._run()) if self._queues else None

    def _take(self, queue: list[Waiting[C, A]]) -> tuple[list[Waiting[C, A]], list[Waiting[C, A]]]:
        """The next batch, and what stays; callers that have gone are dropped."""
        batch: dict[str, Waiting[C, A]] = {}
        left = []
        for waiting in queue:
            if waiting.answer.done():
                continue
            if len(batch) < self._limit and waiting.call.one not in batch:
                batch[waiting.call.one] = waiting
            else:
                left.append(waiting)
        return list(batch.values()), left

    async def _answer(self, workspace_id: str, batch: list[Waiting[C, A]]) -> None:
        began = time.perf_counter()
        try:
            answers = await self._serve(workspace_id, [waiting.call for waiting in batch])
        except ConnectionLost:
            # The commit is unknown: what may be repeated is, once; the rest is told so.
            batch = await self._one_by_one(workspace_id, self._repeatables(batch))
        except Busy:
            if self._aside is None and len(batch) > 1:
                # A lock that one of them wants may be no matter of the others.
                batch = await self._one_by_one(workspace_id, batch)
            else:
                self._later(workspace_id, batch)
                batch = []
        except (Problem, Fault) as problem:
            # Rolled back: whose fault it is shows when each goes alone.
            if len(batch) > 1 and not _is_outage(problem):
                batch = await self._one_by_one(workspace_id, batch)
            else:
                for waiting in batch:
                    _refuse(waiting, problem)
        else:
            for waiting, answer in zip(batch, answers, strict=True):
                if not waiting.answer.done():
                    waiting.answer.set_result(answer)
        finally:
            # Only a fault of our own leaves somebody without an answer.
            for waiting in batch:
                _refuse(waiting, Problem("internal_error"))
        seconds = time.perf_counter() - began
        occur(BatchServed, count=len(batch), value=seconds, operation=self._operation)

    def _later(self, workspace_id: str, batch: list[Waiting[C, A]]) -> None:
        """A lock is held by somebody else: other workspaces go on, this one tries again."""
        waited = time.monotonic() - self._busy_seconds
        kept = [waiting for waiting in batch if waiting.since > waited]
        kept += self._queues.pop(workspace_id, [])
        if kept:
            (self._aside or self).queue(workspace_id, kept)
        for waiting in batch:
            if waiting.since <= waited:
                _refuse(waiting, Busy())

    def _repeatables(self, batch: list[Waiting[C, A]]) -> list[Waiting[C, A]]:
        """Those that may be done twice; the others are refused."""
        kept = []
        for waiting in batch:
            if self._repeatable(waiting.call):
                kept.append(waiting)
            else:
                _refuse(waiting, Problem("database_unavailable", retry_after_seconds=1))
        return kept

    async def _one_by_one(
        self, workspace_id: str, batch: list[Waiting[C, A]]
    ) -> list[Waiting[C, A]]:
        """Those of the batch that were answered; who met a lock waits on, behind the others."""
        answered: list[Waiting[C, A]] = []
        held: list[Waiting[C, A]] = []
        for n, waiting in enumerate(batch):
            try:
                [answer] = await self._serve(workspace_id, [waiting.call])
            except Busy:
                held.append(waiting)
                if len(held) == HELD_AT_ONCE:
                    held = batch[n + 1 :] + held
                    break
                continue
            except (Problem, Fault) as problem:
                _refuse(waiting, problem)
            else:
                if not waiting.answer.done():
                    waiting.answer.set_result(answer)
            answered.append(waiting)
        if held:
            self._later(workspace_id, held)
        return answered


def _is_outage(problem: Exception) -> bool:
    return isinstance(problem, Problem) and problem.code == "database_unavailable"


def _refuse(waiting: Waiting[Any, Any], problem: Exception) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(problem)


def refusal(answer: CallAnswer) -> Problem:
    """The problem of a refused call."""
    evidence = msgspec.json.decode(answer.evidence or "{}")
    return Problem(answer.code or "internal_error", **evidence)
