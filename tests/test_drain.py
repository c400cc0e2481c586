"""Drain: claims stop, and the call answers when nothing is held any more, or when time is up."""

import time
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any

import msgspec
import pytest

from server.contract.scheduler import DrainResult
from server.store.scheduler import look_at_drain
from tests.factories import Agent, Workspace, refused
from tests.world import Servers, World

POOL_SIZE = 10


def _drain(workspace: Workspace, **body: Any) -> Any:
    return workspace.operator.post("/api/scheduler/drain", **body)


def _events(workspace: Workspace) -> list[Any]:
    return [e for e in workspace.events() if e.event_type.startswith("scheduler.")]


def test_a_drain_of_what_holds_nothing_is_done_at_once(workspace: Workspace, agent: Agent) -> None:
    workspace.task()
    told = _drain(workspace)
    assert (told.completed, told.timed_out, told.remaining_claims) == (True, False, 0)
    assert told.completed_at >= told.started_at
    assert (told.scheduler.paused, told.scheduler.paused_reason) == (True, "scheduler drain")
    assert agent.claims() == []
    names = ["scheduler.paused", "scheduler.drain_started", "scheduler.drain_completed"]
    events = _events(workspace)
    assert [event.event_type for event in events] == names
    assert events[-1].payload["completed_at"] == told.completed_at
    assert events[-1].payload["timed_out"] is False


def test_a_drain_answers_as_soon_as_the_last_claim_has_ended(
    world: World, workspace: Workspace, agent: Agent
) -> None:
    workspace.task()
    held = agent.claim()
    with ThreadPoolExecutor(1) as pool:
        drain = pool.submit(_drain, workspace, timeout_seconds=50)
        world.until_waiting()
        began = time.monotonic()
        held.complete()
        assert drain.result().completed
        assert time.monotonic() - began < 1.5


def test_a_drain_hears_what_ends_at_another_server(
    world: World, workspace: Workspace, servers: Servers
) -> None:
    """At once; the look for lost hints comes after 2 s."""
    workspace.task()
    agent, far, waits = workspace.agent(), servers.start(), []
    with ThreadPoolExecutor(1) as pool:
        for _ in range(3):
            agent.http = world.http
            held = agent.claim()
            agent.http = far.http
            drain = pool.submit(_drain, workspace, timeout_seconds=50)
            world.until_waiting()
            began = time.monotonic()
            held.release()
            assert drain.result().completed
            waits.append(time.monotonic() - began)
            workspace.operator.post("/api/scheduler/resume")
    assert median(waits) < 1.5


def test_time_that_is_up_is_told_and_the_drain_goes_on_with_the_next_call(
    workspace: Workspace, agent: Agent
) -> None:
    """started_at stays, and there is one event of its start and one of its end."""
    workspace.task()
    held = agent.claim()
    first, second = (_drain(workspace, timeout_seconds=0) for _ in range(2))
    assert (first.completed, first.timed_out, first.remaining_claims) == (False, True, 1)
    assert (first.completed_at, first.scheduler.paused) == (None, True)
    held.complete()
    third = _drain(workspace)
    assert first.started_at == second.started_at == third.started_at
    assert third.completed
    names = ["scheduler.paused", "scheduler.drain_started", "scheduler.drain_completed"]
    assert [event.event_type for event in _events(workspace)] == names
    assert [event.payload["remaining_claims"] for event in _events(workspace)] == [None, 1, 0]


def test_a_drain_of_what_is_paused_leaves_the_pause_as_it_is(workspace: Workspace) -> None:
    workspace.operator.post("/api/scheduler/pause", reason="a fire")
    assert _drain(workspace).scheduler.paused_reason == "a fire"
    names = ["scheduler.paused", "scheduler.drain_started", "scheduler.drain_completed"]
    assert [event.event_type for event in _events(workspace)] == names
    assert _drain(workspace).started_at > _events(workspace)[0].timestamp


def test_a_resume_ends_the_wait_of_a_drain(
    world: World, workspace: Workspace, agent: Agent
) -> None:
    for _ in range(2):
        workspace.task()
    agent.claim()
    with ThreadPoolExecutor(1) as pool:
        drain = pool.submit(_drain, workspace, timeout_seconds=50)
        world.until_waiting()
        workspace.operator.post("/api/scheduler/resume")
        told = drain.result()
    assert (told.completed, told.timed_out, told.scheduler.paused) == (False, False, False)
    agent.claim()


def test_drains_that_wait_hold_no_connection(world: World, workspace: Workspace) -> None:
    workspace.task()
    held = workspace.agent().claim()
    with ThreadPoolExecutor(POOL_SIZE + 2) as pool:
        waiting = [pool.submit(_drain, workspace, timeout_seconds=50) for _ in range(POOL_SIZE + 2)]
        world.until_waiting(POOL_SIZE + 2)
        assert world.admin.get("/readyz").ready
        held.complete()
        told = [drain.result() for drain in waiting]
    assert all(drain.completed for drain in told)
    ends = [event.payload["completed_at"] for event in _events(workspace)]
    assert {drain.completed_at for drain in told} <= set(ends)


def test_a_drain_that_another_followed_is_told_that_it_is_done(
    world: World, workspace: Workspace
) -> None:
    """It may look late; nothing was held, and nothing is."""
    first, last = (_drain(workspace) for _ in range(2))
    assert first.started_at < last.started_at
    told = world.run(lambda db: look_at_drain(db, workspace.id, "{}", first.started_at))
    body = msgspec.json.decode(told.body, type=DrainResult)
    assert (told.over, body.completed, body.timed_out) == (True, True, False)
    assert body.completed_at == last.completed_at


@pytest.mark.parametrize("seconds", [-1, 3601])
def test_a_drain_takes_an_hour_at_most(workspace: Workspace, seconds: int) -> None:
    with workspace.unchanged(), refused(422, "validation_failed"):
        _drain(workspace, timeout_seconds=seconds)


def test_a_drain_of_all_workspaces_waits_for_the_claims_of_all(lonely: World) -> None:
    """P12: the log of one workspace does not tell of claims in others."""
    one, two = lonely.workspace(), lonely.workspace()
    one.task()
    held = one.agent().claim()
    path = "/api/scheduler/drain?workspace=*"
    told = lonely.admin.post(path, timeout_seconds=0)
    assert (told.remaining_claims, told.scheduler.paused_scope) == (1, "all")
    held.complete()
    assert lonely.admin.post(path).completed
    assert [event.payload["remaining_claims"] for event in _events(two)][:2] == [None, None]
    assert [event.event_type for event in _events(one)] == [
        event.event_type for event in _events(two)
    ]
