"""Wakes streams a few at a time, so that requests are answered between them."""

import asyncio
from collections import deque
from typing import Final

# A stream that has a frame to send takes a tenth of a millisecond.
AT_ONCE: Final = 4


class Turns:
    """Who waits for a turn of one event loop, first come first served."""

    def __init__(self) -> None:
        self._due: deque[asyncio.Event] = deque()

    def wake(self, event: asyncio.Event) -> None:
        """Sets an event in its turn."""
        if event.is_set():
            return
        self._due.append(event)
        if len(self._due) == 1:
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        for _ in range(min(AT_ONCE, len(self._due))):
            self._due.popleft().set()
        if self._due:
            asyncio.get_running_loop().call_soon(self._next)
