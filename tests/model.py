"""The nouns of a reference model of the life cycle, and the rules that derive what follows."""

from dataclasses import dataclass, field
from typing import Any

OPEN = frozenset({"queued", "claimed", "running", "needs_attention"})
LEASED = frozenset({"claimed", "running"})
ENDED = frozenset({"completed", "failed", "canceled"})
HEAD_START = {"low": 0, "medium": 600, "high": 3600, "urgent": 86400}


@dataclass(eq=False)
class Task:
    """What is to be done, and the runs that were made of it."""

    id: str
    parent: "Task | None" = None
    on_dependency_failure: str = "block"
    auto_enqueue_on_ready: bool = True
    max_attempts: int = 3
    priority: str = "medium"
    retry_seconds: int = 0
    max_lease_expiries: int = 3
    deadline_seconds: int | None = None
    slots: tuple[str, int] | None = None
    max_total_tokens: int | None = None
    approval_policy: str = "none"
    approval_timeout_seconds: int | None = None
    on_approval_timeout: str = "wait"
    draft: bool = False
    approval: str = "not_required"
    approval_asked_at: float = 0
    paused: bool = False
    canceled: bool = False
    fence: int = 0
    version: int = 1
    checkpoint: Any = None
    waits_for: "dict[str, Task]" = field(default_factory=dict)
    children: "list[Task]" = field(default_factory=list)
    runs: "list[Run]" = field(default_factory=list)
    # The status that its dependents have been told.
    told: str = "ready"

    @property
    def newest(self) -> "Run | None":
        return self.runs[-1] if self.runs else None

    @property
    def open(self) -> "Run | None":
        return self.newest if self.newest and self.newest.status in OPEN else None

    def satisfied_by(self, other: "Task") -> bool:
        if other.status == "completed":
            return True
        return self.on_dependency_failure == "run" and other.status in ("failed", "canceled")

    @property
    def waiting(self) -> int:
        return sum(not self.satisfied_by(other) for other in self.waits_for.values())

    @property
    def gated(self) -> bool:
        return self.waiting > 0 or self.approval in ("pending", "rejected")

    @property
    def paused_by(self) -> str | None:
        if self.paused or self.parent is None:
            return self.id if self.paused else None
        return self.parent.paused_by

    @property
    def used(self) -> int:
        return sum(run.used for run in self.runs)

    @property
    def left(self) -> int | None:
        return None if self.max_total_tokens is None else max(0, self.max_total_tokens - self.used)

    @property
    def status(self) -> str:
        run = self.newest
        if self.canceled:
            return "canceled"
        if self.draft:
            return "draft"
        if run and run.status in LEASED:
            return "in_progress"
        if run and run.status == "needs_attention":
            return "blocked"
        if run and run.status in ("completed", "failed"):
            return run.status
        return "blocked" if self.gated else "ready"


@dataclass(eq=False)
class Run:
    """One attempt; its id is known once the server has told it."""

    task: Task
    attempt: int
    available_at: float
    previous: "Run | None" = None
    retries: int = 0
    status: str = "queued"
    fence: int | None = None
    claims: int = 0
    expiries: int = 0
    lapses: int = 0
    failure_kind: str | None = None
    retryable: bool | None = None
    error: str | None = None
    result: Any = None
    usage: dict[int, int] = field(default_factory=dict)
    id: str = ""

    @property
    def used(self) -> int:
        return sum(self.usage.values())


@dataclass(eq=False)
class Lease:
    """The right to a run, and how it ended."""

    run: Run
    fence: int
    seconds: int
    until: float
    deadline: float | None
    ended: str | None = None


def reaches(start: Task, end: Task) -> bool:
    """Whether a task waits for another, through however many."""
    seen, front = {start.id}, [start]
    while front:
        task = front.pop()
        if task is end:
            return True
        new = [other for name, other in task.waits_for.items() if name not in seen]
        seen |= {other.id for other in new}
        front += new
    return False
