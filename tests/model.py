"""The nouns of a reference model of the life cycle, and the rules that derive what follows."""

from dataclasses import dataclass, field
from typing import Any

OPEN = frozenset({"queued", "claimed", "running", "needs_attention"})
LEASED = frozenset({"claimed", "running"})
ENDED = frozenset({"completed", "failed", "canceled"})
STOPPED = ("recorded", "blocked")
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
    available_at: float = 0
    retry_seconds: int = 0
    max_lease_expiries: int = 3
    deadline_seconds: int | None = None
    slots: tuple[str, int] | None = None
    max_total_tokens: int | None = None
    approval_policy: str = "none"
    approval_timeout_seconds: int | None = None
    on_approval_timeout: str = "wait"
    review_policy: str = "none"
    review_max_rounds: int = 3
    review_timeout_seconds: int = 86400
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
    def attempts(self) -> int:
        """The runs but for those that go on from a review."""
        return sum(run.rejected is None or run.previous is not None for run in self.runs)

    @property
    def gate(self) -> str | None:
        """What the newest run's review means: open, or blocked until a person decides."""
        gating = [r for r in self.newest.reviews if r.gating] if self.newest else []
        if not gating:
            return None
        last = gating[-1]
        blocked = last.status == "circuit_opened" or (last.status, last.outcome) == STOPPED
        return "open" if last.is_open else "blocked" if blocked else None

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
            return {"open": "pending", "blocked": "blocked"}.get(self.gate or "", run.status)
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
    # As which agent the newest claim was made; None: by hand.
    by: str | None = None
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
    reviews: "list[Review]" = field(default_factory=list)
    # The review from which this run, or one that it tries again, goes on.
    rejected: "Review | None" = None

    @property
    def used(self) -> int:
        return sum(self.usage.values())

    def use(self, tokens: int) -> None:
        """What the holder tells of its claim: the greatest value counts."""
        assert self.fence is not None
        self.usage[self.fence] = max(tokens, self.usage.get(self.fence, 0))

    def wait(self, at: float) -> None:
        """In the queue until then, or until the time of its task."""
        self.status, self.available_at = "queued", max(at, self.task.available_at)

    @property
    def round(self) -> int:
        return self.rejected.round + 1 if self.rejected else 1

    def ask(self, now: float) -> bool:
        """Asks for a gating review if the policy of the task wants one."""
        wanted = {"completed": "on_success", "failed": "on_failure"}[self.status]
        policy = self.task.review_policy
        if policy in (wanted, "always"):
            self.reviews.append(Review(self, self.round, 1, True, now, policy))
        return policy in (wanted, "always")

    def close(self) -> None:
        """Cancels what is open of its reviews."""
        for review in self.reviews:
            if review.is_open:
                review.status = "canceled"
                review.free("cancel")


@dataclass(eq=False)
class Review:
    """A judgement on a run: asked for, held, or given."""

    run: Run
    round: int
    attempt: int
    gating: bool
    asked_at: float
    policy: str
    status: str = "requested"
    outcome: str | None = None
    delivery: str | None = None
    by: str | None = None
    fence: int | None = None
    expiries: int = 0
    holds: "list[Hold]" = field(default_factory=list)
    id: str = ""
    deadline: float = 0

    def __post_init__(self) -> None:
        self.deadline = self.asked_at + self.run.task.review_timeout_seconds

    @property
    def is_open(self) -> bool:
        return self.status in ("requested", "routed", "in_review")

    @property
    def held(self) -> "Hold | None":
        return self.holds[-1] if self.status in ("routed", "in_review") else None

    def free(self, how: str) -> None:
        """Ends the lease, if it has one."""
        if self.holds and self.holds[-1].ended is None:
            self.holds[-1].ended = how


@dataclass(eq=False)
class Hold:
    """The right to judge, and how it ended."""

    review: Review
    session: str
    fence: int
    seconds: int
    until: float
    ended: str | None = None


@dataclass(eq=False)
class Lease:
    """The right to a run, and how it ended."""

    run: Run
    fence: int
    seconds: int
    until: float
    deadline: float | None
    ended: str | None = None


def judge(lease: Lease, operation: str, same: bool) -> str | None:
    """What a call of its holder meets: a code, `replay`, or None if the lease is live."""
    older = lease.fence < (lease.run.fence or 0)
    return misused(lease.run.status, older, lease.ended, operation, same)


def misused(status: str, older: bool, ended: str | None, operation: str, same: bool) -> str | None:
    """As judge: the status of the run, whether it was claimed again since, how the lease ended.

    `same`: the call says what the run ended with.
    """
    if operation == ended == "release" and (older or status not in ENDED):
        return "replay"
    if older:
        return "stale_fence"
    if status == "canceled":
        return "run_canceled"
    if status in ("completed", "failed"):
        return "replay" if ended == operation and same else "task_run_already_terminal"
    lost = {"release": "released", "expiry": "expired", "revoke": "revoked"}.get(ended or "")
    return f"lease_{lost}" if lost else None


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
