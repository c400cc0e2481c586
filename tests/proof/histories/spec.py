"""What each call on one task may do and must answer, in each state: the contract, once more.

A rule gets a state and a call and gives every way in which the call can be done: the state after
it, with what is due as its answer. A call that is refused leaves the state as it was.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tests.proof.histories.state import Plan, Review, State

Due = dict[str, object]
Way = tuple[State, Due]
REPLAY: Due = {"code": None, "replayed": True}


class Op(NamedTuple):
    """A call as far as one task is concerned, between the ticks of its question and its answer.

    `answer` holds what was seen of the answer; None: nobody knows whether it was done at all.
    """

    kind: str
    begun: int
    ended: int
    args: Mapping[str, Any]
    answer: Mapping[str, object] | None
    call: int = -1


class World(NamedTuple):
    """What a task's history depends on from outside: its plan, and when things can have happened.

    `meets` and `reopens` say for each dependency from which tick on it can have been satisfied, and
    not so any more; `lapsed` from which tick on the server's clock can have shown a time.
    """

    plan: Plan
    meets: Mapping[str, int]
    reopens: Mapping[str, int]
    lapsed: Callable[[float], int]


def no(state: State, code: str) -> list[Way]:
    return [(state, {"code": code})]


def ok(state: State, **told: object) -> list[Way]:
    told = {"code": None, "replayed": False, **told}
    return [(state, told | seen(state))]


def seen(state: State) -> dict[str, object]:
    """What an answer that shows the task shows of it."""
    newest = state.newest
    return {
        "task_status": state.status, "task_fence": state.fence, "version": state.version,
        "attempts": state.attempts, "approval": state.approval, "canceled": state.canceled,
        "effective_paused": bool(state.paused), "waiting": len(state.waits),
        "checkpoint": state.checkpoint,
        "runs": tuple((run.status, run.fence or None) for run in state.runs),
        "result": newest.why if newest and state.status == "completed" else None,
    }  # fmt: skip


def reviewed(state: State, attempt: int, plan: Plan) -> State:
    """With the review that the end of a run asks for."""
    wanted = {"completed": "on_success", "failed": "on_failure"}[state.runs[attempt - 1].status]
    asked = plan.review_policy in (wanted, "always")
    return state.run(attempt, review=Review()) if asked else state
