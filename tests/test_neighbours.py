"""One tenant's load leaves another's claims as quick as they were, within a factor of two.

A machine that does other things as well is slow now and then, so quiet and loud are measured in
turn, the slowest tenth does not count, and 25 ms are granted. Held up with the other tenant, a
claim would wait for 100 ms or more.
"""

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import pytest

from tests.crowd import Line, crowd, request
from tests.factories import Workspace
from tests.serving import until
from tests.world import World

CALLERS, CLAIMS, ROUNDS = 4, 40, 2
GRANTED_SECONDS = 0.025
STREAMS = 100
OPEN = re.compile(r'worklease_sse_connections{stream="workspace"} (\d+)')


def _held_up(loud: Workspace, stack: ExitStack) -> None:
    """Its log is locked, and 20 of its agents claim all the same."""
    for _ in range(20):
        loud.task()
    pool = stack.enter_context(ThreadPoolExecutor(20))
    stack.enter_context(loud.locked("log"))
    for _ in range(20):
        pool.submit(loud.agent().claims)


def _planned(loud: Workspace, stack: ExitStack) -> None:
    """Its planner makes 5,000 tasks at a time, again and again."""
    items = [{"ref": f"{n}", "title": "t"} for n in range(5_000)]
    _again(lambda: loud.operator.post("/api/tasks/bulk", tasks=items), stack)


def _followed(loud: Workspace, stack: ExitStack) -> None:
    """Its log is followed by many, none of whom reads, while it grows."""
    place = urlsplit(loud.world.server.url)
    for _ in range(STREAMS):
        line = stack.enter_context(
            socket.create_connection((place.hostname or "", place.port or 0))
        )
        line.sendall(request(loud.operator, "GET", "/api/observe/stream"))
    until(lambda: sum(map(int, OPEN.findall(loud.world.admin.get("/metrics")))) >= STREAMS)
    _again(loud.task, stack, every_seconds=0.1)


def _again(call: Callable[[], object], stack: ExitStack, every_seconds: float = 0) -> None:
    """Goes on calling until the load ends."""
    ended = threading.Event()

    def loop() -> None:
        while not ended.wait(every_seconds):
            call()

    thread = threading.Thread(target=loop)
    thread.start()
    stack.callback(thread.join)
    stack.callback(ended.set)


async def _claim(line: Line, claim: bytes, waits: list[float]) -> None:
    for _ in range(CLAIMS):
        began = time.perf_counter()
        assert (await line.ask(claim)).status == 200
        waits.append(time.perf_counter() - began)


def _waits(quiet: Workspace) -> list[float]:
    items = [{"ref": f"{n}", "title": "t"} for n in range(CALLERS * CLAIMS)]
    quiet.operator.post("/api/tasks/bulk", tasks=items)
    claim = request(quiet.agent(), "POST", "/api/agent/tasks/claim-next", {})
    waits: list[float] = []
    with crowd([quiet.world.server.url], CALLERS) as callers:
        callers.together([_claim(line, claim, waits) for line in callers.lines])
    return waits


@contextmanager
def _under(load: Callable[[Workspace, ExitStack], None], loud: Workspace) -> Iterator[None]:
    with ExitStack() as stack:
        load(loud, stack)
        yield


def _p90(waits: list[float]) -> float:
    return sorted(waits)[len(waits) * 9 // 10]


@pytest.mark.parametrize("load", [_held_up, _planned, _followed], ids=lambda load: load.__name__)
def test_the_claims_of_a_tenant_do_not_feel_its_neighbours(
    lonely: World, load: Callable[[Workspace, ExitStack], None]
) -> None:
    quiet, loud = lonely.workspace(), lonely.workspace()
    _waits(quiet)
    alone: list[float] = []
    beside: list[float] = []
    for _ in range(ROUNDS):
        alone += _waits(quiet)
        with _under(load, loud):
            beside += _waits(quiet)
    assert _p90(beside) < 2 * _p90(alone) + GRANTED_SECONDS
