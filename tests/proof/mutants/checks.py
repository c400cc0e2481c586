"""What the copies are held against: nothing here knows of any mutant."""

import sys
from pathlib import Path
from typing import ClassVar, Final

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import invariant, run_state_machine_as_test

from tests.proof.histories.chaos import ALL
from tests.proof.histories.run import run
from tests.proof.histories.stage import SETTINGS, Stage
from tests.proof.mutants.readers import readers
from tests.proof.mutants.rush import race, rush
from tests.proof.mutants.strangers import strangers
from tests.proof.mutants.trial import Check, Trial
from tests.serving import Server
from tests.test_model import Life

HISTORIES: Final = 30
CALLS_A_HISTORY: Final = 40
CALLS: Final = 1500
# Those that break the servers or the database take longer than they tell.
FAULTS: Final = ALL - {"server killed", "database restarted", "database killed"}


def model(trial: Trial) -> None:
    """Random histories, call by call beside the reference model; the log is replayed."""
    run_state_machine_as_test(_observed(trial), settings=_SEARCH)


_SEARCH: Final = settings(
    max_examples=HISTORIES, stateful_step_count=CALLS_A_HISTORY, deadline=None, database=None,
    phases=[Phase.generate], report_multiple_bugs=False, suppress_health_check=list(HealthCheck),
)  # fmt: skip


def _observed(trial: Trial) -> type[Life]:
    """Counts the calls up to the one that was wrong, and not those that show it again."""
    failed = False

    class Observed(Life):
        world: ClassVar = trial.world

        def counted(self) -> None:
            """Not after each call but in the end: it is dear."""

        @invariant()
        def count(self) -> None:
            trial.operations += not failed

        def teardown(self) -> None:
            nonlocal failed
            before, failed = failed, True
            if not isinstance(sys.exc_info()[1], Exception):
                super().teardown()
                failed = before

    return seed(trial.seed)(Observed)


def histories(trial: Trial) -> None:
    """Clients over a bad network; what each was told must fit into one order."""
    directory = trial.servers.directory / "stage"
    directory.mkdir()

    def start(_: str, __: Path) -> Server:
        return trial.servers.start(WORKLEASE_LOOPS=True, **SETTINGS).server

    stage = Stage(trial.world.server.conninfo, directory, start)
    try:
        told = run(stage, trial.seed, 1, faults=FAULTS, calls=CALLS)
    finally:
        stage.close()
    trial.operations += int(told.tried["calls"])
    assert not told.breaches, told.breaches[0]


CHECKS: Final[dict[str, Check]] = {
    "model": model, "rush": rush, "race": race, "readers": readers,
    "strangers": strangers, "histories": histories,
}  # fmt: skip
