"""Lists: in order, no row twice or never, whatever is filtered, and at the cost of a page."""

import random
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qsl

import pytest

from server.contract.leases import WEIGHTS
from server.store import events, runs, tasks
from tests.factories import Workspace, refused
from tests.world import World

FILTERS: dict[str, Callable[[Any], bool]] = {
    "status=ready": lambda t: t.status == "ready",
    "status=completed,canceled": lambda t: t.status in ("completed", "canceled"),
    "priority=high,low": lambda t: t.priority in ("high", "low"),
    "tag=a,b": lambda t: not {"a", "b"}.isdisjoint(t.tags),
    "scope=global": lambda t: t.scope == "global",
    "owner_kind=pool": lambda t: t.owner is not None,
    "owner_ref=nobody": lambda t: False,
    "network_channel=blue": lambda t: t.network_channel == "blue",
    "identifier=OPS-7": lambda t: t.identifier == "OPS-7",
    "query=%25": lambda t: "%" in t.title,
    "query=ops-1": lambda t: "OPS-1" in (t.identifier or ""),
    "parent_task_id=none": lambda t: t.parent_task_id is None,
    "approval_state=approved": lambda t: False,
}
PLANS: dict[str, tuple[str, dict[str, Any]]] = {
    "tasks by activity": (tasks.LIST_TASKS_BY_ACTIVITY, {"status": ["ready"]}),
    "tasks by creation": (tasks.LIST_TASKS_BY_CREATION, {"priority": list(WEIGHTS.values())}),
    "runs": (runs.SEARCH_RUNS, {"after": "~"}),
    "the log": (events.LIST_EVENTS, {"descending": False}),
    "the log backwards": (events.LIST_EVENTS, {"descending": True}),
}
NOTHING = dict.fromkeys(
    (
        "scope", "status", "priority", "approval_state", "owner_kind", "owner_ref", "tag", "query",
        "network_channel", "identifier", "task_id", "run_id", "event_type", "actor_kind",
        "actor_ref", "since", "until", "include_drafts",
        "agent_name", "session_id", "stuck",
    )
)  # fmt: skip


@pytest.fixture(scope="module")
def full(world: World) -> Workspace:
    """A workspace with tasks of all sorts, some of them active lately."""
    own, dice = world.workspace(), random.Random(5)
    for n in range(60):
        own.task(
            f"{n} %" if n % 7 == 0 else f"{n}", priority=dice.choice(list(WEIGHTS)),
            tags=dice.sample("abcd", 2), identifier=f"OPS-{n}" if n % 2 else None,
            scope="global" if n % 5 == 0 else "workspace", network_channel=["blue", None][n % 2],
            owner={"kind": "pool", "ref": "worker"} if n % 6 == 0 else None,
        )  # fmt: skip
        world.advance(dice.choice([0, 1]))
    made = own.operator.get("/api/tasks", limit=500).tasks
    parent, other = [task.id for task in made if task.owner is None][:2]
    for n in range(12):
        own.task(f"child {n}", parent_task_id=parent if n % 3 else other, scope="workspace")
    for task in dice.sample(made, 20):
        if task.id not in (parent, other):
            own.cancel(task.id)
    own.agent().work(own.get(parent).id)
    return own


def _walk(own: Workspace, path: str, name: str, query: str) -> Iterator[Any]:
    """All rows of a list, seven at a time."""
    asked = dict(parse_qsl(query, strict_parsing=True)) if query else {}
    while True:
        page = own.operator.get(path, limit=7, **asked)
        yield from getattr(page, name)
        if page.next_cursor is None:
            return
        asked["cursor"] = page.next_cursor


def _newest(task: Any, sort: str) -> tuple[str, str]:
    return (task.created_at if sort == "created" else task.last_activity_at, task.id)


@pytest.mark.parametrize("sort", ["activity", "created"])
@pytest.mark.parametrize("wanted", ["", *FILTERS])
def test_a_list_of_tasks_is_in_order_and_whole(full: Workspace, sort: str, wanted: str) -> None:
    every = full.operator.get("/api/tasks", limit=500).tasks
    fits = FILTERS.get(wanted, lambda _: True)
    told = _walk(full, "/api/tasks", "tasks", f"sort={sort}&{wanted}".rstrip("&"))
    expected = sorted(filter(fits, every), key=lambda t: _newest(t, sort), reverse=True)
    assert [task.id for task in told] == [task.id for task in expected]


