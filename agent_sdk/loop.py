"""The event loop that async handlers share, in a thread of its own."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from agent_sdk.hold import Hold

AsyncHandler = Callable[[Any], Awaitable[Any]]


class Loop:
    """Runs coroutines for threads that wait for them; its thread starts with the first one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, handler: AsyncHandler, context: Any, hold: Hold) -> Any:
        """Run the handler and answer its result; cancel it when the lease is lost.

        The loss is then raised, whatever the handler did about its cancellation.
        """
        loop = self._started()
        result = asyncio.run_coroutine_threadsafe(_guarded(handler, context, hold), loop).result()
        hold.raise_loss()
        return result

    def close(self) -> None:
        """Stop the loop, where there is one."""
        with self._lock:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._loop = None

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(
                    target=_serve, args=[self._loop], name="worklease-loop", daemon=True
                ).start()
            return self._loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    try:
        while not _ran_to_its_stop(loop):
            pass
    finally:
        loop.close()


def _ran_to_its_stop(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        loop.run_forever()
    except (SystemExit, KeyboardInterrupt):
        # A handler's, which gets it as its end too; the other handlers are not to end with it.
        return False
    return True


async def _guarded(handler: AsyncHandler, context: Any, hold: Hold) -> Any:
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    if task is not None:
        hold.when_lost(lambda: loop.call_soon_threadsafe(task.cancel))
    try:
        return await handler(context)
    except asyncio.CancelledError:
        hold.raise_loss()
        raise
