"""What is played beside the rules of tests/test_model.py: repeats, people who work, lanes, time."""

from datetime import UTC, datetime
from typing import Any

from tests import gates
from tests.drive import Claimed
from tests.gates import claimable
from tests.model import ENDED, Task, judge
from tests.test_model import Life, told

# What is made under a key, and answered again if it is asked again.
KEYED = ("/approve", "/start", "/runs", "/publish", "/retry", "/recover", "/claim")
DAY = 86400


class Lived(Life):
    """Further rules; each makes its call in the server and in the model."""

    def post(self, code: str | None, path: str, **body: Any) -> Any:
        """As everybody posts; what goes under a key is asked for twice."""
        key = f"key-{self.drive.name()}" if path.endswith(KEYED) else None

        def ask() -> Any:
            return self.drive.operator.post(path, key, **body)

        answer = self.drive.both(code, ask)
        if key and code is None:
            again = ask()
            assert self.drive.operator.replayed, "P5: a repeat was done again"
            assert _made(again) == _made(answer)
        return answer

    def by_hand(self, pick: int) -> None:
        """A person claims a run and does it."""
        waiting = [run for run in self.model.runs() if run.status == "queued"]
        run = waiting[pick % len(waiting)] if waiting and pick % 4 else self.run(pick)
        now = self.drive.now()
        free = claimable(self.model, now, 1, run)
        code = "run_not_claimable" if run.status == "queued" else "run_not_queued"
        self.post(None if free else code, f"/api/task-runs/{run.id}/claim")
        if free:
            [lease] = self.model.claim(now, DAY, free)
            run.by = None
            self.drive.compare()
            now = self.drive.now()
            self.post(None, f"/api/task-runs/{run.id}/complete", result=1)
            self.model.complete(now, lease, 1, 0)

    def crowd(self, some: list[dict[str, Any]], seconds: int) -> None:
        """Many tasks at once, each in a lane of its own."""
        tasks = [Task(self.drive.name(), **fields) for fields in some]
        items = [
            told(task, fields, ref=str(n), network_channel=f"c{n}")
            for n, (task, fields) in enumerate(zip(tasks, some, strict=True))
        ]
        self.drive.create([(task, []) for task in tasks], "/api/tasks/bulk", {"tasks": items})
        self.drive.compare()
        self.claim(0, 1, seconds)

    def delay(self, pick: int, seconds: int) -> None:
        """A task is not to be worked on before a time."""
        task, now = self.task(pick), self.drive.now()
        task.available_at = round(now + seconds, 3)
        at = datetime.fromtimestamp(task.available_at, UTC).isoformat()
        self.drive.operator.patch(f"/api/tasks/{task.id}", available_at=at)
        task.version += 1
        if task.newest and task.newest.status == "queued":
            task.newest.available_at = task.available_at
        self.model.settle(now)

    def fail_for_now(self, pick: int, after: int) -> None:
        """A holder fails, and says when to try again."""
        claimed, now = self.held(pick), self.drive.now()
        run = claimed.lease.run
        body = {"error": "a", "retry_after_seconds": after}
        if self.drive.call(claimed, "fail", body, (run.error, run.failure_kind) == ("a", "error")):
            self.model.fail(now, claimed.lease, "a", True, 0)
            newest = run.task.newest
            if newest is not None and newest is not run:
                newest.available_at = max(now + after, run.task.available_at)

    def linger(self, pick: int) -> None:
        """A holder asks for a moment more, then for the whole time, and is late all the same."""
        claimed, now = self.held(pick), self.drive.now()
        lease = claimed.lease
        if self.drive.call(claimed, "heartbeat", {"lease_seconds": 5}, False):
            lease.seconds, seconds = 5, lease.seconds
            self.model.heartbeat(now, lease, None, 0)
            lease.seconds = seconds
            told = datetime.fromisoformat(self.drive.told.lease.lease_until).timestamp()
            assert told > lease.until - 1, "a heartbeat made a lease shorter"
        self.heartbeat(self._late(claimed), None, 60)
        self.time_passes(31, True)
        self.heartbeat(self._late(claimed), None, 60)
        self.time_passes(61, True)

    def call_without_token(self, pick: int) -> None:
        """Of a run that was claimed again, nobody is believed who shows no token."""
        claimed = self.held(pick)
        held, run = claimed.held, claimed.lease.run
        if run.claims < 2 or self.model.tasks.get(run.task.id) is not run.task:
            return
        newest = [
            one for one in self.drive.claimed if (one.lease.run, one.held.fence) == (run, run.fence)
        ]
        live = any(lease.run is run for lease in self.model.live())
        code = "foreign_run" if live else "no_active_lease"
        if newest and newest[0].held.agent is held.agent:
            code = "claim_token_required"
        self.drive.both(code, lambda: held.by(held.agent, "complete", claim_token=None, result=2))

    def plan_edge(self, pick: int, other: int) -> None:
        """A holder, old or new, lets its task wait for another."""
        held, lease = self.held(pick)
        task, on = lease.run.task, self.task(other)
        if self.model.tasks.get(task.id) is not task:
            return
        code = judge(lease, "guard", False) or self.model.depend(self.drive.now(), task, on)
        under = held.agent.also(X_Run_ID=held.run_id, X_Claim_Token=held.token)
        path = f"/api/tasks/{task.id}/dependencies"
        self.drive.both(code, lambda: under.post(path, depends_on_task_id=on.id))

    def pause_family(self, pick: int) -> None:
        """A task is paused with its parent, and goes on alone: not before its parent does."""
        tasks = self.model.tasks.values()
        below = [
            task for task in tasks if task.parent and not {task.status, task.parent.status} & ENDED
        ]
        if not below:
            return
        child = below[pick % len(below)]
        for task, how in ((child.parent, "pause"), (child, "pause"), (child, "resume")):
            assert task is not None
            code = gates.pause(self.model, self.drive.now(), task, how)
            self.post(code, f"/api/tasks/{task.id}/{how}", reason="seen")
        self.drive.compare()
        self.claim(0, 3, 60)

    def judge_late(self, pick: int, outcome: str) -> None:
        """A reviewer comes back when somebody else has the review."""
        if self.holds:
            place = pick % len(self.holds)
            self.time_passes(101, True)
            self.same_reviews()
            self.claim_review("bob", 60)
            self.judge(len(self.holds) - 1 - place, outcome)

    def _late(self, claimed: Claimed) -> int:
        """What picks this lease, whatever was claimed since."""
        return 2 * (len(self.drive.claimed) - 1 - self.drive.claimed.index(claimed))


def _made(answer: Any) -> tuple[Any, ...]:
    """What of an answer a repeat has too."""
    lease = getattr(answer, "lease", None)
    run = getattr(answer, "run", None)
    return run and run.id, lease and (lease.fence, lease.claim_token)
