"""Breaks copies of the product on purpose: every break must be seen by a check that knows of none.

A check that does not see one is too weak, and that is a breach as well.
"""

import time
from typing import Final

from tests.proof.mutants.checks import CHECKS
from tests.proof.mutants.in_parts import IN_PARTS
from tests.proof.mutants.in_schema import IN_SCHEMA
from tests.proof.mutants.mutant import Mutant, StaleError
from tests.proof.mutants.trial import Verdict, attempt
from tests.proof.part import Bounds, Told
from tests.serving import throwaway_postgres

MUTANTS: Final[tuple[Mutant, ...]] = IN_SCHEMA + IN_PARTS
TRIES: Final = 3
HEAD: Final = """
| Promise | Break | Seen by | What it saw | After |
|---|---|---|---|---|
"""


def prove(bounds: Bounds) -> Told:
    """Holds each check against a whole copy, then each mutant against its check."""
    told = Told(page=HEAD)
    ends = time.monotonic() + bounds.seconds
    missed = left = 0
    sound = set(CHECKS)
    with throwaway_postgres() as postgres:
        for name, check in CHECKS.items():
            verdict = attempt(check, None, postgres, bounds.seed)
            _note(told, "all", "none", name, verdict)
            if verdict.found is not None:
                sound.remove(name)
                told.breaches.append(f"{name} finds fault with a whole copy: {verdict.found}")
        for mutant in MUTANTS:
            if mutant.check not in sound or time.monotonic() > ends:
                left += 1
                continue
            try:
                verdict = _try(mutant, postgres, bounds.seed)
            except StaleError as stale:
                told.breaches.append(str(stale))
                continue
            _note(told, mutant.promise, mutant.meaning, mutant.check, verdict)
            if verdict.found is None:
                missed += 1
                told.breaches.append(f"{mutant.check} did not see: {mutant.meaning}")
    told.tried = {
        "whole copies": len(CHECKS), "broken copies": len(MUTANTS) - left, "not seen": missed,
        "left out for want of time, or of a sound check": left,
    }  # fmt: skip
    return told


def _try(mutant: Mutant, postgres: str, seed: int) -> Verdict:
    """What its check sees of a mutant, with other luck if it sees nothing at first."""
    operations, seconds = 0, 0.0
    for n in range(TRIES):
        verdict = attempt(CHECKS[mutant.check], mutant, postgres, seed + n)
        operations, seconds = operations + verdict.operations, seconds + verdict.seconds
        if verdict.found is not None:
            break
    return Verdict(verdict.found, operations, seconds)


def _note(told: Told, promise: str, meaning: str, check: str, verdict: Verdict) -> None:
    saw = (verdict.found or "nothing").replace("|", "\\|")
    after = f"{verdict.operations} calls, {verdict.seconds:.1f} s"
    row = f"| {promise} | {meaning} | {check} | {saw} | {after} |"
    told.page += f"{row}\n"
    print(row, flush=True)
