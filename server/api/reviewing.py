"""Reviewers that wait: who is woken when there is something to review."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, Protocol, TypeVar

from server.api.context import EVERY_WORKSPACE
from server.api.feed import pause
from server.api.rates import limited
from server.db.pool import Database
from server.errors import Problem
from server.store.reviews import waiting_reviews

# Between two looks on behalf of all who wait in a workspace.
LOOK_EVERY_SECONDS: Final = 0.05


class Found(Protocol):
    """What a look for a review finds; body None is nothing."""

    @property
    def body(self) -> str | None: ...


F = TypeVar("F", bound=Found)
Waiter = asyncio.Event


class Reviewing:
    """The waiting reviewers of one process."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._waiters: dict[str, dict[Waiter, None]] = {}
        self._looks: dict[str, asyncio.Task[None]] = {}
        self._seen: dict[str, tuple[int, str | None]] = {}
        self._draining = False

    async def wait(
        self, workspace_id: str, look: Callable[[], Awaitable[F]], wait_seconds: int,
        gone: "asyncio.Future[None]", limit: int,
    ) -> F:  # fmt: skip
        """Looks until there is something, the time is up or the caller has left."""
        waiters = self._waiters.setdefault(workspace_id, {})
        if len(waiters) >= limit:
            raise limited("claims", limit, 1)
        until = time.monotonic() + wait_seconds
        # Registered before it looks: what comes meanwhile wakes it.
        waiter = Waiter()
        waiters[waiter] = None
        try:
            while True:
                waiter.clear()
                found = await look()
                left = until - time.monotonic()
                if found.body is not None or left <= 0 or self._draining or gone.done():
                    return found
                woken = asyncio.ensure_future(waiter.wait())
                ends: set[asyncio.Future[Any]] = {woken, gone}
                await asyncio.wait(ends, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                woken.cancel()
        finally:
            del waiters[waiter]
            if not waiters:
                self._waiters.pop(workspace_id, None)

    def changed(self, workspace_id: str) -> None:
        """Something happened: if somebody waits, there is a look whether it was a request."""
        for name in list(self._waiters) if workspace_id == EVERY_WORKSPACE else [workspace_id]:
            if self._waiters.get(name) and name not in self._looks:
                self._looks[name] = asyncio.create_task(self._look(name))

    def poll(self) -> None:
        """Lets all look who may find something, in case a hint was lost."""
        for workspace_id in list(self._waiters):
            self._seen.pop(workspace_id, None)
            self.changed(workspace_id)

    def drain(self) -> None:
        """Ends all waits now."""
        self._draining = True
        for workspace_id in list(self._waiters):
            self._wake(workspace_id)

    async def _look(self, workspace_id: str) -> None:
        try:
            await pause(LOOK_EVERY_SECONDS)
            del self._looks[workspace_id]
            with suppress(Problem):
                there = await waiting_reviews(self._db, workspace_id)
                if there[0] and there != self._seen.get(workspace_id):
                    self._wake(workspace_id)
                self._seen[workspace_id] = there
        finally:
            if self._looks.get(workspace_id) is asyncio.current_task():
                del self._looks[workspace_id]

    def _wake(self, workspace_id: str) -> None:
        for waiter in self._waiters.get(workspace_id, ()):
            waiter.set()