@pytest.mark.parametrize("sort", ["activity", "created"])
def test_children_are_in_order_and_whole(full: Workspace, sort: str) -> None:
    every = full.operator.get("/api/tasks", limit=500).tasks
    parents = {task.parent_task_id for task in every} - {None}
    assert len(parents) == 2
    for parent in parents:
        told = _walk(full, "/api/tasks", "tasks", f"sort={sort}&parent_task_id={parent}")
        children = [task for task in every if task.parent_task_id == parent]
        expected = sorted(children, key=lambda t: _newest(t, sort), reverse=True)
        assert [task.id for task in told] == [task.id for task in expected]


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_the_log_is_in_order_and_whole(full: Workspace, order: str) -> None:
    every = full.events()
    task_id = next(e.task_id for e in every if e.event_type == "task.run_completed")
    run_id = next(e.run_id for e in every if e.event_type == "task.run_completed")
    filters: dict[str, Callable[[Any], bool]] = {
        "": lambda e: True,
        "&after_sequence=40": lambda e: e.sequence > 40,
        f"&task_id={task_id}": lambda e: e.task_id == task_id,
        f"&run_id={run_id}": lambda e: e.run_id == run_id,
        f"&run_id={run_id}&task_id=other": lambda e: False,
        "&event_type=task.canceled,task.created&actor_kind=human": lambda e: (
            e.event_type in ("task.canceled", "task.created")
        ),
        f"&until={every[30].timestamp}": lambda e: e.timestamp < every[30].timestamp,
    }
    for wanted, fits in filters.items():
        told = _walk(full, "/api/events", "events", f"order={order}{wanted}")
        expected = [e.sequence for e in every if fits(e)]
        assert [e.sequence for e in told] == expected[:: 1 if order == "asc" else -1], wanted


@pytest.mark.parametrize("name", ["tasks", "runs", "events", "timeline"])
def test_a_last_page_that_is_full_says_that_it_is_the_last(full: Workspace, name: str) -> None:
    """No cursor leads to an empty page."""
    task_id = full.operator.get("/api/tasks", limit=1, status="completed").tasks[0].id
    paths = {"runs": "/api/task-runs", "timeline": f"/api/tasks/{task_id}/timeline"}

    def read(limit: int) -> tuple[int, str | None]:
        page = full.operator.get(paths.get(name, f"/api/{name}"), limit=limit)
        return len(getattr(page, name)), page.next_cursor

    count = read(500)[0]
    assert count > 1
    assert read(count) == (count, None)
    assert read(count - 1)[1] is not None


def test_the_events_of_a_deleted_tasks_run_are_found(workspace: Workspace) -> None:
    task = workspace.task()
    held = workspace.agent().work(task.id)
    workspace.operator.delete(f"/api/tasks/{task.id}")
    told = workspace.told(run_id=held.run_id)
    assert told == ["task.run_enqueued", "task.run_claimed", "task.run_completed"]


@pytest.mark.parametrize("name", PLANS)
def test_a_page_costs_a_page(workspace: Workspace, world: World, name: str) -> None:
    """However many rows there are, those of a page are read, along an index."""
    items = [{"ref": str(n), "title": f"{n}"} for n in range(2000)]
    workspace.operator.post("/api/tasks/bulk", tasks=items)
    statement, filters = PLANS[name]
    given = {
        **NOTHING, "workspace_id": workspace.id, "after_at": "infinity", "after_id": "",
        "roots": True, "limit": 20, "after": 0, "before": 2**62, "page_bytes": 1 << 20, **filters,
    }  # fmt: skip
    for mode in ("force_custom_plan", "force_generic_plan"):
        with world.db.transaction():
            world.db.execute(f"set local plan_cache_mode = {mode}".encode())
            # Tables beside it are small here, and read whole for that; they will not stay so.
            world.db.execute(b"set local enable_seqscan = off")
            explain = "explain (analyze, format json) " + statement
            [[told]] = world.db.execute(explain.encode(), given, prepare=True)
        most = max(_rows_read(told[0]["Plan"]))
        assert 20 <= most[0] < 200, (mode, most)


def _rows_read(node: dict[str, Any]) -> Iterator[tuple[float, str, str]]:
    """How many rows each part of the plan reads of a table, kept or not, and how it finds them."""
    read = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
    if "Relation Name" in node:
        how = node.get("Index Name", f"{node['Node Type']} on {node['Relation Name']}")
        yield read * node["Actual Loops"], how, node.get("Index Cond", "")
    for part in node.get("Plans", ()):
        yield from _rows_read(part)


@pytest.mark.parametrize("value", ["3.0", "3e0", "٣", "1_0"])
def test_a_number_in_a_query_is_written_as_one(workspace: Workspace, value: str) -> None:
    with refused(400, "invalid_query", parameter="limit"):
        workspace.operator.get("/api/tasks", limit=value)
    assert workspace.operator.get("/api/tasks", limit="3").tasks == []
