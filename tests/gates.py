"""What opens and closes gates in the reference model: drafts, approvals, pauses, slots."""

from collections import Counter
from collections.abc import Iterator

from tests.model import ENDED, Run, Task
from tests.transitions import Model


def publish(model: Model, now: float, task: Task, subtree: bool) -> str | None:
    if task.canceled:
        return "task_canceled"
    if not task.draft:
        return "task_not_draft"
    if task.gated and not subtree:
        return "task_blocked"
    for draft in _drafts(task) if subtree else [task]:
        draft.draft = False
        draft.version += 1
        model.enqueue(draft, now)
    model.settle(now)
    return None


def _drafts(task: Task) -> Iterator[Task]:
    if task.status == "draft":
        yield task
    for child in task.children:
        yield from _drafts(child)


def decide(model: Model, now: float, task: Task, how: str) -> str | None:
    if task.approval != "pending":
        return "approval_not_pending"
    if task.canceled:
        return "task_canceled"
    task.approval = {"approve": "approved", "reject": "rejected"}[how]
    task.version += 1
    startable = not task.open and not task.draft and task.attempts < task.max_attempts
    startable = startable and task.status != "pending"
    if how == "approve" and startable:
        model.enqueue(task, now)
    model.settle(now)
    return None


def expire_approvals(model: Model, now: float) -> None:
    for task in model.tasks.values():
        rejects = task.on_approval_timeout == "reject" and task.approval_timeout_seconds
        active = task.approval == "pending" and not task.draft and not task.canceled
        if active and rejects and task.approval_asked_at + rejects <= now:
            decide(model, now, task, "reject")


def pause(model: Model, now: float, task: Task, how: str) -> str | None:
    if how == "pause" and task.status in ENDED:
        return "task_already_terminal"
    if how == "pause" or task.paused:
        task.paused = how == "pause"
        task.version += 1
        model.settle(now)
    return None


def switch(model: Model, how: str) -> None:
    """Stops all claims of the workspace, or lets them go on."""
    model.paused = how == "pause"


def claimable(model: Model, now: float, count: int, only: Run | None = None) -> list[Run]:
    """The first runs of the queue that there are slots for, or this one if there is one for it."""
    taken: list[Run] = []
    active = Counter(each.run.task.slots[0] for each in model.live() if each.run.task.slots)
    for run in model.queue(now):
        if only not in (None, run):
            continue
        key, limit = run.task.slots or ("", 0)
        if len(taken) < count and (not key or active[key] < limit):
            taken.append(run)
            active[key] += 1
    return taken
