"""The server does what the reference model does, whatever is called in whatever order.

A longer search: pytest tests/test_model.py --hypothesis-profile=long
"""

from typing import Any, ClassVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests import gates, verdicts
from tests.drive import Drive
from tests.lease_rules import WHO, Holders
from tests.model import Run, Task
from tests.review_rules import Reviewers
from tests.world import World

QUICK = settings(max_examples=8, stateful_step_count=40, deadline=None, derandomize=True)
PICK = st.integers(0, 99)
CHOICES: dict[str, list[Any]] = {
    "on_dependency_failure": ["block", "cancel", "run"],
    "auto_enqueue_on_ready": [True, True, True, False],
    "max_attempts": [1, 2, 3, 4],
    "priority": ["low", "medium", "high", "urgent"],
    "retry_seconds": [0, 30],
    "max_lease_expiries": [1, 2, 3],
    "deadline_seconds": [None, None, 90],
    "slots": [None, None, ("a", 1), ("a", 2), ("b", 1)],
    "max_total_tokens": [None, None, None, 100, 200],
    "approval_policy": ["none", "none", "none", "manual"],
    "approval_timeout_seconds": [None, 60],
    "on_approval_timeout": ["wait", "reject"],
    "review_policy": ["none", "none", "on_success", "on_failure", "always"],
    "review_max_rounds": [1, 2, 3],
    "review_timeout_seconds": [60, 600],
}
FIELDS = st.fixed_dictionaries({name: st.sampled_from(some) for name, some in CHOICES.items()})
# Nothing keeps a task with these from being claimed.
OPEN = {"auto_enqueue_on_ready": True, "approval_policy": "none"}
DRAFT = st.sampled_from([False, False, False, True])
# What the model has by another name than the wire.
OWN = {"retry_seconds", "slots", "max_total_tokens"}
some_tasks = precondition(lambda self: self.drive.model.tasks)
some_runs = precondition(lambda self: any(self.drive.model.runs()))


