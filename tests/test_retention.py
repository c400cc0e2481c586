"""Retention: what goes, what stays, and that nobody overlooks what went."""

import asyncio

import pytest

from server.api.feed import Feed, Subscriber, Topic
from server.api.turns import Turns
from server.db.pool import Database
from server.loops import digests, retention
from server.store import retention as retention_store
from tests.factories import Workspace, refused
from tests.receiver import attempts, bridge, cursor, receiving, subscribe
from tests.streams import subscribed
from tests.world import World

DAY = 86_400


@pytest.fixture
def brief(world: World) -> Workspace:
    """A workspace that keeps little."""
    return world.workspace(event_retention_days=2, delivery_retention_days=1)


def test_old_events_go_and_the_newest_stays(world: World, brief: Workspace) -> None:
    """P8: sequences go on, and the count of open tasks is as exact as before."""
    brief.task()
    newest = brief.events()[-1].sequence
    world.advance(2 * DAY - 3600)
    world.forget()
    assert len(brief.events()) == newest
    world.advance(3601)
    world.forget()
    assert [event.sequence for event in brief.events()] == [newest]
    brief.task()
    assert [event.sequence for event in brief.events()][:2] == [newest, newest + 1]
    assert brief.faults() == {}


def test_events_are_kept_for_ever_where_that_is_wanted(world: World) -> None:
    own = world.workspace(event_retention_days=0, delivery_retention_days=0)
    own.task()
    before = own.events()
    world.advance(4000 * DAY)
    world.forget()
    assert own.events() == before


def test_what_is_still_to_be_delivered_holds_the_log_as_long_again(
    world: World, brief: Workspace
) -> None:
    task = brief.task()
    with receiving() as receiver:
        mine = subscribe(brief, task.id, bridge(brief, receiver.url), event_types=["task.updated"])
        brief.operator.patch(f"/api/tasks/{task.id}", title="new")
        wanted = brief.events()[-1].sequence
        brief.task("newer")
        receiver.answer(500)
        world.deliver()
        world.advance(2 * DAY + 1)
        world.forget()
        assert brief.events()[0].sequence == wanted
        world.advance(2 * DAY)
        world.forget()
        assert brief.events()[0].sequence > wanted
    assert "retention" in cursor(brief, mine).last_error


@pytest.mark.parametrize("how", ["delivered", "disabled", "nothing wanted"])
def test_nothing_else_holds_the_log(world: World, brief: Workspace, how: str) -> None:
    task = brief.task()
    with receiving() as receiver:
        to = bridge(brief, receiver.url)
        types = ["task.paused"] if how == "nothing wanted" else ["task.created"]
        subscribe(brief, task.id, to, event_types=types)
        if how == "disabled":
            brief.operator.patch(f"/api/bridges/{to.id}", enabled=False)
        world.deliver()
    world.advance(2 * DAY + 1)
    world.forget()
    assert len(brief.events()) == 1


def test_old_attempts_go(world: World, brief: Workspace) -> None:
    with receiving() as receiver:
        to = bridge(brief, receiver.url)
        subscribe(brief, brief.task().id, to, event_types=["task.created"])
        world.deliver()
        world.advance(DAY + 1)
        subscribe(brief, brief.task().id, to, event_types=["task.created"])
        world.deliver()
        world.forget()
    assert [row.sequence for row in attempts(brief, to)] == [receiver.sequences()[1]]


def test_an_event_is_final_also_where_the_one_before_it_is_gone(
    world: World, brief: Workspace
) -> None:
    """And a change of a task that ended long ago still is not."""
    done, changed = brief.task(), brief.task()
    worker = brief.agent()
    worker.work(changed.id)
    brief.task("the newest")
    world.advance(3 * DAY)
    world.forget()
    worker.work(done.id)
    brief.operator.patch(f"/api/tasks/{changed.id}", title="new")
    with receiving() as receiver:
        to = bridge(brief, receiver.url)
        for task in (done, changed):
            subscribe(brief, task.id, to)
        world.deliver()
    assert [got.told["type"] for got in receiver.got] == ["task.run_completed"]


def test_a_cursor_behind_what_is_kept_is_refused(world: World, brief: Workspace) -> None:
    task = brief.task()
    path = f"/api/tasks/{task.id}/timeline"
    log = brief.operator.get("/api/events", limit=1).next_cursor
    timeline = brief.operator.get(path, limit=1).next_cursor
    world.advance(2 * DAY + 1)
    brief.task()
    world.forget()
    with refused(400, "invalid_cursor"):
        brief.operator.get("/api/events", limit=1, cursor=log)
    with refused(400, "invalid_cursor"):
        brief.operator.get(path, limit=1, cursor=timeline)
    assert brief.events(after_sequence=0)[0].event_type == "task.created"


