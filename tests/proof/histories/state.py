"""What one task is, as far as its callers can tell: the state that a history is checked against.

All of it is values that never change, so that the search can compare and remember them.
"""

from typing import NamedTuple

from tests.model import ENDED, LEASED, OPEN

NEVER = 1 << 60


class Plan(NamedTuple):
    """What a task was made with; it stays."""

    auto: bool = True
    max_attempts: int = 3
    max_lease_expiries: int = 3
    review_policy: str = "none"
    review_max_rounds: int = 3
    # Under `run` a dependency that failed or was canceled holds nothing up.
    on_dependency_failure: str = "block"


class Lease(NamedTuple):
    """The right to a run or to its review. It lasts until `until` at least; then how it ended."""

    fence: int
    attempt: int
    session: str
    key: str
    until: float
    ended: str | None = None


class Review(NamedTuple):
    """A judgement that the task waits for."""

    status: str = "requested"
    fence: int = 0
    outcome: str | None = None
    delivery: str | None = None
    by: str | None = None


class Run(NamedTuple):
    """One attempt; `why` is its result or its error, `turn` its round of review."""

    attempt: int
    status: str = "queued"
    fence: int = 0
    claims: int = 0
    lapses: int = 0
    why: object = None
    retried: bool = False
    turn: int = 1
    review: Review | None = None
    # Not to be claimed before the server's clock shows this.
    after: float = 0.0


class State(NamedTuple):
    """A task. `paused` names itself or ancestors; `waits` is the unsatisfied part of `edges`."""

    made: str | None = None
    approval: str = "not_required"
    canceled: bool = False
    paused: frozenset[str] = frozenset()
    edges: frozenset[str] = frozenset()
    waits: frozenset[str] = frozenset()
    version: int = 1
    fence: int = 0
    attempts: int = 0
    checkpoint: object = None
    runs: tuple[Run, ...] = ()
    leases: tuple[Lease, ...] = ()
    holds: tuple[Lease, ...] = ()
    # The Idempotency-Keys of what was done.
    keys: frozenset[str] = frozenset()

    @property
    def newest(self) -> Run | None:
        return self.runs[-1] if self.runs else None

    @property
    def open(self) -> Run | None:
        return self.newest if self.newest and self.newest.status in OPEN else None

    @property
    def gated(self) -> bool:
        return bool(self.waits) or self.approval in ("pending", "rejected")

    @property
    def gate(self) -> str | None:
        """What the review of the newest run means: open, or blocked until a person decides."""
        review = self.newest.review if self.newest else None
        if review is None or review.status in ("recorded", "canceled"):
            stopped = review is not None and review.outcome == "blocked"
            return "blocked" if stopped else None
        return "blocked" if review.status == "circuit_opened" else "open"

    @property
    def status(self) -> str:
        """As section 4.1 of the contract has it, first rule that matches."""
        run = self.newest
        if self.canceled:
            return "canceled"
        if run and run.status in LEASED:
            return "in_progress"
        if run and run.status == "needs_attention":
            return "blocked"
        if run and run.status in ("completed", "failed"):
            return {"open": "pending", "blocked": "blocked"}.get(self.gate or "", run.status)
        return "blocked" if self.gated else "ready"

    # ── steps that others are made of ──

    def run(self, attempt: int, **changes: object) -> "State":
        """With one run changed."""
        runs = list(self.runs)
        runs[attempt - 1] = runs[attempt - 1]._replace(**changes)  # type: ignore[arg-type] # by name
        return self._replace(runs=tuple(runs))

    def enqueue(self, turn: int = 1, *, counts: bool = True) -> "State":
        """With one more run."""
        run = Run(len(self.runs) + 1, turn=turn)
        return self._replace(runs=(*self.runs, run), attempts=self.attempts + counts)

    def settled(self, plan: Plan) -> "State":
        """With the run that a task gets by itself once it is ready for the first time."""
        free = plan.auto and not self.runs and self.status == "ready" and not self.paused
        return self.enqueue() if free else self

    def end(self, how: str) -> "State":
        """With its live lease ended."""
        leases = tuple(x if x.ended else x._replace(ended=how) for x in self.leases)
        return self._replace(leases=leases)

    def let_go(self, how: str) -> "State":
        """With its live review lease ended."""
        holds = tuple(x if x.ended else x._replace(ended=how) for x in self.holds)
        return self._replace(holds=holds)

    def lease(self, fence: int) -> Lease | None:
        return next((lease for lease in self.leases if lease.fence == fence), None)

    def hold(self, fence: int) -> Lease | None:
        return next((hold for hold in self.holds if hold.fence == fence), None)

    def shut(self) -> "State":
        """Canceled, with all that is open of it."""
        if self.status in ENDED:
            return self
        state = self.end("cancel").let_go("cancel")
        for run in state.runs:
            if run.status in OPEN:
                state = state.run(run.attempt, status="canceled")
            if run.review and run.review.status in ("requested", "routed", "in_review"):
                state = state.run(run.attempt, review=run.review._replace(status="canceled"))
        return state._replace(canceled=True, checkpoint=None, version=state.version + 1)
