"""What each call meant for which task: the calls of everybody as the histories of single tasks."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tests.proof.histories.calls import Call, Ledger, seconds
from tests.proof.histories.spec import Op, World
from tests.proof.histories.state import NEVER, Plan

Json = dict[str, Any]
# What can have made a task one that nobody waits for any more, under either policy, or undone it.
COMPLETES = frozenset({"complete", "verdict"})
ENDS = COMPLETES | {"fail", "cancel", "cancel_above", "force_fail"}
REOPENS = frozenset({"start", "retry"})
CLAIMS = {"task.run_claimed": "claim", "task.run_review_bound": "review_claim"}


class Reading:
    """The histories of all tasks of a workspace; `names` says of which task a run or review is."""

    def __init__(
        self, ledger: Ledger, events: Sequence[Any], read: Callable[["Reading", Call], None]
    ) -> None:
        self.ledger = ledger
        self.names: dict[str, tuple[str, int]] = {}
        self.plans: dict[str, Plan] = {}
        self.parents: dict[str, str] = {}
        self.history: dict[str, list[Op]] = defaultdict(list)
        self.breaches: list[str] = []
        self._lost: dict[tuple[str, str], list[tuple[Call, str]]] = defaultdict(list)
        for event in events:
            if event.run_id is not None:
                self.names[event.run_id] = event.task_id, event.payload["attempt"]
                if "review_id" in event.payload and event.event_type.startswith("task.run_review_"):
                    self.names.setdefault(event.payload["review_id"], self.names[event.run_id])
        for call in ledger.calls:
            if call.status >= 500 and call.known:
                self.breaches.append(f"an error of the server: {call}")
            if call.code != "idempotency_in_progress":
                self._try(read, call)
        self._lost_claims(events)
        for task_id in list(self.plans):
            self._from_above(task_id)

    def _try(self, read: Callable[["Reading", Call], None], call: Call) -> None:
        try:
            read(self, call)
        except (KeyError, TypeError, IndexError) as wrong:
            self.breaches.append(f"an answer that is not as it must be ({wrong!r}): {call}")

    def world(self, task_id: str) -> World:
        """What the history of a task depends on from outside."""
        plan = self.plans[task_id]
        ends = COMPLETES if plan.on_dependency_failure == "block" else ENDS
        edges = {
            on for op in self.history[task_id]
            for on in (op.args.get("on"), *op.args.get("edges", ())) if on
        }  # fmt: skip
        meets = {on: self._first(on, ends) for on in edges}
        reopens = {on: self._first(on, REOPENS) for on in edges}
        return World(plan, meets, reopens, self.ledger.lapsed)

    def _first(self, task_id: str, kinds: Iterable[str]) -> int:
        done = (
            op.begun for op in self.history.get(task_id, ())
            if op.kind in kinds and (op.answer is None or not op.answer.get("code"))
        )  # fmt: skip
        return min(done, default=NEVER)

    def add(
        self, task_id: str, kind: str, call: Call, seen: Mapping[str, Any], /, **args: Any
    ) -> None:
        """Notes a call on a task, with what was seen of the answer if there was one."""
        answer = {"code": call.code, "replayed": call.replayed, **seen} if call.known else None
        if answer is not None and (answer["code"] or answer["replayed"] is None):
            del answer["replayed"]
        ended = call.ended if call.known else NEVER
        if answer is not None or kind != "look":
            self.history[task_id].append(Op(kind, call.begun, ended, args, answer, call.number))

    def claimed(self, call: Call, claims: Iterable[Json], key: str, *, chained: bool) -> None:
        """Notes what a claim got; of one behind a complete nobody tells whether it is a repeat."""
        for told in claims:
            lease, run = told["lease"], told["run"]
            self._named(run["id"], told["task"]["id"], run["attempt"], call)
            until = seconds(lease["lease_until"])
            seen = {"fence": lease["fence"], "attempt": run["attempt"]}
            if chained:
                seen["replayed"] = None
            elif not call.replayed:
                seen["checkpoint"] = told["checkpoint"]
                self._timely(call, until, lease["lease_seconds"])
            self.add(
                told["task"]["id"], "claim", call, seen, session=call.session, key=key, until=until
            )

    def lost(self, call: Call, key: str, kind: str = "claim") -> None:
        """Notes a claim that nobody knows the end of."""
        self._lost[kind, call.session].append((call, key))

    def _named(self, run_id: str, task_id: str, attempt: int, call: Call) -> None:
        if self.names.setdefault(run_id, (task_id, attempt)) != (task_id, attempt):
            self.breaches.append(f"{run_id} is of {self.names[run_id]}, but: {call}")

    def _timely(self, call: Call, until: float, lasts: float) -> None:
        now, clock = until - lasts, self.ledger
        if not clock.earliest[call.begun] <= now <= clock.latest[call.ended]:
            self.breaches.append(f"a lease that does not count from the server's clock: {call}")

    def prolonged(self, call: Call, until: float, lasts: float) -> None:
        """A lease that was prolonged does not last longer than asked."""
        if until - lasts > self.ledger.latest[call.ended]:
            self.breaches.append(f"a lease that lasts longer than it may: {call}")

    def _lost_claims(self, events: Sequence[Any]) -> None:
        """Adds the claims without an answer to the tasks that the log says they took.

        The log is only asked where to look: whether it fits, the search finds out.
        """
        told = [
            (event.task_id, CLAIMS[event.event_type], event.payload["session_id"], event)
            for event in events if event.event_type in CLAIMS
        ]  # fmt: skip
        made = Counter(each[:3] for each in told)
        answered = Counter(
            (task_id, op.kind, op.args["session"])
            for task_id, history in self.history.items() for op in history
            if op.kind in CLAIMS.values() and op.answer and op.answer.get("replayed") is False
        )  # fmt: skip
        for task_id, kind, session, event in told:
            if made[task_id, kind, session] > answered[task_id, kind, session]:
                at = seconds(event.timestamp)
                for call, key in self._lost[kind, session]:
                    op = Op(kind, call.begun, NEVER, {"session": session, "key": key}, None)
                    op = op._replace(call=call.number)
                    known = any(op == other for other in self.history[task_id])
                    if self.ledger.earliest[call.begun] <= at and not known:
                        self.history[task_id].append(op)

    def _from_above(self, task_id: str) -> None:
        """Adds what was done to the ancestors of a task, and goes down from there."""
        above = self.parents.get(task_id)
        while above is not None:
            for op in self.history.get(above, ()):
                if op.kind in ("cancel", "pause", "resume"):
                    answer = op.answer and {"code": op.answer["code"]}
                    kind, cancels = f"{op.kind}_above", op.kind == "cancel"
                    if op.answer and op.answer["code"]:
                        continue
                    seen = {} if cancels and answer else answer
                    self.history[task_id].append(op._replace(kind=kind, answer=seen))
            above = self.parents.get(above)
