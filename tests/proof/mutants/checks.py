"""What the copies are held against: nothing here knows of any mutant."""

from pathlib import Path
from typing import Final

from tests.proof.histories.chaos import ALL
from tests.proof.histories.run import run
from tests.proof.histories.stage import SETTINGS, Stage
from tests.proof.mutants.life import model
from tests.proof.mutants.readers import readers
from tests.proof.mutants.rush import race, rush
from tests.proof.mutants.strangers import strangers
from tests.proof.mutants.trial import Check, Trial
from tests.serving import Server

CALLS: Final = 1500
# Those that break the servers or the database take longer than they tell.
FAULTS: Final = ALL - {"server killed", "database restarted", "database killed"}


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
    made = (int(n) for name, n in told.tried.items() if name.startswith("operation: "))
    trial.operations += sum(made)
    assert not told.breaches, told.breaches[0]


CHECKS: Final[dict[str, Check]] = {
    "model": model, "rush": rush, "race": race, "readers": readers,
    "strangers": strangers, "histories": histories,
}  # fmt: skip
