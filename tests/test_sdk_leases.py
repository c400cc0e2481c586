"""How a worker of the SDK keeps its leases, learns of their loss, and gives them back."""

import asyncio
import queue
import signal
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any

import httpx2
import pytest

from agent_sdk import AsyncLease, Cancelled, Client, Lease, LeaseLost, Worker
from agent_sdk.api.leases import BulkHeartbeat, Heartbeat
from agent_sdk.run_hold import RunHold
from agent_sdk.testing import Server
from tests.agents import SOON, event_of, expire, line_of, worker_process, working

STOPPED = "the worker was stopped before the work was done"


@pytest.fixture
def renewals(monkeypatch: pytest.MonkeyPatch) -> "queue.SimpleQueue[float]":
    """Seconds from each heartbeat of a lease to the next one that is due."""
    seen: queue.SimpleQueue[float] = queue.SimpleQueue()
    renewed = RunHold.renewed

    def noted(hold: RunHold, reply: Heartbeat | BulkHeartbeat, now: datetime, sent: float) -> None:
        renewed(hold, reply, now, sent)
        seen.put(hold.next_due() - sent)

    monkeypatch.setattr(RunHold, "renewed", noted)
    return seen


def test_heartbeats_at_a_third_of_the_lease_keep_it_while_the_handler_blocks(
    worklease: Server, clients: tuple[Client, Client], renewals: "queue.SimpleQueue[float]"
) -> None:
    operator, agent = clients
    finish = threading.Event()
    with working(agent, lambda ctx: finish.wait(SOON), lease_seconds=6):
        task = operator.tasks.create(title="slow")
        assert renewals.get(timeout=SOON) == pytest.approx(2)
        for _ in range(2):  # with the time between the heartbeats that is more than the lease
            worklease.advance(2)
            assert renewals.get(timeout=SOON) == pytest.approx(2)
        finish.set()
        done = operator.wait(task.id, timeout=SOON)
    assert (done.result, done.fence) == (True, 1)


Stopped = queue.SimpleQueue[bool]


def _sync(stopped: Stopped) -> Callable[[Any], Any]:
    def handle(ctx: Lease) -> None:
        ctx.progress(1, "begun")
        ctx.lost.wait(SOON)
        try:
            ctx.check()
        except Cancelled:
            stopped.put(True)
            raise

    return handle


def _async(stopped: Stopped) -> Callable[[Any], Any]:
    async def handle(ctx: AsyncLease) -> None:
        await ctx.progress(1, "begun")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopped.put(ctx.lost.is_set())
            raise

    return handle


@pytest.mark.parametrize("kind", [_sync, _async])
def test_a_cancelled_run_stops_its_handler(
    clients: tuple[Client, Client], kind: Callable[[Stopped], Callable[[Any], Any]]
) -> None:
    operator, agent = clients
    stopped: Stopped = queue.SimpleQueue()
    with working(agent, kind(stopped), lease_seconds=5):
        task = operator.tasks.create(title="endless")
        event_of(operator, task.id, "task.run_progress")
        operator.tasks.cancel(task.id, reason="not needed")
        assert stopped.get(timeout=SOON)
    assert operator.tasks.get(task.id).task.status == "canceled"


def test_after_the_loss_every_call_raises(
    worklease: Server, clients: tuple[Client, Client]
) -> None:
    """P2: and nothing that was asked for under the old lease has happened."""
    operator, agent = clients
    task = operator.tasks.create(title="lost")
    lease = agent.claim(lease_seconds=5)
    assert lease is not None
    expire(worklease, operator, task.id)
    with pytest.raises(LeaseLost) as loss:
        lease.complete("too late")
    assert (loss.value.code, lease.lost.is_set()) == ("lease_expired", True)
    for call in (lease.check, lambda: lease.progress(1), lambda: lease.spawn("late")):
        with pytest.raises(LeaseLost):
            call()
    assert operator.tasks.get(task.id).children == []


