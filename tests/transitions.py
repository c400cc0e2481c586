"""The transitions of the reference model, in plain Python: slow, small, and without a clock.

Time comes in as an argument. A refused operation answers the code of its refusal and changes
nothing; None is a success.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from tests.model import ENDED, HEAD_START, LEASED, OPEN, Lease, Run, Task, reaches


class Model:
    """One workspace."""

    def __init__(self) -> None:
        self.tasks: dict[str, Task] = {}
        self.leases: dict[tuple[str, int, int], Lease] = {}
        self.paused = False

    # ── what there is ──

    def runs(self) -> Iterator[Run]:
        for task in self.tasks.values():
            yield from task.runs

    def live(self) -> list[Lease]:
        return [lease for lease in self.leases.values() if lease.ended is None]

    def queue(self, now: float) -> list[Run]:
        """The runs that may be claimed, if there is a slot, in the order in which they are."""
        waiting = [
            run for run in self.runs()
            if run.status == "queued" and run.task.status == "ready" and run.available_at <= now
            and run.task.paused_by is None and run.task.left != 0 and not self.paused
        ]  # fmt: skip
        return sorted(waiting, key=lambda r: (r.available_at - HEAD_START[r.task.priority], r.id))

    # ── tasks and edges ──

    def create(self, now: float, tasks: Iterable[tuple[Task, list[str]]]) -> None:
        """Makes tasks, each with what it waits for, in one transaction."""
        made = list(tasks)
        self.tasks |= {task.id: task for task, _ in made}
        for task, waits_for in made:
            task.waits_for = {other: self.tasks[other] for other in waits_for}
            if task.parent is not None:
                task.parent.children.append(task)
        for task, _ in made:
            self._ask(task, now)
            task.told = task.status
            self._shy(task, task.waits_for.values())
        self.settle(now)

    def depend(self, now: float, task: Task, other: Task) -> str | None:
        if task is other:
            return "dependency_self"
        if other.id in task.waits_for:
            return "dependency_exists"
        if reaches(other, task):
            return "dependency_cycle"
        task.waits_for[other.id] = other
        self._shy(task, [other])
        self.settle(now)
        return None

    def remove(self, now: float, task: Task, other: str) -> str | None:
        if other not in task.waits_for:
            return "dependency_not_found"
        del task.waits_for[other]
        self.settle(now)
        return None

    def patch(self, now: float, task: Task, **fields: Any) -> None:
        if any(getattr(task, name) != value for name, value in fields.items()):
            asked = fields["approval_policy"] != task.approval_policy
            for name, value in fields.items():
                setattr(task, name, value)
            if asked:
                self._ask(task, now)
            task.version += 1
            self.settle(now)

    def delete(self, now: float, task: Task) -> str | None:
        if task.children:
            return "task_has_children"
        if task.open:
            return "open_run_exists"
        del self.tasks[task.id]
        if task.parent is not None:
            task.parent.children.remove(task)
        for other in self.tasks.values():
            other.waits_for.pop(task.id, None)
        for place in [p for p, lease in self.leases.items() if lease.run.task is task]:
            del self.leases[place]
        self.settle(now)
        return None

    def cancel(self, now: float, task: Task) -> str | None:
        if task.status in ("completed", "failed"):
            return "task_already_terminal"
        if not task.canceled:
            self._cancel_tree(task)
            self.settle(now)
        return None

    # ── runs by hand ──

    def start(self, now: float, task: Task, gated: bool) -> str | None:
        if task.status == "draft":
            return "task_draft"
        if task.canceled:
            return "task_canceled"
        if task.open:
            return "open_run_exists"
        if task.status == "pending":
            return "review_open"
        if gated and task.gate == "blocked":
            return "task_blocked"
        if task.attempts >= task.max_attempts:
            return "attempts_exhausted"
        if gated and task.gated:
            return "task_blocked"
        self.enqueue(task, now)
        self.settle(now)
        return None

    def cancel_run(self, now: float, run: Run) -> str | None:
        if run.status not in OPEN:
            return "task_run_already_terminal"
        self._end(run, "cancel")
        run.status = "canceled"
        self.settle(now)
        return None

    def retry(self, now: float, run: Run) -> str | None:
        if run.status in OPEN:
            return "task_run_still_active"
        if run.status != "failed":
            return "task_run_already_terminal"
        if any(other.previous is run for other in run.task.runs):
            return "run_already_retried"
        if run.task.newest is not run:
            return "run_superseded"
        self.enqueue(run.task, now, run)
        run.close()
        self.settle(now)
        return None

    def recover(self, now: float, run: Run, reason: str) -> str | None:
        if run.status != "needs_attention":
            return "task_run_not_recoverable"
        run.status, run.failure_kind, run.retryable = "failed", "operator_forced", False
        run.error = reason
        self.enqueue(run.task, now, run)
        self.settle(now)
        return None

    def force_release(self, now: float, run: Run) -> str | None:
        if run.status not in LEASED:
            return "task_run_not_releasable"
        self._end(run, "revoke")
        run.wait(now)
        self.settle(now)
        return None

    def force_fail(self, now: float, run: Run, reason: str) -> str | None:
        if run.status not in OPEN:
            return "task_run_already_terminal"
        self._end(run, "force")
        run.status, run.failure_kind, run.retryable = "failed", "operator_forced", False
        run.error = reason
        run.ask(now)
        self.settle(now)
        return None

    # ── leases ──

    def claim(self, now: float, seconds: int, runs: list[Run]) -> list[Lease]:
        return [self._lease(now, run, seconds) for run in runs]

    def heartbeat(self, now: float, lease: Lease, checkpoint: Any, tokens: int) -> None:
        task, run = lease.run.task, lease.run
        run.use(tokens)
        run.status = "running"
        until = max(lease.until, now + lease.seconds)
        lease.until = min(until, lease.deadline or until)
        if checkpoint is not None and checkpoint != task.checkpoint:
            task.checkpoint, run.lapses = checkpoint, 0

    def complete(self, now: float, lease: Lease, result: Any, tokens: int) -> None:
        run = lease.run
        run.use(tokens)
        run.status, run.result, lease.ended = "completed", result, "complete"
        if not run.ask(now):
            run.task.checkpoint = None
        self.settle(now)

    def fail(self, now: float, lease: Lease, error: str, retryable: bool, tokens: int) -> None:
        lease.run.use(tokens)
        self._fail(now, lease, error, "error", retryable)
        self.settle(now)

    def release(self, now: float, lease: Lease, delay: int, tokens: int) -> None:
        lease.run.use(tokens)
        lease.run.wait(now + delay)
        lease.ended = "release"
        self.settle(now)

    def sweep(self, now: float) -> None:
        for lease in [lease for lease in self.live() if lease.until <= now]:
            if lease.deadline is not None and lease.deadline <= now:
                text = "the deadline of the run has passed"
                self._fail(now, lease, text, "deadline_exceeded", True, "deadline")
            else:
                self._lapse(now, lease)
        self.settle(now)

    # ── inside ──

    def settle(self, now: float) -> None:
        """Passes on what changed, and queues what became runnable."""
        changed = True
        while changed:
            changed = False
            for task in list(self.tasks.values()):
                if task.told != task.status:
                    changed, task.told = True, task.status
                    for other in list(self.tasks.values()):
                        if task.id in other.waits_for:
                            self._shy(other, [task])
        for task in self.tasks.values():
            free = task.status == "ready" and task.paused_by is None
            if free and task.auto_enqueue_on_ready and not task.runs:
                self.enqueue(task, now)

    def _ask(self, task: Task, now: float) -> None:
        task.approval = "pending" if task.approval_policy == "manual" else "not_required"
        task.approval_asked_at = now

    def _shy(self, task: Task, dependencies: Iterable[Task]) -> None:
        """Under the policy `cancel` a task ends with what it waits for."""
        shy = task.on_dependency_failure == "cancel" and task.status not in ENDED
        if shy and any(other.status in ("failed", "canceled") for other in dependencies):
            self._cancel_tree(task)

    def _cancel_tree(self, task: Task) -> None:
        if task.status not in ENDED:
            if task.open:
                self._end(task.open, "cancel")
                task.open.status = "canceled"
            for run in task.runs:
                run.close()
            task.canceled, task.checkpoint = True, None
            task.version += 1
        for child in task.children:
            self._cancel_tree(child)

    def enqueue(self, task: Task, at: float, previous: Run | None = None) -> Run:
        run = Run(task, len(task.runs) + 1, at, previous, previous.retries if previous else 0)
        run.wait(at)
        run.rejected = previous.rejected if previous else None
        task.runs.append(run)
        return run

    def _lease(self, now: float, run: Run, seconds: int) -> Lease:
        task, run.by = run.task, "worker"
        task.fence += 1
        run.status, run.fence, run.claims = "claimed", task.fence, run.claims + 1
        deadline = now + task.deadline_seconds if task.deadline_seconds else None
        until = min(now + seconds, deadline) if deadline else now + seconds
        lease = Lease(run, task.fence, seconds, until, deadline)
        self.leases[task.id, run.attempt, task.fence] = lease
        return lease

    def _end(self, run: Run, how: str) -> None:
        for lease in self.live():
            if lease.run is run:
                lease.ended = how

    def _fail(
        self, now: float, lease: Lease, error: str, kind: str, retryable: bool, how: str = "fail"
    ) -> None:
        run, task = lease.run, lease.run.task
        run.status, run.error, run.failure_kind = "failed", error, kind
        run.retryable, lease.ended = retryable, how
        if retryable and task.attempts < task.max_attempts and not task.canceled:
            self.enqueue(task, now + task.retry_seconds, run).retries += 1
        else:
            run.ask(now)

    def _lapse(self, now: float, lease: Lease) -> None:
        run, task = lease.run, lease.run.task
        lease.ended, run.expiries, run.lapses = "expiry", run.expiries + 1, run.lapses + 1
        if run.lapses >= task.max_lease_expiries:
            run.status = "needs_attention"
            run.error = f"the lease expired {run.lapses} times without a new checkpoint"
        else:
            run.wait(now + task.retry_seconds)
