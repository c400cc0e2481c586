"""The worker of the SDK against a real server: what becomes of runs, leases and handlers."""

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from agent_sdk import AsyncLease, Client, Fail, Lease, LeaseLost, Release, Retry, WaitFor, Worker
from agent_sdk.testing import Server

SOON = 20.0
FAR = datetime(2999, 1, 1, tzinfo=UTC)


@pytest.fixture
def clients(worklease: Server) -> tuple[Client, Client]:
    """The operator and the agent of a workspace of the test's own."""
    return worklease.workspace()


@contextmanager
def working(client: Client, handler: Callable[..., Any], **options: Any) -> Iterator[Worker]:
    """A worker that runs within the block."""
    worker = Worker(client=client, wait_seconds=5, **options)
    worker.task(handler)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(SOON)
        assert not thread.is_alive()


def test_a_handler_gets_the_payload_and_its_return_is_the_result(
    clients: tuple[Client, Client],
) -> None:
    operator, agent = clients

    def handle(ctx: Lease) -> Any:
        return {"answer": ctx.payload, "fence": ctx.fence}

    with working(agent, handle):
        task = operator.tasks.create(title="double", payload=21)
        done = operator.wait(task.id, timeout=SOON)
    assert (done.status, done.result) == ("completed", {"answer": 21, "fence": 1})


def test_async_handlers_run_side_by_side(clients: tuple[Client, Client]) -> None:
    operator, agent = clients
    both = asyncio.Event()
    seen: list[Any] = []

    async def handle(ctx: AsyncLease) -> Any:
        await ctx.progress(50, "half")
        seen.append(ctx.payload)
        if len(seen) == 2:
            both.set()
        await asyncio.wait_for(both.wait(), SOON)
        return ctx.payload

    with working(agent, handle, concurrency=2):
        ids = operator.submit([{"title": "a", "payload": "a"}, {"title": "b", "payload": "b"}])
        results = {operator.wait(task_id, timeout=SOON).result for task_id in ids.values()}
    assert results == {"a", "b"}


def test_a_repeated_attempt_finds_the_child_that_the_first_one_made(
    clients: tuple[Client, Client],
) -> None:
    operator, agent = clients
    children: list[str] = []

    def handle(ctx: Lease) -> Any:
        children.append(ctx.spawn("part", available_at=FAR).id)
        if ctx.run.attempt == 1:
            raise Retry(after=0)
        return "done"

    with working(agent, handle):
        task = operator.tasks.create(title="whole")
        assert operator.wait(task.id, timeout=SOON).result == "done"
    assert len(children) == 2
    assert len(set(children)) == 1
    child = operator.tasks.get(children[0]).task
    assert (child.parent_task_id, child.created_by_run_id is not None) == (task.id, True)


def test_waiting_for_children_brings_their_results_and_the_checkpoint(
    clients: tuple[Client, Client],
) -> None:
    operator, agent = clients

    def handle(ctx: Lease) -> Any:
        if ctx.task.title != "sum":
            return ctx.payload
        if ctx.previous.checkpoint is None:
            parts = [ctx.spawn(f"part {n}", payload=n) for n in (1, 2, 3)]
            raise WaitFor(parts, checkpoint={"parts": len(parts)})
        return [ctx.previous.checkpoint["parts"], sum(item.result for item in ctx.inputs())]

    with working(agent, handle):
        task = operator.tasks.create(title="sum")
        done = operator.wait(task.id, timeout=SOON)
    assert (done.result, done.attempts_used) == ([3, 6], 1)


FAILURES: dict[str, tuple[Callable[[], Any], str]] = {
    "fail": (lambda: _raise(Fail("bad input", kind="bad_input")), "bad_input"),
    "too large": (lambda: "x" * 300_000, "result_too_large"),
    "not json": (object, "result_not_json"),
    "exception": (lambda: _raise(ZeroDivisionError("by zero")), "error"),
}


def _raise(error: Exception) -> Any:
    raise error


@pytest.mark.parametrize("case", FAILURES)
def test_a_failure_is_recorded_with_its_kind(clients: tuple[Client, Client], case: str) -> None:
    operator, agent = clients
    produce, kind = FAILURES[case]
    with working(agent, lambda ctx: produce()):
        task = operator.tasks.create(title=case, max_attempts=1)
        assert operator.wait(task.id, timeout=SOON).status == "failed"
    (run,) = operator.tasks.list_runs(task.id).runs
    assert (run.failure_kind, run.retryable) == (kind, kind == "error")
    assert run.error


