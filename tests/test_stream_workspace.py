"""The stream of a workspace: its whole log as it happens, or what of it is wanted (P9)."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

from server.api.feed import Feed, Subscriber, Told, Topic
from server.api.turns import Turns
from server.db.pool import Database, open_pool
from tests.factories import Agent, Workspace, refused
from tests.streams import subscribed
from tests.world import World

PATH = "/api/observe/stream"


def test_a_workspace_stream_begins_with_what_comes(workspace: Workspace, agent: Agent) -> None:
    workspace.task()
    with subscribed(workspace.operator, PATH) as stream:
        assert stream.until("ready") == []
        workspace.task()
        agent.claim()
        told = [stream.next() for _ in range(3)]
    assert [f.data.event for f in told if f] == workspace.events()[-3:]


def test_a_workspace_stream_goes_on_behind_the_last_sequence_seen(workspace: Workspace) -> None:
    """P9: everything later, once, in order."""
    for _ in range(3):
        workspace.task()
    with subscribed(workspace.operator, PATH, after_sequence=2) as stream:
        past = [frame.data.event for frame in stream.until("ready")]
        workspace.task()
        assert stream.next() is not None
    assert past == workspace.events(after_sequence=2)[: len(past)]
    assert [event.sequence for event in past] == list(range(3, 3 + len(past)))


def test_a_workspace_stream_skips_what_does_not_fit_its_filters(
    workspace: Workspace, agent: Agent
) -> None:
    task, other = workspace.task(), workspace.task()
    wanted = {"event_type": "task.run_claimed,task.run_completed", "task_id": task.id}
    with subscribed(workspace.operator, PATH, after_sequence=0, **wanted) as stream:
        assert stream.until("ready") == []
        agent.work(other.id)
        agent.work(task.id)
        told = [stream.next(), stream.next()]
    assert [f.event for f in told if f] == ["task.run_claimed", "task.run_completed"]
    assert {f.data.event.task_id for f in told if f} == {task.id}
    with subscribed(workspace.operator, PATH, after_sequence=0, **wanted) as stream:
        assert stream.until("ready") == told


def test_a_wide_payload_is_cut_in_a_stream(workspace: Workspace) -> None:
    with subscribed(workspace.operator, PATH) as stream:
        stream.until("ready")
        workspace.task(metadata="x" * 9000)
        told = stream.next()
    assert told is not None
    assert (told.data.event.payload, told.data.event.payload_bytes > 9000) == (None, True)


def test_a_workspace_stream_shows_no_other_workspace(world: World, workspace: Workspace) -> None:
    """P12."""
    other = world.workspace()
    with subscribed(workspace.operator, PATH, after_sequence=0) as stream:
        stream.until("ready")
        other.task()
        mine = workspace.task()
        told = stream.next()
    assert told is not None
    assert told.data.event.task_id == mine.id
    with refused(404, "workspace_not_found"):
        workspace.operator.get(PATH, workspace=other.id)


class SlowDatabase(Database):
    """A real database whose answers are held back while a test says so."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self.asked, self.going = asyncio.Event(), asyncio.Event()

    async def many(self, statement: str, /, **parameters: Any) -> Any:
        rows = await self._db.many(statement, **parameters)
        self.asked.set()
        await self.going.wait()
        return rows


async def _join_meanwhile(own: Workspace, early_id: str, late_id: str) -> tuple[int, int]:
    """Where two streams begin, the second of which joined while a page was read for the first."""
    conninfo = own.world.server.conninfo
    async with open_pool(conninfo, 2, 5, 30) as pool:
        slow = SlowDatabase(pool)
        feed = Feed(slow, own.id)
        early, late = (Subscriber(Turns(), Topic("task", name), 9) for name in (early_id, late_id))
        slow.going.set()
        await feed.join(early)
        slow.going.clear()
        await asyncio.to_thread(own.cancel, late_id)
        slow.asked.clear()
        feed.hint()
        await slow.asked.wait()
        joining = asyncio.create_task(feed.join(late))
        await asyncio.wait([joining], timeout=0.05)
        slow.going.set()
        await joining
        feed.leave(early)
        feed.leave(late)
        return early.joined_at, late.joined_at


def test_who_joins_while_the_log_is_read_misses_nothing(workspace: Workspace) -> None:
    """P9: a page is read for those who have joined; who comes meanwhile begins behind it."""
    first, second = workspace.task(), workspace.task()
    early, late = asyncio.run(_join_meanwhile(workspace, first.id, second.id))
    assert early < late == workspace.events()[-1].sequence


async def _admitted_meanwhile(own: Workspace, task_id: str) -> Told | None:
    """What a stream is told that was counted before a page was read, and joined after it."""
    conninfo, topic = own.world.server.conninfo, Topic("workspace", "")
    async with open_pool(conninfo, 2, 5, 30) as pool:
        feed = Feed(pool, own.id)
        early, late = (Subscriber(Turns(), topic, 9) for _ in range(2))
        await feed.join(early)
        feed.admit(late)
        await asyncio.to_thread(own.cancel, task_id)
        feed.hint()
        assert await early.take(60) is not None
        await feed.join(late)
        told = await late.take(0.01)
        feed.leave(early)
        feed.leave(late)
        return told


def test_who_is_counted_before_it_joins_is_told_nothing_twice(workspace: Workspace) -> None:
    """P9: what was published meanwhile is read from the log."""
    assert asyncio.run(_admitted_meanwhile(workspace, workspace.task().id)) is None


def test_streams_that_open_at_once_are_no_more_than_may_be(world: World) -> None:
    """Each is counted before the next one is."""
    own, all_told = world.workspace(max_streams=2), Barrier(8)

    def status(_: int) -> int:
        with own.operator.http.stream("GET", PATH, headers=own.operator.sent()) as answer:
            all_told.wait(60)
            return answer.status_code

    with ThreadPoolExecutor(8) as pool:
        told = sorted(pool.map(status, range(8)))
    assert told == [200] * 2 + [429] * 6
