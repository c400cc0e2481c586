"""One tenant never stops another: who is held up holds up itself."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from tests.factories import Workspace, refused
from tests.world import World

POOL_SIZE = 10
COLLIDE = """
create function collide() returns trigger language plpgsql as $$
begin
  raise 'two transactions wait for each other' using errcode = '40P01';
end $$;
create trigger collide before update on task for each row
  when (old.task_id = '{}') execute function collide();
"""


@pytest.fixture
def other(world: World) -> Workspace:
    """A workspace that goes on."""
    return world.workspace()


def test_a_workspace_that_is_held_up_leaves_connections_to_the_others(
    world: World, workspace: Workspace, other: Workspace
) -> None:
    tasks = [workspace.task() for _ in range(POOL_SIZE + 2)]
    other.task()
    with ThreadPoolExecutor(len(tasks)) as callers:
        with workspace.locked("log"):
            ended = [callers.submit(workspace.cancel, task.id) for task in tasks]
            world.until_waiting(len(tasks))
            assert len(other.operator.get("/api/tasks").tasks) == 1
            assert world.admin.get("/readyz").ready
        assert {call.result().status for call in ended} == {"canceled"}


def test_a_workspace_that_is_held_up_does_not_hold_up_the_sweep_of_others(
    world: World, workspace: Workspace, other: Workspace
) -> None:
    for each in (workspace, other):
        each.task()
        each.agent().claim(lease_seconds=60)
    world.advance(61)
    with workspace.locked("log"):
        assert other.sweep() == 1
    assert workspace.sweep() == 1


@pytest.mark.parametrize("held", ["log", "tasks"])
def test_a_crowd_of_lapsed_leases_of_one_that_is_held_up_does_not_hide_those_of_others(
    lonely: World, held: str
) -> None:
    """P10: however few rows a pass looks at."""
    loud, other = lonely.workspace(), lonely.workspace()
    tasks = [each.task().id for each in (loud, loud, loud, other)][:3]
    for each in (loud, loud, loud, other):
        each.agent().claim(lease_seconds=60)
    lonely.advance(61)
    with ExitStack() as locks:
        for lock in [loud.locked("log")] if held == "log" else map(loud.holding, tasks):
            locks.enter_context(lock)
        assert lonely.sweep(rows=2) == 1
        assert other.told()[-1] == "task.run_lease_expired"
    assert lonely.sweep(rows=2) + lonely.sweep(rows=2) == 3


def test_a_row_that_always_collides_is_told_as_an_outage_and_not_as_a_fault(
    world: World, workspace: Workspace
) -> None:
    task = workspace.task()
    world.db.execute(COLLIDE.format(task.id).encode())
    with refused(503, "database_unavailable"):
        workspace.cancel(task.id)
    world.db.execute("drop trigger collide on task; drop function collide()")
    assert workspace.cancel(task.id).status == "canceled"


def test_creations_of_a_workspace_that_is_held_up_let_those_of_others_pass(
    world: World, workspace: Workspace, other: Workspace
) -> None:
    with ThreadPoolExecutor(POOL_SIZE * 4) as callers:
        with workspace.locked("log"):
            ended = [callers.submit(workspace.task) for _ in range(POOL_SIZE * 4)]
            world.until_waiting(len(ended))
            began = time.monotonic()
            other.task()
            # In turn with them, it would wait for the lock as they do.
            assert time.monotonic() - began < 1
        for call in ended:
            call.result()