SUSPENDED = {
    "sync": """
def handle(ctx):
    print("begun")
    ctx.lost.wait(30)
    try:
        ctx.check()
    except LeaseLost as loss:
        print(loss.code)
""",
    "async": """
async def handle(ctx):
    print("begun")
    try:
        await asyncio.sleep(30)
    except asyncio.CancelledError:
        print("lease_expired" if ctx.lost.is_set() else "cancelled")
        raise
""",
}


@pytest.mark.parametrize("kind", SUSPENDED)
def test_a_suspended_process_learns_first_that_its_lease_is_lost(
    worklease: Server, clients: tuple[Client, Client], kind: str
) -> None:
    operator, agent = clients
    task = operator.tasks.create(title="suspended")
    with worker_process(worklease, agent, SUSPENDED[kind], lease_seconds=5) as process:
        assert line_of(process) == "begun"
        process.send_signal(signal.SIGSTOP)
        expire(worklease, operator, task.id)
        process.send_signal(signal.SIGCONT)
        assert line_of(process) == "lease_expired"


FINISHES = """
def handle(ctx):
    print("begun")
    return sys.stdin.readline().strip()
"""


def test_sigterm_lets_running_work_finish_within_its_grace(
    worklease: Server, clients: tuple[Client, Client]
) -> None:
    operator, agent = clients
    first = operator.tasks.create(title="first", priority="high")
    second = operator.tasks.create(title="second")
    with worker_process(worklease, agent, FINISHES) as process:
        assert line_of(process) == "begun"
        process.send_signal(signal.SIGTERM)
        process.communicate("finished\n", timeout=SOON)
        assert process.returncode == 0
    assert operator.wait(first.id, timeout=SOON).result == "finished"
    left = operator.tasks.get(second.id).task
    assert (left.status, left.attempts_used) == ("ready", 1)


OUTLASTS = """
def handle(ctx):
    ctx.checkpoint("half")
    print("begun")
    ctx.lost.wait(30)
    ctx.check()
"""


def test_sigterm_gives_back_what_outlasts_its_grace_with_a_note_and_burns_no_attempt(
    worklease: Server, clients: tuple[Client, Client]
) -> None:
    operator, agent = clients
    task = operator.tasks.create(title="long")
    with worker_process(worklease, agent, OUTLASTS, grace_seconds=0.1) as process:
        assert line_of(process) == "begun"
        process.send_signal(signal.SIGTERM)
        assert process.wait(SOON) == 0
    lease = agent.claim()
    assert lease is not None
    assert (lease.previous.note, lease.previous.checkpoint) == (STOPPED, "half")
    assert (lease.run.attempt, lease.fence) == (1, 2)
    lease.complete()
    assert operator.wait(task.id, timeout=SOON).attempts_used == 1


def test_a_second_stop_ends_the_grace(clients: tuple[Client, Client]) -> None:
    operator, agent = clients
    begun = threading.Event()

    def handle(ctx: Lease) -> None:
        begun.set()
        ctx.lost.wait(SOON)
        ctx.check()

    with working(agent, handle, grace_seconds=10 * SOON) as worker:
        task = operator.tasks.create(title="long")
        assert begun.wait(SOON)
        worker.stop()
        worker.stop()
        event_of(operator, task.id, "task.run_released")


@pytest.mark.parametrize("kind", ["task", "review"])
def test_what_was_claimed_while_the_worker_stopped_is_given_back(
    clients: tuple[Client, Client], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    operator, agent = clients
    task = operator.tasks.create(title="late", review_policy="always")
    if kind == "review":
        run = operator.tasks.list_runs(task.id).runs[0]
        operator.runs.claim(run.id)
        operator.runs.complete(run.id)
    worker, send = Worker(client=agent), httpx2.Client.send

    def lose(http: httpx2.Client, request: httpx2.Request, **how: Any) -> httpx2.Response:
        reply = send(http, request, **how)
        if request.url.path.endswith("claim-next") and not worker._stopping:
            worker.stop()
            raise httpx2.ReadError("the reply got lost")
        return reply

    monkeypatch.setattr(httpx2.Client, "send", lose)
    getattr(worker, kind)(lambda ctx: None)
    worker.run()
    assert operator.sessions.list(agent_name="agent").sessions[0].lease_count == 0
    assert "released" in operator.tasks.get(task.id).events[0].event_type
