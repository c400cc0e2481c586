"""Drives a server and the reference model side by side, and compares them."""

from collections.abc import Callable
from typing import Any, NamedTuple

from tests.client import RefusedError
from tests.factories import Held
from tests.gates import claimable
from tests.model import Lease, Task, judge
from tests.replay import replay
from tests.transitions import Model
from tests.world import World

NOW = "select extract(epoch from lease_now())::float8"
TASKS = """
select task_id, status, canceled, draft, coalesce(approval_state, 'not_required'),
       paused_by_task_id, fence, version, attempts_used, dependencies_waiting,
       concurrency_key, concurrency_limit, max_total_tokens,
       (select r.attempt from run r where r.workspace_id = t.workspace_id
           and r.run_id = t.current_run_id), (select b.checkpoint from task_body b
         where b.workspace_id = t.workspace_id and b.task_id = t.task_id)
  from task t where workspace_id = %s
"""
RUNS = """
select r.task_id, r.attempt, r.status, p.attempt, r.fence, r.claim_count, r.lease_expiries,
       r.lapses, r.failure_kind, r.retryable, b.error, b.result,
       (select coalesce(sum(l.input_tokens + l.output_tokens), 0)::int from lease l
         where l.workspace_id = r.workspace_id and l.run_id = r.run_id), r.run_id
  from run r left join run_body b using (workspace_id, run_id)
  left join run p on p.workspace_id = r.workspace_id and p.run_id = r.previous_run_id
 where r.workspace_id = %s
"""
EDGES = "select task_id, depends_on_task_id, satisfied from dependency where workspace_id = %s"
LEASES = """
select l.task_id, r.attempt, l.fence, l.ended_how
  from lease l join run r using (workspace_id, run_id) where l.workspace_id = %s
"""


class Claimed(NamedTuple):
    """A lease in both worlds, and the key of its claim."""

    held: Held
    lease: Lease


class Asked(NamedTuple):
    """A claim under a key, to be repeated, and what it got."""

    session: int
    wish: dict[str, Any]
    got: list[Claimed]


class Made(NamedTuple):
    """A creation under a key, to be repeated."""

    path: str
    key: str
    body: dict[str, Any]
    task_ids: list[str]