def test_a_stream_from_what_is_gone_begins_with_a_resync(world: World, brief: Workspace) -> None:
    """P9: an explicit resync, and then what comes."""
    task = brief.task()
    world.advance(2 * DAY + 1)
    newest = brief.events()[-1].sequence
    world.forget()
    path = f"/api/tasks/{task.id}/stream"
    with subscribed(brief.operator, path, after_sequence=1) as stream:
        told = stream.next()
        assert told is not None
        wanted = {"reason": "retention", "sequence": newest, "oldest_sequence": newest}
        assert (told.event, told.data) == ("resync", wanted)
        stream.until("ready")


def test_trees_that_ended_long_ago_go_whole(world: World) -> None:
    """Not one with an open or a younger task in it, and none that an open task waits for."""
    own = world.workspace(task_retention_days=2)
    gone, half, needed, young = (own.task(title) for title in ("gone", "half", "needed", "young"))
    child = own.task(parent_task_id=gone.id)
    own.task(parent_task_id=child.id)
    open_child = own.task(parent_task_id=half.id)
    waiting = own.task(depends_on=[needed.id])
    own.cancel(gone.id)
    for task in (half, needed):
        own.agent().work(task.id)
    world.advance(2 * DAY + 1)
    own.agent().work(young.id)
    assert world.forget() >= 3
    left = {task.id for task in own.operator.get("/api/tasks").tasks}
    assert left == {half.id, open_child.id, needed.id, waiting.id, young.id}
    assert own.told()[-3:] == ["task.deleted"] * 3
    assert own.events()[-1].actor.ref == "retention"
    assert own.faults() == {}


@pytest.mark.parametrize("use", ["waited for", "run again"])
def test_a_task_that_came_into_use_since_it_was_found_stays(
    world: World, monkeypatch: pytest.MonkeyPatch, use: str
) -> None:
    """P6: deleted, it would let go what waits for it."""
    own = world.workspace(task_retention_days=2)
    task = own.task()
    own.agent().work(task.id, "fail", retryable=False)
    world.advance(2 * DAY + 1)
    find = retention_store.find_old_tasks

    async def find_and_use(db: Database, workspace_id: str, limit: int) -> list[str]:
        found = await find(db, workspace_id, limit)
        if found:
            await asyncio.to_thread(_use, own, task.id, use)
        return found

    monkeypatch.setattr(retention_store, "find_old_tasks", find_and_use)
    world.forget()
    assert own.get(task.id).id == task.id
    assert own.agent().claims() == []
    assert own.faults() == {}


def _use(own: Workspace, task_id: str, use: str) -> None:
    if use == "waited for":
        own.task(depends_on=[task_id], auto_enqueue_on_ready=True)
    else:
        [run] = own.operator.get(f"/api/tasks/{task_id}/runs").runs
        own.operator.post(f"/api/runs/{run.id}/retry")
        own.agent().work(task_id)


def test_a_stream_that_retention_overtakes_says_so(world: World, brief: Workspace) -> None:
    """P9: between two pages of what is stored."""
    root = brief.task()
    wide = [{"ref": str(n), "title": "t", "metadata": "x" * 7000} for n in range(2000)]
    brief.operator.post("/api/tasks/bulk", tasks=wide, defaults={"parent_task_id": root.id})
    with subscribed(brief.operator, f"/api/tasks/{root.id}/stream") as stream:
        assert stream.next() is not None
        world.advance(2 * DAY + 1)
        world.forget()
        stream.until("resync")
        stream.until("ready")


def test_a_feed_that_retention_overtakes_says_so(world: World, brief: Workspace) -> None:
    """P9: as after a process was asleep for days."""
    task = brief.task()
    subscriber = Subscriber(Turns(), Topic("task", task.id), 100)

    async def sleep(db: Database) -> None:
        feed = Feed(db, brief.id)
        await feed.join(subscriber)
        await asyncio.to_thread(brief.operator.patch, f"/api/tasks/{task.id}", title="a")
        await asyncio.to_thread(brief.operator.patch, f"/api/tasks/{task.id}", title="b")
        await asyncio.to_thread(world.advance, 2 * DAY + 1)
        await digests.run_once(db)
        await retention.run_once(db, db, lambda *_: None)
        feed.hint()
        assert await subscriber.take(10) is None
        feed.leave(subscriber)

    world.run(sleep)
    assert (subscriber.overflowed, subscriber.reason) == (True, "retention")
