"""The one loop: runs a service again and again, and outlives its failures."""

import asyncio
import random
from collections.abc import Awaitable, Callable

from server.errors import Problem
from server.telemetry import LoopFailed, LoopRan, occur


async def every(name: str, seconds: float, run_once: Callable[[], Awaitable[int]]) -> None:
    """Runs a service, each pass about so many seconds after the last; never returns."""
    while True:
        result = "ok"
        try:
            await run_once()
        except Problem:
            # The database is away: whoever asks it first tells so, once.
            result = "unavailable"
        except Exception as error:  # noqa: BLE001 - a loop must not end
            occur(LoopFailed, loop=name, error=error)
            result = "failed"
        occur(LoopRan, value=1, loop=name, result=result)
        # Not in step with the other servers.
        await asyncio.sleep(seconds * random.uniform(0.75, 1.25))
