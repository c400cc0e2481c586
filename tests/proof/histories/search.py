"""Looks for an order in which one task can have gone through all calls on it (Wing and Gong).

The order must keep to real time: a call that was answered before another was made comes before it.
A call without an answer may have been done at any time after it was made, or never. What was tried
from a state with the same calls behind it is not tried again.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from tests.proof.histories import leases, reviews, tasks
from tests.proof.histories.spec import REPLAY, Due, Op, Way, World, no, seen
from tests.proof.histories.state import NEVER, State

MOST_STATES = 200_000

RULES: Final[dict[str, Callable[[State, Op, World], list[Way]]]] = {
    "create": tasks.create, "look": tasks.look, "cancel": tasks.cancel,
    "cancel_above": tasks.cancel_above, "pause": tasks.pause, "resume": tasks.resume,
    "pause_above": tasks.pause_above, "resume_above": tasks.resume_above,
    "approve": tasks.approve, "reject": tasks.reject, "depend": tasks.depend,
    "undepend": tasks.undepend, "start": tasks.start, "cancel_run": tasks.cancel_run,
    "retry": tasks.retry, "recover": tasks.recover, "force_release": tasks.force_release,
    "force_fail": tasks.force_fail, "claim": leases.claim, "guard": leases.guard, **leases.RULES,
    "review_claim": reviews.claim, "review_heartbeat": reviews.heartbeat,
    "review_release": reviews.release, "verdict": reviews.verdict,
}  # fmt: skip


class Found(NamedTuple):
    """How many states were looked at; where no order fits, the furthest that could be reached."""

    states: int
    # None: it was given up.
    fits: bool | None
    # The calls in the order of the longest way, and what was due of each that could come next.
    way: list[Op]
    stuck: list[tuple[Op, list[Due]]]


class _Search:
    def __init__(self, history: Sequence[Op], world: World) -> None:
        self.ops = sorted(history, key=lambda op: op.begun)
        self.world = world
        self.known = sum(1 << n for n, op in enumerate(self.ops) if op.ended < NEVER)

    def ready(self, done: int) -> Iterator[tuple[int, Op]]:
        """The calls that may come next: those made before any other was answered."""
        left = [(n, op) for n, op in enumerate(self.ops) if not done >> n & 1]
        first = min((op.ended for _, op in left), default=NEVER)
        for n, op in left:
            if op.begun > first:
                return
            yield n, op

    def quiet(self, done: int, state: State) -> list[State]:
        """The state, and those that it can have turned into by itself."""
        ends = (op.ended for n, op in enumerate(self.ops) if not done >> n & 1)
        first, reached = min(ends, default=NEVER), [state]
        for known in reached:
            for since, then in leases.silent(known, self.world):
                if since < first and then not in reached:
                    reached.append(then)
        return reached

    def ways(self, state: State, op: Op) -> tuple[list[Way], list[Way]]:
        """What can be done in a state: what fits the answer, and all."""
        if not state.made and op.kind not in BEFORE:
            told = no(state, "task_not_found")
        elif op.args.get("attempt", 0) > len(state.runs):
            told = []  # nobody can know of the run yet
        elif (key := op.args.get("once")) in state.keys:
            told = [(state, REPLAY | seen(state))]
        else:
            told = RULES[op.kind](state, op, self.world)
            if key:
                told = [
                    (then if "replayed" not in due else then._replace(keys=then.keys | {key}), due)
                    for then, due in told
                ]
        if op.answer is None:
            # One that changes nothing may as well not have been done.
            return [way for way in told if way[0] != state], told
        return [way for way in told if op.answer.items() <= way[1].items()], told


# What may come before the task is made, since it is about others as well.
BEFORE = frozenset({"create", "cancel_above", "pause_above", "resume_above"})


def search(history: Sequence[Op], world: World) -> Found:
    """Whether the history of one task can be explained."""
    look = _Search(history, world)
    stack: list[tuple[int, State, tuple[Op, ...]]] = [(0, State(), ())]
    seen: set[tuple[int, State]] = set()
    best: tuple[int, State, tuple[Op, ...]] = stack[0]
    while stack:
        done, state, way = stack.pop()
        if (done, state) in seen:
            continue
        seen.add((done, state))
        if done & look.known == look.known:
            return Found(len(seen), True, list(way), [])
        if len(seen) > MOST_STATES:
            return Found(len(seen), None, list(way), [])
        if len(way) > len(best[2]):
            best = done, state, way
        for quiet in look.quiet(done, state)[::-1]:
            # What was answered first is tried first: it is on top of the stack.
            for n, op in sorted(look.ready(done), key=lambda each: -each[1].ended):
                for then, _ in look.ways(quiet, op)[0]:
                    stack.append((done | 1 << n, then, (*way, op)))
    done, state, way = best
    stuck = [
        (op, [due for quiet in look.quiet(done, state) for _, due in look.ways(quiet, op)[1]])
        for _, op in look.ready(done)
    ]
    return Found(len(seen), False, list(way), stuck)
