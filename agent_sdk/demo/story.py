"""What the event log tells: where every task stands, who holds what, and whether it all adds up."""

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime

from msgspec import Struct, field

from agent_sdk.types import TERMINAL, Event

ENDS = frozenset(
    {"task.run_completed", "task.run_failed", "task.run_released", "task.run_lease_expired",
     "task.run_canceled"}
)  # fmt: skip


class Held(Struct, frozen=True):
    """A live lease."""

    run_id: str
    task_id: str
    agent: str
    fence: int
    since: datetime


class TaskStory(Struct):
    """What happened to one task; the numbers are places in the log."""

    title: str
    status: str
    waits_for: list[str]
    claimed: list[int] = field(default_factory=list)
    completed: list[int] = field(default_factory=list)
    expired: list[int] = field(default_factory=list)
    fences: list[int] = field(default_factory=list)
    agents: list[str] = field(default_factory=list)

    @property
    def fate(self) -> str:
        """What became of it after its holder died."""
        if not self.expired:
            return f"{self.title}: its lease has yet to run out"
        if len(self.claimed) < 2:
            return f"{self.title}: its lease ran out, it is queued again"
        holder = f"{self.agents[-1]}, fence {self.fences[-1]}"
        return f"{self.title}: {'done' if self.completed else 'claimed again'} by {holder}"


class Story:
    """The log, read event by event."""

    def __init__(self) -> None:
        self.tasks: dict[str, TaskStory] = {}
        self.held: dict[str, Held] = {}
        self.agents: dict[str, str] = {}
        self.sequence = 0
        self.gaps = 0
        self.now: datetime | None = None

    def read(self, events: Iterable[Event]) -> None:
        """Take in the events that came next."""
        for event in events:
            self.gaps += event.sequence != self.sequence + 1
            self.sequence = event.sequence or self.sequence
            self.now = event.timestamp
            if event.task_id is not None:
                self._read(event, event.task_id)

    def counts(self) -> Counter[str]:
        """How many tasks are in which status."""
        return Counter(task.status for task in self.tasks.values())

    @property
    def over(self) -> bool:
        """Whether every task has ended."""
        return bool(self.tasks) and all(task.status in TERMINAL for task in self.tasks.values())

    def recovered(self, task_id: str) -> bool:
        """Whether the task's lease expired, and another agent claimed and completed it."""
        task = self.tasks[task_id]
        return bool(task.expired and task.completed) and len(set(task.agents)) > 1

    def faults(self, expected: int) -> Iterator[str]:
        """Everything that is not as promised: each task once, and after those it waited for."""
        if self.gaps:
            yield f"the log has {self.gaps} gaps"
        if len(self.tasks) != expected:
            yield f"{expected} tasks were planned, the log has {len(self.tasks)}"
        for task in self.tasks.values():
            if task.status != "completed" or len(task.completed) != 1:
                yield f"{task.title}: {task.status}, completed {len(task.completed)} times"
            if task.fences != sorted(set(task.fences)):
                yield f"{task.title}: its fences do not rise: {task.fences}"
            for waited in task.waits_for:
                done = self.tasks[waited].completed
                if not done or any(claim < done[0] for claim in task.claimed):
                    yield f"{task.title} was claimed before {self.tasks[waited].title} was done"

    def _read(self, event: Event, task_id: str) -> None:
        payload, sequence = event.payload, event.sequence or 0
        if event.event_type == "task.created":
            self.tasks[task_id] = TaskStory(payload["title"], "", list(payload["depends_on"]))
        task = self.tasks[task_id]
        task.status = payload["task_status"]
        match event.event_type:
            case "task.dependency_added":
                task.waits_for.append(payload["depends_on_task_id"])
            case "task.run_claimed":
                task.claimed.append(sequence)
                task.fences.append(payload["fence"])
                run_id, agent = event.run_id or "", payload["agent_name"]
                task.agents.append(agent)
                self.agents[payload["session_id"]] = agent
                held = Held(run_id, task_id, agent, payload["fence"], event.timestamp)
                self.held[run_id] = held
            case "task.run_completed":
                task.completed.append(sequence)
            case "task.run_lease_expired":
                task.expired.append(sequence)
        if event.event_type in ENDS:
            self.held.pop(event.run_id or "", None)
