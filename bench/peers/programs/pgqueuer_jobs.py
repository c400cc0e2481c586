"""pgqueuer, told by the comparison what to do: URL, verb, argument (see peer.py)."""

import asyncio
import sys
import time
from datetime import timedelta

import asyncpg
import uvloop
from pgqueuer import AsyncpgDriver, PgQueuer, Queries
from pgqueuer.models import Job

URL, VERB, ARGUMENT = sys.argv[1:]
# Its own benchmark has five consumers.
CONSUMERS = 5
BATCHES = {"single": 1, "batch": 100}
HEARTBEAT_TIMEOUT = timedelta(seconds=3)
CHUNK = 5000

picked: "asyncio.Queue[float]" = asyncio.Queue()


async def driver() -> AsyncpgDriver:
    """A connection of its own."""
    return AsyncpgDriver(await asyncpg.connect(dsn=URL))


async def fill(count: int) -> None:
    """Queues jobs that do nothing."""
    queries = Queries(await driver())
    for first in range(0, count, CHUNK):
        some = min(CHUNK, count - first)
        await queries.enqueue(["nothing"] * some, [None] * some, [0] * some)


async def pick_up(count: int) -> None:
    """Queues jobs on an idle queue, one by one, and tells how long each took to begin."""
    queries = Queries(await driver())
    working = asyncio.create_task(work(10))
    for _ in range(count):
        await asyncio.sleep(0.03)
        began = time.perf_counter()
        await queries.enqueue("tell", None)
        print("took", 1e3 * (await picked.get() - began), flush=True)
    working.cancel()


async def work(batch_size: int) -> None:
    """Works until it is ended."""
    pgq = PgQueuer(await driver())

    @pgq.entrypoint("nothing")
    async def nothing(job: Job) -> None:
        pass

    @pgq.entrypoint("tell")
    async def tell(job: Job) -> None:
        picked.put_nowait(time.perf_counter())

    @pgq.entrypoint("hold")
    async def hold(job: Job) -> None:
        print("began", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        print("ended", flush=True)

    holding = {"heartbeat_timeout": HEARTBEAT_TIMEOUT, "dequeue_timeout": timedelta(seconds=1)}
    await pgq.run(batch_size=batch_size, **(holding if VERB == "hold" else {}))


async def main() -> None:
    """Does what it is told."""
    if VERB == "setup":
        await Queries(await driver()).install()
    elif VERB == "fill":
        await fill(int(ARGUMENT))
    elif VERB == "work":
        await asyncio.gather(*(work(BATCHES[ARGUMENT]) for _ in range(CONSUMERS)))
    elif VERB == "pickup":
        await pick_up(int(ARGUMENT))
    elif VERB == "send":
        await Queries(await driver()).enqueue("hold", None)
    elif VERB == "hold":
        await work(1)


uvloop.run(main())
