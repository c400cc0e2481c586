"""Breaks copies of the product on purpose: every break must be seen by a check that knows of none.

A check that does not see one is too weak, and that is a breach as well.
"""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from server.db import embedded
from tests.proof.mutants.checks import CHECKS
from tests.proof.mutants.in_parts import IN_PARTS
from tests.proof.mutants.in_schema import IN_SCHEMA
from tests.proof.mutants.mutant import Mutant, StaleError
from tests.proof.mutants.trial import Verdict, attempt
from tests.proof.part import Bounds, Told

MUTANTS: Final[tuple[Mutant, ...]] = IN_SCHEMA + IN_PARTS
HEAD: Final = """
| Promise | Break | Seen by | What it saw | After |
|---|---|---|---|---|
"""


def prove(bounds: Bounds) -> Told:
    """Holds each check against a whole copy, then each mutant against its check."""
    told = Told(page=HEAD)
    ends = time.monotonic() + bounds.seconds
    missed = left = 0
    with _postgres() as postgres:
        for name, check in CHECKS.items():
            verdict = attempt(check, None, postgres, bounds.seed)
            told.page += _row("all", "none", name, verdict)
            if verdict.found is not None:
                told.breaches.append(f"{name} finds fault with a whole copy: {verdict.found}")
        for mutant in MUTANTS:
            if time.monotonic() > ends:
                left += 1
                continue
            try:
                verdict = attempt(CHECKS[mutant.check], mutant, postgres, bounds.seed)
            except StaleError as stale:
                told.breaches.append(str(stale))
                continue
            told.page += _row(mutant.promise, mutant.meaning, mutant.check, verdict)
            if verdict.found is None:
                missed += 1
                told.breaches.append(f"{mutant.check} did not see: {mutant.meaning}")
            print(told.page.splitlines()[-1], flush=True)
    told.tried = {
        "whole copies": len(CHECKS), "broken copies": len(MUTANTS) - left, "not seen": missed,
        "left out for want of time": left,
    }  # fmt: skip
    return told


def _row(promise: str, meaning: str, check: str, verdict: Verdict) -> str:
    saw = (verdict.found or "nothing").replace("|", "\\|")
    after = f"{verdict.operations} calls, {verdict.seconds:.1f} s"
    return f"| {promise} | {meaning} | {check} | {saw} | {after} |\n"


@contextmanager
def _postgres() -> Iterator[str]:
    directory = Path(tempfile.mkdtemp(prefix="worklease-mutants-"))
    cluster = embedded.join(directory, durable=False)
    try:
        yield cluster.conninfo
    finally:
        cluster.leave()
        embedded.discard(directory)
