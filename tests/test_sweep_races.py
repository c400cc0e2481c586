"""The sweep, heartbeats and operators at work on the same leases at once: none loses its write."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from tests import judging
from tests.factories import Held, Workspace
from tests.world import LOOKED_NOW, World

# A pass of the sweep, and of the loop that looks after reviews, that takes its time to commit.
SWEEP, LOOK = "select sweep_leases(100, '{}')", "select late_reviews(100, '{}')"
ENDS = {"complete": "completed", "fail": "failed", "release": "queued", "heartbeat": "running"}


@contextmanager
def _slow(world: World, loop: str) -> Iterator[None]:
    world.swept_now()
    world.db.execute(LOOKED_NOW)
    with psycopg.connect(world.server.conninfo) as connection:
        connection.execute(loop.encode())
        yield


def _meanwhile(world: World, loop: str, call: Callable[[], Any]) -> Any:
    """Calls while such a pass is under way, which the call has to wait for."""
    with ThreadPoolExecutor(1) as pool:
        with _slow(world, loop):
            done: Future[Any] = pool.submit(call)
            world.until_blocked()
        return done.result()


def _renewed(workspace: Workspace) -> Held:
    """A lease that the sweep was to look at by now, but that lasts longer than it knew."""
    workspace.task(retry={"strategy": "none"})
    held = workspace.agent().claim(lease_seconds=60)
    workspace.world.advance(61)
    held.heartbeat()
    return held


@pytest.mark.parametrize("operation", ENDS)
def test_a_call_counts_though_the_sweep_looks_at_its_lease(
    world: World, workspace: Workspace, operation: str
) -> None:
    """P4, P8: the sweep holds the run, as everybody does who touches a lease."""
    held = _renewed(workspace)
    body = {"error": "no", "retryable": False} if operation == "fail" else {}
    _meanwhile(world, SWEEP, lambda: held.call(operation, **body))
    assert workspace.run(held.run_id).status == ENDS[operation]


def test_a_verdict_counts_though_the_loop_looks_at_its_lease(
    world: World, workspace: Workspace
) -> None:
    judging.reviewed(workspace)
    held = judging.claim(workspace.agent("judge"), lease_seconds=60)
    world.advance(61)
    held.heartbeat()
    _meanwhile(world, LOOK, held.judge)
    assert workspace.get(held.task_id).status == "completed"


@pytest.mark.parametrize("verb", ["pause", "reject"])
def test_a_checkpoint_and_what_an_operator_says_meanwhile_are_both_stored(
    world: World, workspace: Workspace, verb: str
) -> None:
    """P8: neither overwrites or loses the other; both hold the task."""
    task = workspace.task()
    held = workspace.agent().claim()
    workspace.operator.patch(f"/api/tasks/{task.id}", approval_policy="manual")
    with ThreadPoolExecutor(2) as pool:
        with workspace.locked("log"):
            path = f"/api/tasks/{task.id}/{verb}"
            said = pool.submit(workspace.operator.post, path, reason="seen")
            world.until_blocked()
            stored = pool.submit(held.heartbeat, checkpoint="here")
            world.until_blocked(2)
        said.result()
        stored.result()
    told = workspace.get(task.id)
    assert (told.checkpoint, told.paused_reason or told.approval_reason) == ("here", "seen")
