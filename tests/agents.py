"""Workers for the tests of the SDK: in a thread, or in a process of their own."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest

from agent_sdk import Client, StreamEvent, Worker
from agent_sdk.testing import Server, running

SOON = 20.0


@pytest.fixture
def clients(worklease: Server) -> tuple[Client, Client]:
    """The operator and the agent of a workspace of the test's own."""
    operator, agent = worklease.workspace()
    return operator, agent


@pytest.fixture
def reviewer(worklease: Server, clients: tuple[Client, Client]) -> Client:
    """Another agent of the same workspace: nobody reviews its own work."""
    whoami = clients[0].whoami()
    assert whoami.workspace
    key = worklease.admin.keys.create("reviewer", "agent", workspace=whoami.workspace.name)
    return worklease.client(api_key=key.secret)


@contextmanager
def working(
    client: Client, handler: Callable[..., Any], *, reviews: bool = False, **options: Any
) -> Iterator[Worker]:
    """A worker, or a reviewer, that runs within the block."""
    worker = Worker(client=client, wait_seconds=5, **options)
    (worker.review if reviews else worker.task)(handler)
    with running(worker, SOON):
        yield worker


@contextmanager
def process(server: Server, agent: Client, code: str) -> Iterator["subprocess.Popen[str]"]:
    """A process of this agent's that runs the code; ends with the block.

    What the code prints comes line by line.
    """
    environment = {
        **server.environment,
        "WORKLEASE_API_KEY": agent.settings.api_key,
        "PYTHONUNBUFFERED": "1",
    }
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as started:
        try:
            yield started
        finally:
            started.kill()


@contextmanager
def worker_process(
    server: Server, agent: Client, handler: str, **options: Any
) -> Iterator["subprocess.Popen[str]"]:
    """A worker in a process of its own, with the source of its handler."""
    said = ", ".join(f"{name}={value!r}" for name, value in options.items())
    code = f"""
import asyncio, os, sys
from agent_sdk import *
worker = Worker(wait_seconds=1, {said})
@worker.task
{handler}
worker.run()
"""
    with process(server, agent, code) as started:
        yield started


def lossy(client: Client, monkeypatch: pytest.MonkeyPatch) -> list[httpx2.Response]:
    """From now on the first reply to this client gets lost; what the server replied, that too."""
    http, replies = client.transport._http, list[httpx2.Response]()
    send = http.send

    def lose(request: httpx2.Request) -> httpx2.Response:
        replies.append(send(request))
        if len(replies) == 1:
            raise httpx2.ReadError("the reply got lost")
        return replies[-1]

    monkeypatch.setattr(http, "send", lose)
    return replies


def line_of(process: "subprocess.Popen[str]") -> str:
    """The next line that the worker's process prints."""
    assert process.stdout
    return process.stdout.readline().strip()


def event_of(client: Client, task_id: str, kind: str) -> StreamEvent:
    """Waits for the first such event of the task."""
    stream = client.tasks.stream(task_id, until=time.monotonic() + SOON)
    return next(event for event in stream if event.type == kind)


def expire(
    server: Server, operator: Client, task_id: str, event: str = "task.run_lease_expired"
) -> None:
    """Moves the clock beyond a lease of 5 s on the task, and waits for the sweep to end it."""
    server.advance(6)
    event_of(operator, task_id, event)
