"""Who follows the log: each is told everything once and in order, whatever happens meanwhile."""

import random
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import groupby
from typing import Any, Final

from tests.client import Client, connections
from tests.factories import Workspace
from tests.proof.mutants.trial import Trial
from tests.receiver import Got, bridge, receiving, subscribe
from tests.replay import replay
from tests.streams import Frame, Subscriber, subscribed
from tests.throng import Throng

# Less than a page of the log, so that streams fall behind and begin again.
BUFFER: Final = 16
TOLD: Final = ("task.run_claimed", "task.canceled")
OF_PART: Final = ("task.updated", "task.child_created")
PATIENCE_SECONDS: Final = 8.0
# Longer than the wait before the third attempt, and than a server that is no more holds one.
LATER_SECONDS: Final = 400
DAY: Final = 86400
READERS_A_PATH: Final = 3
STEPS: Final = 30
END: Final = "the end"
# What a receiver answers: one delivery in six is to be made again.
FAILS: Final[list[tuple[int, dict[str, str], bytes]]] = [*[(204, {}, b"")] * 5, (503, {}, b"")]


def readers(trial: Trial) -> None:
    """Streams of the log, of a tree and of a part of it, and a bridge, beside a throng."""
    workspace = trial.world.workspace(event_retention_days=1)
    root = workspace.task(auto_enqueue_on_ready=False)
    part = workspace.task(parent_task_id=root.id, auto_enqueue_on_ready=False)
    url = trial.servers.start(WORKLEASE_LOOPS=True, WORKLEASE_SSE_BUFFER=BUFFER).server.url
    paths = {"/api/observe/stream": None} | {
        f"/api/tasks/{name}/stream": name for name in (root.id, part.id)
    }
    followers = [
        Follower(workspace, url, path, below, random.Random(f"{trial.seed} {path} {n}"))
        for path, below in paths.items() for n in range(READERS_A_PATH)
    ]  # fmt: skip
    latecomers = [
        Follower(workspace, url, path, below, random.Random(trial.seed))
        for path, below in paths.items()
    ]
    with receiving() as receiver, ThreadPoolExecutor(2 * len(followers)) as pool:
        receiver.answers += FAILS * 20
        hook = bridge(workspace, receiver.url, workspace_event_types=list(TOLD))
        subscribe(workspace, part.id, hook, event_types=list(OF_PART))
        reading = [pool.submit(follower.read) for follower in followers]
        throng = Throng(workspace, part.id, STEPS)
        try:
            throng.live([trial.world.server.url, url], trial.seed)
            workspace.operator.patch(f"/api/tasks/{part.id}", title=END)
            reading += [pool.submit(late.read) for late in latecomers]
            _until(reading)
        finally:
            followers += latecomers
            trial.operations += throng.met.total() + sum(len(each.seen) for each in followers)
            for process in trial.servers.started[1:]:
                process.server.kill()
        log = workspace.log()
        for follower in followers:
            follower.judge(_until_end(log))
        faults = workspace.faults()
        assert not faults, f"books: {', '.join(faults)}"
        replay(trial.world, workspace.id, log)
        log = _grow_old(trial, workspace, part.id)
    _judge_deliveries(receiver.taken, log, part.id)


def _until_end(log: list[Any]) -> list[Any]:
    """What was read: loops may have logged more before their server was gone."""
    [end] = [
        event.sequence for event in log
        if event.event_type == "task.updated" and event.payload["changes"].get("title") == END
    ]  # fmt: skip
    return [event for event in log if event.sequence <= end]


def _grow_old(trial: Trial, workspace: Workspace, part_id: str) -> list[Any]:
    """Retention leaves what is still to be sent, then only the newest event; the whole log."""
    workspace.operator.patch(f"/api/tasks/{part_id}", title="the very end")
    log = workspace.log()
    newest = log[-1].sequence
    trial.world.advance(1.5 * DAY)
    trial.world.forget()
    # Also what the server had begun that is no more is sent again: its time is up.
    while trial.world.deliver():
        trial.world.advance(LATER_SECONDS)
    trial.world.forget()
    kept = [event.sequence for event in workspace.log()]
    assert kept == [newest], f"P8: of a log up to {newest} retention left {kept[:5]}"
    for after in (1, newest + 100):
        with subscribed(workspace.operator, "/api/observe/stream", after_sequence=after) as stream:
            told = stream.next()
            assert told is not None
            assert told.event == "resync", f"P9: who came from {after} was told {told.event}"
    return log


def _until(reading: list["Future[None]"]) -> None:
    done, left = wait(reading, PATIENCE_SECONDS)
    assert not left, f"{len(left)} streams never came to the end of the log"
    for each in done:
        each.result()


class Follower:
    """Follows a stream to its end, and comes back behind what it saw last whenever it is cut."""

    def __init__(
        self, workspace: Workspace, url: str, path: str, below: str | None, dice: random.Random
    ) -> None:
        self.client = Client(connections(url), workspace.operator.key)
        self.path, self.below, self.dice = path, below, dice
        self.seen: list[Frame] = []

    def read(self) -> None:
        """Reads until the last event has come."""
        with self.client.http:
            while not (self.seen and _is_end(self.seen[-1].data)):
                after = self.seen[-1].id if self.seen else 0
                with subscribed(self.client, self.path, after_sequence=after) as stream:
                    self._follow(stream, self.dice.choice((5, 50, 500, 5000)))

    def _follow(self, stream: Subscriber, count: int) -> None:
        for _ in range(count):
            frame = stream.next()
            if frame is None or frame.event == "resync":
                return
            if frame.event != "ready":
                self.seen.append(frame)
                if _is_end(frame.data):
                    return

    def judge(self, log: list[Any]) -> None:
        """What was read is the log, or the part of it that the stream is about."""
        due = log if self.below is None else list(_below(log, self.below))
        name = "the log" if self.below is None else "a tree"
        _same([frame.id or 0 for frame in self.seen], [event.sequence for event in due], name)
        if self.below is None:
            assert [frame.data.event for frame in self.seen] == due, "an event is told differently"


def _is_end(told: Any) -> bool:
    event = getattr(told, "event", None) or told.timeline
    title = (event.payload or {}).get("changes", {}).get("title")
    return bool(title == END)


def _below(log: list[Any], top: str) -> Iterable[Any]:
    """The events of a task and of all below it."""
    parents: dict[str, str | None] = {
        event.task_id: event.payload["parent_task_id"]
        for event in log if event.event_type == "task.created"
    }  # fmt: skip
    inside = {top}
    for task_id, parent in parents.items():
        if parent in inside:
            inside.add(task_id)
    return (event for event in log if event.task_id in inside)


def _judge_deliveries(got: list[Got], log: list[Any], part_id: str) -> None:
    """The bridge is told of the workspace from then on, of its task from the first event on."""
    began = next(event.sequence for event in log if event.event_type == "bridge.created")
    due = {
        TOLD: [event for event in log if event.sequence > began],
        OF_PART: [event for event in log if event.task_id == part_id],
    }
    for types, events in due.items():
        told = [each.sequence for each in got if each.told["type"] in types]
        once = [sequence for sequence, _ in groupby(told)]
        _same(once, [event.sequence for event in events if event.event_type in types], "a bridge")


def _same(told: list[int], due: list[int], name: str) -> None:
    for place, (one, other) in enumerate(zip(told, due, strict=False)):
        assert one == other, f"{name} was told event {one} as number {place}, and not {other}"
    assert len(told) == len(due), f"{name} was told {len(told)} events, and not {len(due)}"
