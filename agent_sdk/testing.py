"""A real server for the tests of people who write agents.

`pytest_plugins = "agent_sdk.testing"` in the topmost conftest.py brings it.

The fixture `worklease` starts one server for the whole test run, on an embedded database in a
directory of its own, and removes both at the end. Its clock can be moved: `worklease.advance`.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from agent_sdk.local import Server, running_server
from agent_sdk.worker import Worker

__all__ = ["Server", "running", "running_server", "worklease"]


@pytest.fixture(scope="session")
def worklease() -> Iterator[Server]:
    """One server for all tests of the run."""
    with running_server(test_clock=True) as server:
        yield server


@contextmanager
def running(worker: Worker, seconds: float = 20) -> Iterator[Worker]:
    """The worker works within the block, in a thread of its own; at the end it is stopped.

    Raises TimeoutError if it then works on for longer than these seconds.
    """
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(f"the worker still worked {seconds} s after it was told to stop")
