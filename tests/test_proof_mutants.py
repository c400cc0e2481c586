"""The breaks of the proof fit the product, and a few of them are seen; `make proof` does all."""

import pytest

from tests.proof.mutants.checks import CHECKS
from tests.proof.mutants.mutant import Mutant, broken
from tests.proof.mutants.run import MUTANTS
from tests.proof.mutants.trial import attempt

PROMISES = {f"P{n}" for n in range(1, 13)}
QUICK = {
    "a claim leaves the offer of its run in the queue",
    "the answers of a batch go to the wrong callers",
    "a claim token stands in the log",
}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.meaning)
def test_a_mutant_changes_one_place_of_the_product(mutant: Mutant) -> None:
    assert mutant.old in broken(mutant._replace(new=mutant.old))
    assert broken(mutant) != broken(mutant._replace(new=mutant.old))


def test_each_promise_is_broken_by_some_mutant_and_each_check_holds_one() -> None:
    assert {mutant.promise for mutant in MUTANTS} == PROMISES
    assert {mutant.check for mutant in MUTANTS} == set(CHECKS)
    assert len({mutant.meaning for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize(
    "mutant", [m for m in MUTANTS if m.meaning in QUICK], ids=lambda m: m.check
)
def test_a_broken_copy_is_seen_to_be_broken(postgres: str, mutant: Mutant) -> None:
    assert attempt(CHECKS[mutant.check], mutant, postgres, 1).found is not None


def test_a_whole_copy_is_found_in_order(postgres: str) -> None:
    assert attempt(CHECKS["strangers"], None, postgres, 1).found is None
