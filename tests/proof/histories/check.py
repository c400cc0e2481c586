"""Whether all that was seen in a round can be: of each task, of the log, and of the tables."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from tests import books
from tests.proof.histories.calls import Call, Ledger
from tests.proof.histories.log import faults
from tests.proof.histories.readers import read
from tests.proof.histories.reading import Reading
from tests.proof.histories.search import Found, search
from tests.replay import replay
from tests.world import World

TASKS = """
select t.task_id, t.status, t.fence, t.version, t.attempts_used, t.dependencies_waiting,
       b.checkpoint
  from task t join task_body b using (workspace_id, task_id) where t.workspace_id = %s
"""
SEEN = ("task_status", "task_fence", "version", "attempts", "waiting", "checkpoint")


class Judgement:
    """The breaches of a round, and how much was looked at."""

    def __init__(self, ledger: Ledger, events: Sequence[Any]) -> None:
        self.ledger, self.events = ledger, events
        self.reading = Reading(ledger, events, read)
        self.breaches = list(self.reading.breaches)
        self.largest = self.undecided = 0
        self.kinds: Counter[str] = Counter()

    def histories(self, world: World, workspace_id: str) -> None:
        """Each task has gone through its calls in some order, and is now what they made of it."""
        last = self.ledger.ask("SELECT", "the tables, at the end", {}, b"")
        self.ledger.answer(last, 200, replayed=False, reply=b"")
        for task_id, *row in world.db.execute(TASKS, [workspace_id]):
            self.reading.add(task_id, "look", last, dict(zip(SEEN, row, strict=True)))
        for task_id, history in self.reading.history.items():
            if task_id not in self.reading.plans:
                continue
            found = search(history, self.reading.world(task_id))
            self.largest = max(self.largest, found.states)
            self.undecided += found.fits is None
            self.kinds.update(op.kind for op in history)
            if found.fits is False:
                self.breaches.append(self._story(task_id, found))

    def log(self) -> None:
        """The log has what was done, and nothing else, in the order of time."""
        self.breaches += faults(self.events, self.reading.history, self.reading.names)

    def tables(self, world: World, workspace_id: str) -> None:
        """The tables are as the log tells, and in order."""
        try:
            replay(world, workspace_id, list(self.events))
        except (AssertionError, KeyError) as breach:
            self.breaches.append(f"P8: the log does not tell what the tables have: {breach!r}")
        for rule, rows in books.faults(world.db, workspace_id).items():
            self.breaches.append(f"{rule}: {rows[:5]}")

    def _story(self, task_id: str, found: Found) -> str:
        calls: Sequence[Call] = self.ledger.calls
        lines = [f"no order of the calls on task {task_id} fits the contract. All of them:"]
        history = sorted(self.reading.history[task_id], key=lambda op: op.begun)
        lines += [f"  {op.kind}: {calls[op.call]}" for op in history]
        lines.append(f"calls {[op.call for op in found.way]} fit in this order, then none:")
        for op, dues in found.stuck:
            wrong = [
                {name: (due.get(name), told) for name, told in (op.answer or {}).items()
                 if due.get(name) != told} for due in dues
            ]  # fmt: skip
            lines.append(f"  {op.kind}: {calls[op.call]}\n    due, and answered: {wrong}")
        return "\n".join(lines)
