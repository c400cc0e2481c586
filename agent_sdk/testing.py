"""A real server for the tests of people who write agents: `pytest_plugins = "agent_sdk.testing"`.

The fixture `worklease` starts one server for the whole test run, on an embedded database in a
directory of its own, and removes both at the end. Its clock can be moved: `worklease.advance`.
"""

from collections.abc import Iterator

import pytest

from agent_sdk.local import Server, running_server

__all__ = ["Server", "running_server", "worklease"]


@pytest.fixture(scope="session")
def worklease() -> Iterator[Server]:
    """One server for all tests of the run."""
    with running_server(test_clock=True) as server:
        yield server
