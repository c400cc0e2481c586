"""The stream of a task and its descendants: everything once, in order, or a resync (P9)."""

import time

import pytest

from server.loops import expiry
from tests.client import Client
from tests.factories import Agent, Workspace, refused
from tests.streams import subscribed
from tests.world import Servers, World


def _path(task_id: str) -> str:
    return f"/api/tasks/{task_id}/stream"


def test_a_stream_begins_with_what_was_and_goes_on_with_what_comes(
    workspace: Workspace, agent: Agent
) -> None:
    task = workspace.task()
    workspace.task("another tree")
    with subscribed(workspace.operator, _path(task.id)) as stream:
        past = stream.until("ready")
        assert [f.event for f in past] == ["task.created", "task.run_enqueued"]
        agent.work(task.id, result=1)
        live = [stream.next(), stream.next()]
    events = workspace.events(task_id=task.id)
    assert [f.id for f in (*past, *live) if f] == [e.sequence for e in events]
    assert live[1] is not None
    item = live[1].data.timeline
    assert (item.task.status, item.run.status) == ("completed", "completed")


@pytest.mark.parametrize("seen", [0, 1, 3])
def test_a_subscriber_that_comes_back_misses_nothing_and_sees_nothing_twice(
    workspace: Workspace, agent: Agent, seen: int
) -> None:
    """P9: from the last sequence it saw; Last-Event-ID counts more than after_sequence."""
    task = workspace.task()
    for _ in range(3):
        agent.claim().release()
    sequences = [e.sequence for e in workspace.events(task_id=task.id)]
    after = sequences[seen]
    back = workspace.operator.also(Last_Event_ID=str(after))
    with subscribed(back, _path(task.id), after_sequence=0) as stream:
        assert [f.id for f in stream.until("ready")] == sequences[seen + 1 :]
    with subscribed(workspace.operator, _path(task.id), after_sequence=after) as stream:
        assert [f.id for f in stream.until("ready")] == sequences[seen + 1 :]


def test_a_stream_has_the_descendants_also_later_and_deleted_ones(
    workspace: Workspace, agent: Agent
) -> None:
    root = workspace.task()
    child = workspace.task(parent_task_id=root.id)
    gone = workspace.task(parent_task_id=child.id, auto_enqueue_on_ready=False)
    workspace.operator.delete(f"/api/tasks/{gone.id}")
    with subscribed(workspace.operator, _path(child.id)) as stream:
        past = stream.until("ready")
        assert {f.data.timeline.task.id for f in past if f.data.timeline.task} == {child.id}
        assert past[-1].event == "task.deleted"
        assert past[-1].data.timeline.task is None
        late = workspace.task(parent_task_id=child.id)
        frames = [stream.next() for _ in range(3)]
        assert [f.event for f in frames if f] == [
            "task.created", "task.child_created", "task.run_enqueued",
        ]  # fmt: skip
        agent.work(root.id)
        agent.work(late.id)
        frame = stream.next()
        assert frame is not None
        assert frame.data.timeline.task.id == late.id


def test_a_stream_ends_with_its_task(workspace: Workspace) -> None:
    task, operator = workspace.task(auto_enqueue_on_ready=False), workspace.operator
    with subscribed(operator, f"/tasks/{task.id}/stream") as stream:
        stream.until("ready")
        operator.delete(f"/api/tasks/{task.id}")
        assert [f.event for f in stream.rest()] == ["task.deleted"]
    with refused(404, "task_not_found", id=task.id), subscribed(operator, _path(task.id)):
        pass


def test_who_asks_for_what_is_gone_or_not_yet_there_is_told_so(workspace: Workspace) -> None:
    """P9: an explicit resync, and then what comes from now on."""
    task = workspace.task()
    newest = workspace.events()[-1].sequence
    with subscribed(workspace.operator, _path(task.id), after_sequence=newest + 5) as stream:
        frame = stream.next()
        assert frame is not None
        assert (frame.event, frame.data) == (
            "resync", {"reason": "retention", "sequence": newest, "oldest_sequence": 1},
        )  # fmt: skip
        assert stream.until("ready") == []
        workspace.operator.patch(f"/api/tasks/{task.id}", title="new")
        frame = stream.next()
        assert frame is not None
        assert frame.event == "task.updated"


@pytest.mark.parametrize("header", ["-1", "x", "1.5"])
def test_an_unfit_position_is_refused(workspace: Workspace, header: str) -> None:
    task = workspace.task()
    lost = workspace.operator.also(Last_Event_ID=header)
    with refused(400, "invalid_query", parameter="Last-Event-ID"), subscribed(lost, _path(task.id)):
        pass


def test_a_lost_hint_costs_time_and_nothing_else(world: World, workspace: Workspace) -> None:
    task = workspace.task()
    workspace.agent().claim(lease_seconds=60)
    with subscribed(workspace.operator, _path(task.id)) as stream:
        stream.until("ready")
        world.advance(61)
        world.swept_now()
        world.run(lambda db: expiry.run_once(db, 1000, lambda *_: None))
        frame = stream.next()
        assert frame is not None
        assert frame.event == "task.run_lease_expired"


def test_a_workspace_has_so_many_streams_and_no_more(world: World) -> None:
    own = world.workspace(max_streams=1)
    task = own.task()
    with subscribed(own.operator, _path(task.id)) as stream:
        stream.until("ready")
        with refused(429, "rate_limited", limit=1), subscribed(own.operator, _path(task.id)):
            pass


def test_a_slow_client_is_told_and_finds_the_rest_later(
    workspace: Workspace, servers: Servers
) -> None:
    """P9: what it was sent before the resync was in order and whole."""
    own = Client(servers.start(WORKLEASE_SSE_BUFFER=16).http, workspace.operator.key)
    root = workspace.task()
    wide = [{"ref": str(n), "title": "t", "metadata": "x" * 7000} for n in range(2000)]
    with subscribed(own, _path(root.id)) as stream:
        stream.until("ready")
        own.post("/api/tasks/bulk", tasks=wide, defaults={"parent_task_id": root.id})
        seen = stream.rest()
    told = seen.pop()
    assert (told.event, told.data["reason"]) == ("resync", "slow_client")
    assert told.id is None
    with subscribed(own, _path(root.id), after_sequence=seen[-1].id) as stream:
        seen += stream.until("ready")
    everything = [frame.id for frame in seen]
    assert everything == list(range(everything[0] or 0, told.data["sequence"] + 1))


def test_a_stream_ends_soon_after_its_key(world: World, workspace: Workspace) -> None:
    task = workspace.task()
    secret = workspace.key("viewer")
    with subscribed(workspace.client("viewer"), _path(task.id)) as stream:
        stream.until("ready")
        world.admin.delete(f"/api/keys/{'_'.join(secret.split('_')[1:3])}")
        revoked = time.monotonic()
        assert stream.rest() == []
        assert time.monotonic() - revoked < 12