class Drive:
    """A workspace and its model; every call is made in both."""

    def __init__(self, world: World) -> None:
        self.world, self.workspace, self.model = world, world.workspace(), Model()
        self.operator = self.workspace.operator
        self.agents = [self.workspace.agent("worker", name) for name in ("one", "two")]
        self.claimed: list[Claimed] = []
        self.asked: dict[str, Asked] = {}
        self.made: list[Made] = []
        self.count = 0
        self.told: Any = None

    def now(self) -> float:
        """The time of the server's database."""
        [[now]] = self.world.db.execute(NOW)
        return float(now)

    def name(self) -> str:
        """A name that was not used yet."""
        self.count += 1
        return f"t{self.count}"

    def both(self, code: str | None, call: Callable[[], Any]) -> Any:
        """The server must refuse a call with this code, or do it if there is none."""
        told, met = None, None
        try:
            told = call()
        except RefusedError as error:
            met = error.code
        assert met == code, f"{met} came, {code} was due"
        return told

    def create(self, tasks: list[tuple[Task, list[str]]], path: str, body: dict[str, Any]) -> None:
        """Makes tasks under a key."""
        made = Made(path, f"k{self.count}", body, [task.id for task, _ in tasks])
        parent = tasks[0][0].parent
        code = "task_canceled" if parent is not None and parent.canceled else None
        now = self.now()
        self.both(code, lambda: self.operator.post(made.path, made.key, **made.body))
        if code is None:
            self.model.create(now, tasks)
            self.made.append(made)

    def repeat(self, made: Made) -> None:
        """Asks again for a creation; what was deleted since is no more."""
        gone = any(task_id not in self.model.tasks for task_id in made.task_ids)
        code = "task_not_found" if gone else None
        told = self.both(code, lambda: self.operator.post(made.path, made.key, **made.body))
        if told is not None:
            ids = [told.task.id] if made.path == "/api/tasks" else [t.id for t in told.tasks]
            assert ids == made.task_ids
            assert self.operator.replayed

    def claim(self, session: int, wish: dict[str, Any], key: str | None = None) -> None:
        """Claims runs: those that the model says, in its order."""
        now, agent, key = self.now(), self.agents[session], key or f"k{self.name()}"
        runs = claimable(self.model, now, wish["max_runs"])
        expected = [(run.id, run.task.left) for run in runs]
        held = agent.claims(key, **wish)
        assert not (held and agent.replayed)
        told = [(h.run_id, h.claim.budget_remaining.total_tokens) for h in held]
        assert told == expected
        leases = self.model.claim(now, wish["lease_seconds"], runs)
        got = list(map(Claimed, held, leases))
        self.claimed += got
        if got:
            self.asked[key] = Asked(session, wish, got)

    def claim_again(self, key: str) -> None:
        """Claims under the same key: the leases that still live, unless all is another's by now."""
        session, wish, got = self.asked[key]
        known = [claimed for claimed in got if self._known(claimed)]
        if all(lease.fence < (lease.run.fence or 0) for _, lease in known):
            self.claim(session, wish, key)
            return
        live = [held for held, lease in known if lease.ended is None]
        agent = self.agents[session]
        told = self.both(None if live else "claim_key_spent", lambda: agent.claims(key, **wish))
        if live:
            assert agent.replayed
            assert set(map(_proof, told)) == set(map(_proof, live))

    def plan(self, claimed: Claimed, body: dict[str, Any]) -> bool:
        """Makes a task in the name of a lease; whether it is to be made in the model too."""
        held, lease = claimed
        code = judge(lease, "guard", False) if self._known(claimed) else "run_not_found"
        under = held.agent.also(X_Run_ID=held.run_id, X_Claim_Token=held.token)
        self.both(code, lambda: under.post("/api/tasks", **body))
        return code is None

    def _known(self, claimed: Claimed) -> bool:
        task = claimed.lease.run.task
        return self.model.tasks.get(task.id) is task

    def call(self, claimed: Claimed, operation: str, body: dict[str, Any], same: bool) -> bool:
        """Makes a call under a lease, old or new; whether it is to be done in the model too."""
        held, lease = claimed
        code = judge(lease, operation, same) if self._known(claimed) else "run_not_found"
        expected = None if code == "replay" else code
        self.told = self.both(expected, lambda: held.call(operation, **body))
        assert expected or held.agent.replayed == (code == "replay")
        return code is None

    def told_of_budget(self, lease: Lease) -> None:
        """What the answer to a heartbeat says of the budget is as the model has it."""
        left = lease.run.task.left
        assert self.told.budget_remaining.total_tokens == left
        spent = "budget_exhausted" if left == 0 else None
        assert (self.told.cancel_requested, self.told.stop_reason) == (left == 0, spent)

    def replay(self) -> None:
        """What the log tells is what the tables have."""
        replay(self.world, self.workspace.id, self.workspace.log())

    def recount(self) -> None:
        """What dashboards and inboxes count is so, however far behind their digests are."""
        assert self.workspace.miscounts() == {}

    def compare(self) -> None:
        """Every row that the model knows of is as the model has it."""
        model, rows = self.model, self.world.db.execute
        runs = list(rows(RUNS, [self.workspace.id]))
        ids = {(row[0], row[1]): row[-1] for row in runs}
        for run in model.runs():
            run.id = ids.get((run.task.id, run.attempt), "")
        assert {row[:-1] for row in map(_frozen, runs)} == {
            _frozen((
                r.task.id, r.attempt, r.status, r.previous and r.previous.attempt, r.fence,
                r.claims, r.expiries, r.lapses, r.failure_kind, r.retryable, r.error, r.result,
                r.used,
            )) for r in model.runs()
        }  # fmt: skip
        assert set(rows(TASKS, [self.workspace.id])) == {
            (t.id, t.status, t.canceled, t.draft, t.approval, t.paused_by, t.fence, t.version,
             t.attempts, t.waiting, *(t.slots or (None, None)), t.max_total_tokens,
             t.newest.attempt if t.newest and t.status == "in_progress" else None, t.checkpoint)
            for t in model.tasks.values()
        }  # fmt: skip
        assert set(rows(EDGES, [self.workspace.id])) == {
            (t.id, name, t.satisfied_by(other))
            for t in model.tasks.values() for name, other in t.waits_for.items()
        }  # fmt: skip
        assert set(rows(LEASES, [self.workspace.id])) == {
            (*place, lease.ended) for place, lease in model.leases.items()
        }


def _proof(held: Held) -> tuple[str, int, str]:
    return held.run_id, held.fence, held.token


def _frozen(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(tuple(value) if isinstance(value, list) else value for value in row)
