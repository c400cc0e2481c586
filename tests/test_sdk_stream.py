"""What the SDK's worker learns from the stream of its session, and what it does without it."""

import asyncio
import logging
import queue
import time
from typing import Any

import pytest

from agent_sdk import AsyncLease, Client, Lease, listen
from agent_sdk.testing import Server
from tests.agents import SOON, event_of, working

LONG_SECONDS = 3600


def _stubborn(stopped: "queue.SimpleQueue[str]") -> Any:
    """A handler that ends when its lease is lost, and never else."""

    def handle(ctx: Lease) -> None:
        ctx.progress(1, "begun")
        ctx.lost.wait(SOON)
        stopped.put(ctx.hold.loss.code if ctx.hold.loss else "nothing")

    return handle


def test_a_worker_learns_of_a_cancel_long_before_its_next_heartbeat(
    clients: tuple[Client, Client],
) -> None:
    operator, agent = clients
    stopped: queue.SimpleQueue[str] = queue.SimpleQueue()
    with working(agent, _stubborn(stopped), lease_seconds=LONG_SECONDS):
        task = operator.tasks.create(title="endless")
        event_of(operator, task.id, "task.run_progress")
        operator.tasks.cancel(task.id, reason="not needed")
        assert stopped.get(timeout=SOON / 2) == "run_canceled"


def test_an_async_handler_is_cancelled_as_soon_as_its_run(clients: tuple[Client, Client]) -> None:
    operator, agent = clients
    stopped: queue.SimpleQueue[bool] = queue.SimpleQueue()

    async def handle(ctx: AsyncLease) -> None:
        await ctx.progress(1, "begun")
        try:
            await asyncio.Event().wait()
        finally:
            stopped.put(ctx.lost.is_set())

    with working(agent, handle, lease_seconds=LONG_SECONDS):
        task = operator.tasks.create(title="endless")
        event_of(operator, task.id, "task.run_progress")
        operator.runs.cancel(operator.tasks.get(task.id).runs[0].id)
        assert stopped.get(timeout=SOON / 2)


def test_without_the_stream_heartbeats_tell_the_same(
    clients: tuple[Client, Client], monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    operator, agent = clients
    caplog.set_level(logging.INFO, "agent_sdk")
    monkeypatch.setattr(listen, "PATH", "/api/agent/no-stream")
    stopped: queue.SimpleQueue[str] = queue.SimpleQueue()
    with working(agent, _stubborn(stopped), lease_seconds=5):
        task = operator.tasks.create(title="endless")
        event_of(operator, task.id, "task.run_progress")
        operator.tasks.cancel(task.id)
        assert stopped.get(timeout=SOON) == "run_canceled"
    assert "heartbeats tell" in caplog.text


def test_a_deadline_ends_the_handler_at_once(
    worklease: Server, clients: tuple[Client, Client]
) -> None:
    operator, agent = clients
    stopped: queue.SimpleQueue[str] = queue.SimpleQueue()
    with working(agent, _stubborn(stopped), lease_seconds=LONG_SECONDS):
        task = operator.tasks.create(title="late", deadline_seconds=60, max_attempts=1)
        event_of(operator, task.id, "task.run_progress")
        worklease.advance(61)
        assert stopped.get(timeout=SOON / 2) == "task_run_already_terminal"


def test_the_log_can_be_followed_as_it_grows(clients: tuple[Client, Client]) -> None:
    operator, _ = clients
    first = operator.tasks.create(title="first")
    until = time.monotonic() + SOON
    following = operator.events.stream(
        after_sequence=0, event_type=["task.created", "task.canceled"], until=until
    )
    assert next(following).task_id == first.id
    operator.tasks.cancel(first.id)
    assert next(following).event_type == "task.canceled"


def test_no_text_of_a_task_can_spoil_a_stream(clients: tuple[Client, Client]) -> None:
    """P9: every event once, in order, whatever marks of other lines its texts hold."""
    operator, agent = clients
    title = "a\u2028id: 4000\u2028\u2028b\x85event: resync\u2029c"
    task = operator.tasks.create(title=title)
    following = operator.events.stream(after_sequence=0, until=time.monotonic() + SOON)
    assert next(event for event in following if event.task_id == task.id).payload["title"] == title
    with working(agent, lambda ctx: ctx.task.title):
        assert operator.wait(task.id, timeout=SOON).result == title
