"""procrastinate, told by the comparison what to do: URL, verb, argument (see peer.py)."""

import asyncio
import sys
import time

from procrastinate import App, PsycopgConnector

URL, VERB, ARGUMENT = sys.argv[1:]
CONCURRENCY = 20
HEARTBEAT_SECONDS, STALLED_SECONDS = 1.0, 3.0
CHUNK = 5000

app = App(connector=PsycopgConnector(conninfo=URL, min_size=4, max_size=CONCURRENCY + 4))
picked: "asyncio.Queue[float]" = asyncio.Queue()


@app.task(name="nothing", queue="nothing")
async def nothing(number: int) -> None:
    """Does nothing."""


@app.task(name="tell", queue="tell")
async def tell(number: int) -> None:
    """Tells when it began."""
    picked.put_nowait(time.perf_counter())


@app.task(name="hold", queue="hold")
async def hold(number: int) -> None:
    """Takes until it is told to end."""
    print("began", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    print("ended", flush=True)


async def fill(count: int) -> None:
    """Queues jobs that do nothing."""
    for first in range(0, count, CHUNK):
        some = range(first, min(first + CHUNK, count))
        await nothing.batch_defer_async(*({"number": n} for n in some))


async def pick_up(count: int) -> None:
    """Queues jobs on an idle queue, one by one, and tells how long each took to begin."""
    working = asyncio.create_task(work("tell"))
    for number in range(count):
        await asyncio.sleep(0.03)
        began = time.perf_counter()
        await tell.defer_async(number=number)
        print("took", 1e3 * (await picked.get() - began), flush=True)
    working.cancel()


async def work(queue: str) -> None:
    """Works until it is ended."""
    await app.run_worker_async(
        queues=[queue], concurrency=CONCURRENCY, install_signal_handlers=False,
        update_heartbeat_interval=HEARTBEAT_SECONDS, stalled_worker_timeout=STALLED_SECONDS,
    )  # fmt: skip


async def retry_stalled() -> None:
    """What its manual has users run themselves, here every second."""
    while True:
        for job in await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=STALLED_SECONDS):
            await app.job_manager.retry_job(job)
        await asyncio.sleep(1)


async def main() -> None:
    """Does what it is told."""
    async with app.open_async():
        if VERB == "setup":
            await app.schema_manager.apply_schema_async()
        elif VERB == "fill":
            await fill(int(ARGUMENT))
        elif VERB == "work":
            await work("nothing")
        elif VERB == "pickup":
            await pick_up(int(ARGUMENT))
        elif VERB == "send":
            await hold.defer_async(number=0)
        elif VERB == "hold":
            await asyncio.gather(work("hold"), retry_stalled())


asyncio.run(main())
