"""agent_sdk's worker, told by the comparison what to do: URL, verb, argument (see peer.py)."""

import queue
import sys
import threading
import time

from agent_sdk import Client, Lease, Worker

_, VERB, ARGUMENT = sys.argv[1:]
CONCURRENCY = 32
LEASE_SECONDS = 5
CHUNK = 5000

picked: "queue.SimpleQueue[float]" = queue.SimpleQueue()


async def nothing(lease: Lease) -> None:
    """Does nothing."""


def tell(lease: Lease) -> None:
    """Tells when it began."""
    picked.put(time.perf_counter())


def hold(lease: Lease) -> None:
    """Takes until it is told to end."""
    print("began", flush=True)
    sys.stdin.readline()
    print("ended", flush=True)


def fill(client: Client, count: int) -> None:
    """Queues tasks that ask for nothing."""
    for first in range(0, count, CHUNK):
        some = range(min(CHUNK, count - first))
        client.tasks.create_bulk([{"ref": str(n), "title": "nothing"} for n in some])


def pick_up(client: Client, count: int) -> None:
    """Queues tasks on an idle queue, one by one, and tells how long each took to begin."""
    worker = Worker(client=client.again())
    worker.task(tell)
    working = threading.Thread(target=worker.run)
    working.start()
    time.sleep(1)
    for _ in range(count):
        time.sleep(0.03)
        began = time.perf_counter()
        client.tasks.create(title="tell")
        print("took", 1e3 * (picked.get() - began), flush=True)
    worker.stop()
    working.join()


def main() -> None:
    """Does what it is told."""
    with Client() as client:
        if VERB == "fill":
            fill(client, int(ARGUMENT))
        elif VERB == "work":
            worker = Worker(client=client, concurrency=CONCURRENCY)
            worker.task(nothing)
            worker.run()
        elif VERB == "pickup":
            pick_up(client, int(ARGUMENT))
        elif VERB == "send":
            client.tasks.create(title="hold", retry={"strategy": "none"})
        elif VERB == "hold":
            worker = Worker(client=client, lease_seconds=LEASE_SECONDS)
            worker.task(hold)
            worker.run()


main()
