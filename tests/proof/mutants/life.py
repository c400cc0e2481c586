"""Random histories, call by call beside the reference model, as fast as they can be played.

The rules are those of tests/test_model.py, where Hypothesis searches, and those of lived.py.
"""

import random
from collections.abc import Callable
from typing import Any, ClassVar, Final

from tests.proof.mutants.lived import Lived
from tests.proof.mutants.trial import Trial
from tests.test_model import CHOICES, OPEN

HISTORIES: Final = 14
CALLS_A_HISTORY: Final = 50
LANES: Final = 12
Dice = random.Random
Args = dict[str, Any]


def model(trial: Trial) -> None:
    """After each call all rows are as the model has them; the log is replayed in the end."""

    class Here(Lived):
        world: ClassVar = trial.world

    dice = Dice(trial.seed)
    for _ in range(HISTORIES):
        life = Here()
        some = [_fields(dice) for _ in range(dice.randint(2, 4))]
        life.begin(some=some, count=dice.randint(1, 3), who=dice.choice(["worker", "eve"]))
        for _ in range(CALLS_A_HISTORY):
            [name] = dice.choices(list(RULES), [weight for weight, _ in RULES.values()])
            if not any(life.model.runs()):
                name = "create"
            elif name in LEASED and not life.drive.claimed:
                name = "claim"
            life.drive.compare()
            life.same_reviews()
            getattr(life, name)(**RULES[name][1](dice))
            trial.operations += 1
        life.drive.compare()
        life.same_reviews()
        life.teardown()


def _fields(dice: Dice) -> Args:
    return {name: dice.choice(some) for name, some in CHOICES.items()}


def _lanes(dice: Dice) -> list[Args]:
    free = OPEN | {"slots": None, "review_policy": "none", "max_total_tokens": None}
    return [_fields(dice) | free for _ in range(LANES)]


def _picks(dice: Dice, most: int) -> list[int]:
    return [dice.randrange(100) for _ in range(dice.randint(0, most))]


def _one(**some: list[Any]) -> Callable[[Dice], Args]:
    """Something to pick, and one of each of these."""
    return lambda dice: {
        "pick": dice.randrange(100), **{name: dice.choice(of) for name, of in some.items()},
    }  # fmt: skip


def _any(**some: list[Any]) -> Callable[[Dice], Args]:
    return lambda dice: {name: dice.choice(of) for name, of in some.items()}


OUTCOMES: Final = ["approved", "rejected", "blocked", "error", "timeout", "invalid_output"]
ENDS: Final = ["heartbeat", "complete", "fail", "release"]
BOTH: Final = [True, False]
TOKENS: Final = [0, 0, 60, 110]
LEASED: Final = frozenset({
    "heartbeat", "complete", "fail", "release", "come_back", "spend", "claim_again", "plan",
    "plan_edge", "fail_for_now", "linger", "call_without_token",
})  # fmt: skip
# Each rule, how often it is chosen, and what it is given.
RULES: Final[dict[str, tuple[int, Callable[[Dice], Args]]]] = {
    "create": (6, lambda dice: {
        "fields": _fields(dice), "picks": _picks(dice, 3), "draft": dice.random() < 0.2,
        "parent": dice.choice([None, dice.randrange(100)]),
    }),
    "bulk": (3, lambda dice: {
        "fields": _fields(dice), "shape": [_picks(dice, 2) for _ in range(dice.randint(2, 4))],
    }),
    "repeat_creation": (2, _one()),
    "depend": (3, lambda dice: {"one": dice.randrange(100), "other": dice.randrange(100)}),
    "remove_edge": (2, lambda dice: {"one": dice.randrange(100), "other": dice.randrange(100)}),
    "patch": (3, lambda dice: {"pick": dice.randrange(100), "fields": _fields(dice)}),
    "delete": (2, _one()),
    "cancel": (1, _one()),
    "start": (3, _one(how=["start", "runs"])),
    "publish": (1, _one(subtree=BOTH)),
    "decide": (2, _one(how=["approve", "approve", "reject"])),
    "pause": (5, _one(how=["pause", "pause", "resume", "resume", "resume"])),
    "switch": (2, _any(how=["pause", "resume", "resume"])),
    "force": (2, _one(fails=BOTH)),
    "drive_run": (3, _one(how=["cancel", "retry", "recover"])),
    "claim": (4, _any(session=[0, 1], count=[1, 2, 3], seconds=[60, 100])),
    "heartbeat": (4, _one(checkpoint=[None, 1, 2], tokens=TOKENS)),
    "complete": (4, _one(result=[1, 2], tokens=TOKENS)),
    "fail": (4, _one(error=["a", "b"], retryable=BOTH, tokens=TOKENS)),
    "release": (3, _one(delay=[0, 0, 30], tokens=TOKENS)),
    "come_back": (5, _one(how=ENDS, told=[1, 2], by=[0, 1, None])),
    "spend": (5, _one(session=[0, 1])),
    "work": (6, _any(session=[0, 1], fails=BOTH, who=["worker", "eve"])),
    "claim_again": (3, _one()),
    "plan": (2, _one()),
    "plan_edge": (2, lambda dice: {"pick": dice.randrange(100), "other": dice.randrange(100)}),
    "fail_for_now": (2, _one(after=[0, 40])),
    "linger": (5, lambda dice: {"pick": 2 * dice.randrange(50) + 1}),
    "call_without_token": (3, _one()),
    "by_hand": (4, _one()),
    "crowd": (1, lambda dice: {"some": _lanes(dice), "seconds": dice.choice([60, 100])}),
    "delay": (2, _one(seconds=[40, 620])),
    "time_passes": (3, _any(seconds=[31, 61, 601], sweep=BOTH)),
    "request": (2, _one(policy=["on_success", "on_failure", "always"])),
    "claim_review": (3, _any(who=["eve", "bob", "worker"], seconds=[60, 100])),
    "hold_review": (3, _one(operation=["heartbeat", "release"])),
    "pause_family": (2, _one()),
    "judge_late": (2, _one(outcome=OUTCOMES)),
    "judge": (3, _one(outcome=OUTCOMES)),
    "judge_by_hand": (2, _one(outcome=OUTCOMES, stopped=BOTH)),
}  # fmt: skip