def test_a_handler_that_blocks_keeps_its_lease(clients: tuple[Client, Client]) -> None:
    operator, agent = clients

    def handle(ctx: Lease) -> Any:
        return ctx.lost.wait(7)  # longer than the lease

    with working(agent, handle, lease_seconds=5):
        task = operator.tasks.create(title="slow")
        done = operator.wait(task.id, timeout=SOON)
    assert (done.result, done.fence) == (False, 1)


def test_cancelling_a_run_stops_its_async_handler(clients: tuple[Client, Client]) -> None:
    operator, agent = clients
    begun, stopped = threading.Event(), threading.Event()

    async def handle(ctx: AsyncLease) -> Any:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            assert ctx.lost.is_set()
            stopped.set()

    with working(agent, handle, lease_seconds=5):
        task = operator.tasks.create(title="endless")
        assert begun.wait(SOON)
        operator.tasks.cancel(task.id, reason="not needed")
        assert stopped.wait(SOON)
    assert operator.tasks.get(task.id).task.status == "canceled"


def test_after_the_loss_every_call_raises(
    worklease: Server, clients: tuple[Client, Client]
) -> None:
    operator, agent = clients
    task = operator.tasks.create(title="lost")
    lease = agent.claim(lease_seconds=5)
    assert lease is not None
    expired = (e for e in operator.tasks.stream(task.id) if e.type == "task.run_lease_expired")
    worklease.advance(6)
    assert next(expired).timeline
    with pytest.raises(LeaseLost) as loss:
        lease.complete("too late")
    assert (loss.value.code, lease.lost.is_set()) == ("lease_expired", True)
    for call in (lease.check, lambda: lease.progress(1), lambda: lease.spawn("late")):
        with pytest.raises(LeaseLost):
            call()


def test_a_stopped_worker_gives_its_work_back_with_a_note(clients: tuple[Client, Client]) -> None:
    operator, agent = clients
    begun = threading.Event()

    def handle(ctx: Lease) -> Any:
        begun.set()
        ctx.checkpoint("half")
        ctx.lost.wait(SOON)
        ctx.check()

    with working(agent, handle, grace_seconds=0.1):
        task = operator.tasks.create(title="long")
        assert begun.wait(SOON)
    lease = agent.claim(wait_seconds=5)
    assert lease is not None
    assert lease.previous.note == "the worker was stopped before the work was done"
    assert (lease.previous.checkpoint, lease.run.attempt, lease.fence) == ("half", 1, 2)
    lease.complete()
    assert operator.wait(task.id, timeout=SOON).attempts_used == 1


SUSPENDED = """
from agent_sdk import LeaseLost, Worker
worker = Worker(lease_seconds=5, wait_seconds=1)
@worker.task
def handle(ctx):
    print("begun", flush=True)
    ctx.lost.wait(30)
    try:
        ctx.check()
    except LeaseLost as loss:
        print(loss.code, flush=True)
    worker.stop()
worker.run()
"""


def test_a_suspended_process_learns_first_that_its_lease_is_lost(
    worklease: Server, clients: tuple[Client, Client]
) -> None:
    operator, agent = clients
    environment = {**worklease.environment, "WORKLEASE_API_KEY": agent.settings.api_key}
    task = operator.tasks.create(title="suspended")
    with subprocess.Popen(
        [sys.executable, "-c", SUSPENDED], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGSTOP)
        expired = (e for e in operator.tasks.stream(task.id) if e.type == "task.run_lease_expired")
        worklease.advance(6)
        assert next(expired).timeline
        process.send_signal(signal.SIGCONT)
        assert process.stdout.readline() == "lease_expired\n"


def test_a_released_run_waits_as_long_as_it_was_told(
    worklease: Server, clients: tuple[Client, Client]
) -> None:
    operator, agent = clients
    operator.tasks.create(title="later")
    lease = agent.claim()
    assert lease is not None
    with lease:
        raise Release("come back", delay=60)
    assert agent.claim() is None
    worklease.advance(61)
    again = agent.claim(wait_seconds=5)
    assert again is not None
    assert again.previous.note == "come back"
