"""Claims that wait for a run."""

import asyncio
from typing import Any


class Waiter:
    """A claim that waits for a run; those of one kind may take the same runs."""

    __slots__ = ("kind", "woken")

    def __init__(self, kind: tuple[Any, ...]) -> None:
        self.kind = kind
        self.woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake(self) -> None:
        """Makes it look again."""
        if not self.woken.done():
            self.woken.set_result(None)