def told(task: Task, fields: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A task as a request has it."""
    retry = {"strategy": "fixed", "base_seconds": fields["retry_seconds"]}
    key, limit = fields["slots"] or (None, None)
    most = fields["max_total_tokens"]
    work = {
        "concurrency_key": key, "concurrency_limit": limit,
        "budget": None if most is None else {"max_total_tokens": most},
    }  # fmt: skip
    rest = {name: value for name, value in fields.items() if name not in OWN}
    return {"id": task.id, "title": task.id, "retry": retry, **work, **rest, **more}


class Life(Reviewers, Holders):
    """What agents, operators, time and crashes can do. A crash is a lease never used again."""

    world: ClassVar[World]

    def __init__(self) -> None:
        super().__init__()
        self.drive = Drive(self.world)
        self.model = self.drive.model

    def task(self, pick: int) -> Task:
        tasks = list(self.model.tasks.values())
        return tasks[pick % len(tasks)]

    def run(self, pick: int) -> Run:
        runs = list(self.model.runs())
        return runs[pick % len(runs)]

    def post(self, code: str | None, path: str, **body: Any) -> Any:
        return self.drive.both(code, lambda: self.drive.operator.post(path, **body))

    @initialize(some=st.lists(FIELDS, min_size=2, max_size=4), count=st.integers(1, 3), who=WHO)
    def begin(self, some: list[dict[str, Any]], count: int, who: str) -> None:
        """There is work: some is done, some is in hand."""
        for fields in [fields | OPEN for fields in some]:
            task = Task(self.drive.name(), **fields)
            self.drive.create([(task, [])], "/api/tasks", told(task, fields))
        for fields, on in zip(some, list(self.model.tasks), strict=True):
            task = Task(self.drive.name(), **fields)
            self.drive.create([(task, [on])], "/api/tasks", told(task, fields, depends_on=[on]))
        self.drive.compare()
        self.work(0, False, who)
        self.drive.compare()
        self.drive.claim(0, {"max_runs": count, "lease_seconds": 60})

    @rule(fields=FIELDS, picks=st.lists(PICK, max_size=3), parent=st.none() | PICK, draft=DRAFT)
    def create(
        self, fields: dict[str, Any], picks: list[int], parent: int | None, draft: bool
    ) -> None:
        fields = {**fields, "draft": draft}
        known = bool(self.model.tasks)
        above = self.task(parent) if parent is not None and known else None
        task = Task(self.drive.name(), above, **fields)
        waits_for = sorted({self.task(pick).id for pick in picks} if known else set())
        body = told(task, fields, depends_on=waits_for, parent_task_id=above and above.id)
        self.drive.create([(task, waits_for)], "/api/tasks", body)

    @rule(fields=FIELDS, shape=st.lists(st.lists(PICK, max_size=2), min_size=2, max_size=4))
    def bulk(self, fields: dict[str, Any], shape: list[list[int]]) -> None:
        tasks = [Task(self.drive.name(), **fields) for _ in shape]
        made, items = [], []
        for n, (task, picks) in enumerate(zip(tasks, shape, strict=True)):
            before = sorted({pick % n for pick in picks}) if n else []
            made.append((task, [tasks[m].id for m in before]))
            refs = [str(m) for m in before]
            items.append(told(task, fields, ref=str(n), depends_on_refs=refs))
        self.drive.create(made, "/api/tasks/bulk", {"tasks": items})

    @precondition(lambda self: self.drive.made)
    @rule(pick=PICK)
    def repeat_creation(self, pick: int) -> None:
        self.drive.repeat(self.drive.made[-1 - pick % len(self.drive.made)])

    @some_tasks
    @rule(one=PICK, other=PICK)
    def depend(self, one: int, other: int) -> None:
        task, on = self.task(one), self.task(other)
        code = self.model.depend(self.drive.now(), task, on)
        self.post(code, f"/api/tasks/{task.id}/dependencies", depends_on_task_id=on.id)

    @some_tasks
    @rule(one=PICK, other=PICK)
    def remove_edge(self, one: int, other: int) -> None:
        task = self.task(one)
        edges = [*task.waits_for, self.task(other).id]
        code = self.model.remove(self.drive.now(), task, on := edges[other % len(edges)])
        path = f"/api/tasks/{task.id}/dependencies/{on}"
        self.drive.both(code, lambda: self.drive.operator.delete(path))

    @some_tasks
    @rule(pick=PICK, fields=FIELDS)
    def patch(self, pick: int, fields: dict[str, Any]) -> None:
        task = self.task(pick)
        body = told(task, fields)
        del body["id"]
        self.model.patch(self.drive.now(), task, **fields)
        self.drive.operator.patch(f"/api/tasks/{task.id}", **body)

    @some_tasks
    @rule(pick=PICK)
    def delete(self, pick: int) -> None:
        task = self.task(pick)
        code = self.model.delete(self.drive.now(), task)
        self.drive.both(code, lambda: self.drive.operator.delete(f"/api/tasks/{task.id}"))

    @some_tasks
    @rule(pick=PICK)
    def cancel(self, pick: int) -> None:
        task = self.task(pick)
        self.post(self.model.cancel(self.drive.now(), task), f"/api/tasks/{task.id}/cancel")

    @some_tasks
    @rule(pick=PICK, how=st.sampled_from(["start", "runs"]))
    def start(self, pick: int, how: str) -> None:
        task = self.task(pick)
        code = self.model.start(self.drive.now(), task, gated=how == "start")
        self.post(code, f"/api/tasks/{task.id}/{how}")

    @some_tasks
    @rule(pick=PICK, subtree=st.booleans())
    def publish(self, pick: int, subtree: bool) -> None:
        drafts = [task for task in self.model.tasks.values() if task.status == "draft"]
        task = drafts[pick % len(drafts)] if drafts else self.task(pick)
        code = gates.publish(self.model, self.drive.now(), task, subtree)
        self.post(code, f"/api/tasks/{task.id}/publish", subtree=subtree)

    @some_tasks
    @rule(pick=PICK, how=st.sampled_from(["approve", "approve", "reject"]))
    def decide(self, pick: int, how: str) -> None:
        asked = [task for task in self.model.tasks.values() if task.approval == "pending"]
        task = asked[pick % len(asked)] if asked else self.task(pick)
        code = gates.decide(self.model, self.drive.now(), task, how)
        self.post(code, f"/api/tasks/{task.id}/{how}")

    @some_tasks
    @rule(pick=PICK, how=st.sampled_from(["pause", "resume", "resume"]))
    def pause(self, pick: int, how: str) -> None:
        paused = [task for task in self.model.tasks.values() if task.paused]
        waiting = [run.task for run in self.model.queue(self.drive.now())]
        some = paused if how == "resume" else waiting
        task = some[pick % len(some)] if some and pick % 3 else self.task(pick)
        code = gates.pause(self.model, self.drive.now(), task, how)
        self.post(code, f"/api/tasks/{task.id}/{how}", reason="seen")
        self.drive.compare()
        self.claim(0, 3, 60)

    @rule(how=st.sampled_from(["pause", "resume", "resume"]))
    def switch(self, how: str) -> None:
        gates.switch(self.model, how)
        self.post(None, f"/api/scheduler/{how}")
        self.drive.claim(0, {"max_runs": 1, "lease_seconds": 60})

    @some_runs
    @rule(pick=PICK, fails=st.booleans())
    def force(self, pick: int, fails: bool) -> None:
        run, now = self.run(pick), self.drive.now()
        if fails:
            code = self.model.force_fail(now, run, "enough")
            self.post(code, f"/api/runs/{run.id}/fail", reason="enough")
        else:
            self.post(self.model.force_release(now, run), f"/api/runs/{run.id}/release")

    @some_runs
    @rule(pick=PICK, how=st.sampled_from(["cancel", "retry", "recover"]))
    def drive_run(self, pick: int, how: str) -> None:
        run, now = self.run(pick), self.drive.now()
        if how == "recover":
            self.post(
                self.model.recover(now, run, "seen"), f"/api/runs/{run.id}/recover", reason="seen"
            )
        elif how == "retry":
            self.post(self.model.retry(now, run), f"/api/runs/{run.id}/retry")
        else:
            self.post(self.model.cancel_run(now, run), f"/api/task-runs/{run.id}/cancel")

    @rule(seconds=st.sampled_from([31, 61, 601]), sweep=st.booleans())
    def time_passes(self, seconds: int, sweep: bool) -> None:
        self.drive.world.advance(seconds)
        if sweep:
            self.model.sweep(self.drive.now())
            self.drive.world.sweep()
            gates.expire_approvals(self.model, self.drive.now())
            self.drive.world.expire_approvals()
            verdicts.expire(self.model, self.drive.now())
            self.drive.world.expire_reviews()

    @rule()
    def keep_digests(self) -> None:
        self.drive.world.keep_digests()

    @invariant()
    def counted(self) -> None:
        self.drive.recount()

    @invariant()
    def same(self) -> None:
        self.drive.compare()

    def teardown(self) -> None:
        self.drive.replay()
        faults = self.drive.workspace.faults()
        assert not faults, f"books: {', '.join(faults)}"


def test_the_server_does_what_the_model_does(world: World) -> None:
    """P1 to P8 and P10, in random histories of calls, repeats, crashes and time."""
    Life.world = world
    quick = settings.get_current_profile_name() == "default"
    run_state_machine_as_test(Life, settings=QUICK if quick else None)
