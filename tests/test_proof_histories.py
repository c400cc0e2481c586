"""A short round of histories; and the search finds what is wrong in histories made by hand."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.proof.histories.chaos import CHEAP
from tests.proof.histories.log import faults
from tests.proof.histories.run import run
from tests.proof.histories.search import search
from tests.proof.histories.spec import Op, World
from tests.proof.histories.stage import Stage
from tests.proof.histories.state import NEVER, Plan

CALLS = 800
ALONE = World(Plan(), {}, {}, lapsed=int)
DONE = {"code": None, "replayed": False}


def test_nothing_breaks_in_a_short_round_with_every_cheap_fault(
    fresh_database: str, tmp_path: Path
) -> None:
    """P1 to P8 and P10, under all that needs no database of one's own."""
    stage = Stage(fresh_database, tmp_path)
    told = run(stage, 1, 0, faults=CHEAP, calls=CALLS)
    stage.close()
    assert told.breaches == []
    assert told.tried["searches given up"] == 0
    assert {name for name in told.tried if name.startswith("fault: ")} == {
        f"fault: {name}" for name in CHEAP
    }


def _op(kind: str, begun: int, ended: int, /, *, answer: Any = DONE, **args: Any) -> Op:
    return Op(kind, begun, ended, args, answer)


CREATED = _op("create", 0, 1, key="k", edges=frozenset[str](), manual=False, refused=())
CLAIMED = _op(
    "claim", 2, 3, session="s", key="c", until=100.0, answer={**DONE, "fence": 1, "attempt": 1}
)
AGAIN = _op(
    "claim", 8, 9, session="t", key="d", until=200.0, answer={**DONE, "fence": 2, "attempt": 1}
)


def _complete(begun: int, ended: int, why: str, **answer: Any) -> Op:
    return _op("complete", begun, ended, fence=1, why=why, answer={**DONE, **answer})


def _beat(begun: int, ended: int, checkpoint: str | None = None) -> Op:
    return _op("heartbeat", begun, ended, fence=1, checkpoint=checkpoint, until=100.0)


def _look(begun: int, ended: int, **seen: Any) -> Op:
    return _op("look", begun, ended, answer={**DONE, **seen})


@pytest.mark.parametrize("history", [
    [_complete(4, 5, "a"), _complete(6, 7, "a", replayed=True)],
    [_complete(4, 9, "a", replayed=True), _complete(5, 6, "a")],
    [_complete(4, NEVER, "a")._replace(answer=None), _complete(6, 7, "a", replayed=True)],
    [_complete(4, NEVER, "a")._replace(answer=None), _look(6, 7, task_status="in_progress")],
    [_beat(4, 9, "x"), _look(5, 6, checkpoint=None), _look(7, 8, checkpoint="x")],
    [_beat(4, 5), _beat(10, 11)],
], ids=[
    "repeated", "repeated at once", "a lost reply that was done", "a lost request",
    "seen while it was done", "kept alive",
])  # fmt: skip
def test_a_history_that_can_be_is_explained(history: list[Op]) -> None:
    assert search([CREATED, CLAIMED, *history], ALONE).fits


@pytest.mark.parametrize("history", [
    [_complete(4, 5, "a"), _complete(6, 7, "b")],
    [_complete(4, 5, "a"), _complete(6, 7, "a")],
    [_complete(4, 6, "a"), _complete(5, 7, "b")],
    [_complete(4, 5, "a"), _look(6, 7, task_status="in_progress")],
    [_complete(4, NEVER, "a")._replace(answer=None), _look(5, 6, task_status="completed"),
     _look(7, 8, task_status="in_progress")],
    [_beat(4, 5, "x"), _look(6, 7, checkpoint=None)],
    [_beat(4, 5, "x"), _beat(6, 7, "y"), _look(8, 9, checkpoint="x")],
    [AGAIN], [_look(6, 7, task_status="ready")],
], ids=[
    "done twice", "done twice, alike", "done twice at once", "undone", "undone, of a lost reply",
    "a lost checkpoint", "an older checkpoint", "two holders before the time", "expired too early",
])  # fmt: skip
def test_a_history_that_cannot_be_is_found(history: list[Op]) -> None:
    found = search([CREATED, CLAIMED, *history], ALONE)
    assert found.fits is False
    assert found.stuck


def test_a_heartbeat_with_an_old_fence_is_found_where_it_was_accepted() -> None:
    """P2: once somebody else has claimed, and the lease had lapsed before."""
    later = [AGAIN._replace(begun=120, ended=121), _beat(122, 123)]
    lapsed = ALONE._replace(lapsed=int)
    assert search([CREATED, CLAIMED, later[0]], lapsed).fits
    assert search([CREATED, CLAIMED, *later], lapsed).fits is False


def _logged(*told: tuple[str, int]) -> list[Any]:
    """A log of these events of the task `t`, each under a fence."""
    return [
        SimpleNamespace(
            event_type=f"task.{kind}", task_id="t", run_id="r", sequence=n, payload={"fence": fence}
        )
        for n, (kind, fence) in enumerate(told, 1)
    ]  # fmt: skip


WHOLE = [("created", 0), ("run_claimed", 1), ("run_completed", 1)]


@pytest.mark.parametrize(("told", "wrong"), [
    (WHOLE, 0), (WHOLE[:2], 1), ([*WHOLE, WHOLE[2]], 1), ([*WHOLE, ("run_failed", 1)], 1),
    ([WHOLE[0], WHOLE[2], WHOLE[1]], 1),
], ids=[
    "as it was", "an event lost", "an event doubled", "an event of no call", "out of order",
])  # fmt: skip
def test_a_log_that_does_not_fit_the_calls_is_found(told: Any, wrong: int) -> None:
    """P8: each change has its event, each event its call, and they stand in the order of time."""
    history = {"t": [CREATED, CLAIMED, _complete(4, 5, "a")]}
    assert len(list(faults(_logged(*told), history, {"r": ("t", 1)}))) == wrong
