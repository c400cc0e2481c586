"""What failed dependencies cancel, where that is more than one transaction does: here, three."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from server.loops import cascade
from tests.factories import Workspace
from tests.serving import Server
from tests.world import Servers, World

THREE = """
create or replace function _cascade_limit() returns int language sql immutable as 'select 3'
"""
CONTINUE = "select canceled from continue_cascade(%s)"


@pytest.fixture
def few(fresh_database: str, tmp_path: Path) -> Iterator[World]:
    """A server on a database whose transactions cancel three tasks at most."""
    with psycopg.connect(fresh_database) as connection:
        connection.execute(THREE)
    server = Server(fresh_database, tmp_path, WORKLEASE_LOOPS=False)
    world = World(server)
    yield world
    world.close()
    server.stop()
    assert server.errors() == []


def _fan(own: Workspace, count: int) -> dict[str, str]:
    """A task, and so many that it takes along."""
    names = [f"d{n}" for n in range(count)]
    edges: dict[str, list[str]] = {"a": [], **{name: ["a"] for name in names}}
    return own.graph(edges, on_dependency_failure="cancel")


def _canceled(own: Workspace, ids: dict[str, str]) -> int:
    return list(own.statuses(ids).values()).count("canceled")


@pytest.fixture(autouse=True)
def one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cascade, "BATCHES", 1)


def _go_on(world: World) -> int:
    """One batch of the loop; how many tasks it canceled."""
    done: int = world.run(lambda db: cascade.run_once(db, lambda *_: None))
    return done


def test_the_rest_of_a_cascade_is_canceled_by_the_loop(few: World) -> None:
    own = few.workspace()
    ids = _fan(own, 8)
    keep = own.task(depends_on=list(ids.values()), on_dependency_failure="block")
    own.agent().work(ids.pop("a"), "fail", retryable=False)
    assert _canceled(own, ids) == 3
    assert set(own.statuses(ids).values()) == {"canceled", "blocked"}
    assert own.agent().claims() == []
    assert own.faults() == {}
    assert [_go_on(few) for _ in range(4)] == [3, 2, 0, 0]
    assert _canceled(own, ids) == 8
    assert own.get(keep.id).dependencies_waiting == 9
    actors = {
        (event.payload["reason"], event.actor.kind, event.origin.ref)
        for event in own.events(event_type="task.canceled")
    }
    assert actors == {
        ("dependency_failed", "agent_session", "agent.task.fail"),
        ("dependency_failed", "daemon", "daemon.cascade"),
    }
    assert own.faults() == {}


def test_a_cascade_goes_on_through_dependents(few: World) -> None:
    own = few.workspace()
    names = [f"t{n}" for n in range(9)]
    edges = {name: names[max(0, n - 1) : n] for n, name in enumerate(names)}
    ids = own.graph(edges, on_dependency_failure="cancel")
    own.cancel(ids.pop("t0"))
    assert [_canceled(own, ids), _go_on(few), _go_on(few), _go_on(few)] == [3, 3, 2, 0]
    assert own.faults() == {}


def test_a_subtree_too_large_for_one_transaction_is_canceled_in_parts(few: World) -> None:
    own = few.workspace()
    ids = own.graph({"a": [], "b": ["a"]}, on_dependency_failure="cancel")
    for n in range(4):
        ids[f"c{n}"] = own.task(parent_task_id=ids["b"]).id
    ids["d"] = own.task(parent_task_id=ids["c3"]).id
    # Already ended, with something open below.
    own.agent().work(ids["c0"])
    ids["e"] = own.task(parent_task_id=ids["c0"]).id
    own.cancel(ids.pop("a"))
    assert _canceled(own, ids) == 3
    while _go_on(few):
        assert own.faults() == {}
    assert own.statuses(ids) == dict.fromkeys(ids, "canceled") | {"c0": "completed"}
    for name in ("c3", "d", "e"):
        [event] = own.events(task_id=ids[name], event_type="task.canceled")
        assert event.payload["propagated_from_task_id"] == ids["b"]


def test_what_a_crash_interrupts_is_done_later(few: World) -> None:
    own = few.workspace()
    ids = _fan(own, 5)
    own.cancel(ids.pop("a"))
    with own.unchanged(), psycopg.connect(few.server.conninfo) as connection:
        assert connection.execute(CONTINUE, [own.id]).fetchone() == (2,)
        connection.rollback()
    assert [_go_on(few), _canceled(own, ids)] == [2, 5]


def test_what_ended_meanwhile_stays_as_it_is(few: World) -> None:
    own = few.workspace()
    ids = _fan(own, 4)
    own.cancel(ids.pop("a"))
    [last] = [task_id for name, task_id in ids.items() if own.get(task_id).status == "blocked"]
    own.operator.patch(f"/api/tasks/{last}", on_dependency_failure="run")
    own.agent().work(last)
    assert [_go_on(few), own.get(last).status] == [0, "completed"]


def test_two_servers_share_a_cascade(few: World) -> None:
    own = few.workspace()
    ids = _fan(own, 9)
    own.cancel(ids.pop("a"))

    def go_on(_: int) -> int:
        with psycopg.connect(few.server.conninfo) as connection:
            [[done]] = connection.execute(CONTINUE, [own.id])
            return int(done)

    with ThreadPoolExecutor(2) as pool:
        with own.locked("log"):
            passes = [pool.submit(go_on, n) for n in range(2)]
            few.until_blocked(2)
        assert [done.result() for done in passes] == [3, 3]
    assert own.told(event_type="task.canceled") == ["task.canceled"] * 10
    assert own.faults() == {}


def test_a_server_goes_on_by_itself(few: World, tmp_path: Path) -> None:
    own = few.workspace()
    ids = _fan(own, 7)
    own.cancel(ids["a"])
    loops = Servers(few.server.conninfo, tmp_path)
    loops.start(WORKLEASE_LOOPS=True)
    while _canceled(own, ids) < 8:
        pass
    loops.stop()
    assert own.faults() == {}


def test_a_long_chain_is_canceled_link_by_link_in_several_transactions(
    workspace: Workspace, world: World
) -> None:
    """So that whoever fails its first task, or others meanwhile, do not wait for all of it."""
    names = [f"t{n}" for n in range(120)]
    edges = {name: names[max(0, n - 1) : n] for n, name in enumerate(names)}
    ids = workspace.graph(edges, on_dependency_failure="cancel")
    workspace.cancel(ids.pop("t0"))
    assert [_canceled(workspace, ids), _go_on(world), _go_on(world)] == [50, 51, 18]
    assert _canceled(workspace, ids) == 119
    assert workspace.faults() == {}
