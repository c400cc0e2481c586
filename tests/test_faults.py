"""Whatever dies under load: what was accepted is done, once, and the log tells all of it."""

import os
import queue
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from agent_sdk import Client, Lease
from agent_sdk.testing import Server, running_server
from server.db import embedded
from tests.agents import working

OUTSTANDING, WORKERS = 20, 2
SOON = 60.0
ONCE = ("task.created", "task.run_enqueued", "task.run_claimed", "task.run_completed")


class Load:
    """An operator who makes tasks, and workers who do them, whatever happens meanwhile."""

    def __init__(self, operator: Client, agent: Client) -> None:
        self.operator, self.agent = operator, agent
        self.accepted: list[str] = []
        self.handled: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.seen: list[str] = []
        self._places = threading.Semaphore(OUTSTANDING)
        self._enough = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Goes on within the block, and is finished behind it."""
        maker = threading.Thread(target=self._make)
        with ExitStack() as stack:
            for _ in range(WORKERS):
                stack.enter_context(working(self.agent.again(), self._handle, concurrency=4))
            maker.start()
            try:
                yield
            finally:
                self._enough.set()
                self._places.release()
                maker.join(SOON)
            for task_id in self.accepted:
                assert self.operator.wait(task_id, timeout=SOON).result == task_id

    def until(self, count: int) -> None:
        """Returns when so many more runs were worked on."""
        self.seen += [self.handled.get(timeout=SOON) for _ in range(count)]

    def _make(self) -> None:
        while not self._enough.is_set():
            self._places.acquire()
            self.accepted.append(self.operator.tasks.create(title="a task").id)

    def _handle(self, lease: Lease) -> Any:
        self.handled.put(lease.task.id)
        self._places.release()
        return lease.task.id

    def judge(self) -> None:
        """Each accepted task was made, claimed, worked on and completed once; no other was."""
        while not self.handled.empty():
            self.until(1)
        assert Counter(self.seen) == dict.fromkeys(self.accepted, 1)
        events = list(self.operator.events.each())
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        # A heartbeat in between is no harm.
        ours = [e for e in events if e.task_id and e.event_type != "task.run_started"]
        told = Counter((e.task_id, e.event_type) for e in ours)
        assert told == {(task_id, kind): 1 for task_id in self.accepted for kind in ONCE}


def _kill_server(server: Server) -> None:
    server.kill()
    server.start()


def _restart_database(server: Server, how: signal.Signals) -> None:
    pid = (server.directory / "postgres/cluster/postmaster.pid").read_text().split()[0]
    os.kill(int(pid), how)
    # Starts it again, and leaves it to the server.
    embedded.join(server.directory).leave()


FAULTS: dict[str, Callable[[Server], None]] = {
    "the server is killed": _kill_server,
    "the database is stopped": lambda server: _restart_database(server, signal.SIGINT),
    "the database crashes": lambda server: _restart_database(server, signal.SIGQUIT),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_is_lost_or_done_twice_when(fault: str) -> None:
    """P5, P8: under load, at random moments; clients and workers go on by themselves."""
    dice = random.Random(fault)
    with running_server() as server:
        load = Load(*server.workspace())
        with load.running():
            for _ in range(2):
                load.until(dice.randint(10, 40))
                FAULTS[fault](server)
            load.until(10)
        load.judge()
