"""The one loop: runs a service again and again, and outlives its failures."""

import asyncio
import random
from collections.abc import Awaitable, Callable

from server.db.pool import Busy, Fault
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


async def in_batches(
    find: Callable[[list[str]], Awaitable[list[tuple[str, list[str]]]]],
    do: Callable[[str, list[str]], Awaitable[int]],
    set_aside: Callable[[str, str, Fault], Awaitable[None]],
) -> int:
    """Does what is found, workspace by workspace; how much.

    `find` leaves out the workspaces that it is given: those that are held up by transactions of
    their own, whose items might be all that one look finds. They are tried again in the next pass.
    """
    done = 0
    held_up: list[str] = []
    before = -1
    while len(held_up) > before:
        before = len(held_up)
        for workspace_id, items in await find(held_up):
            try:
                some = await _together_or_alone(workspace_id, items, do, set_aside)
            except Busy:
                some = 0
            done += some
            if not some:
                held_up.append(workspace_id)
    return done


async def _together_or_alone(
    workspace_id: str,
    items: list[str],
    do: Callable[[str, list[str]], Awaitable[int]],
    set_aside: Callable[[str, str, Fault], Awaitable[None]],
) -> int:
    """What cannot be done with the others is tried alone, and set aside if it cannot be done."""
    try:
        return await do(workspace_id, items)
    except Fault:
        done = 0
        for item in items:
            try:
                done += await do(workspace_id, [item])
            except Fault as error:
                await set_aside(workspace_id, item, error)
        return done


async def in_turn(loop: str, workspaces: list[str], do: Callable[[str], Awaitable[int]]) -> int:
    """Does something in each workspace; how much. No workspace holds up the others."""
    done = 0
    for workspace_id in workspaces:
        try:
            done += await do(workspace_id)
        except Busy:
            # Held up by a transaction of its own: the next pass comes soon.
            continue
        except Fault as error:
            occur(LoopFailed, loop=loop, error=error, workspace_id=workspace_id)
    return done


async def in_pieces(do: Callable[[], Awaitable[int]], size: int, most: int) -> int:
    """Does something piece by piece, while each is whole and at most so many; how much."""
    done = 0
    for _ in range(most):
        piece = await do()
        done += piece
        if piece < size:
            break
    return done
