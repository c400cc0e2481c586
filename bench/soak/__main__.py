"""`python -m bench.soak`: load and age, or one of them, in full or on a smaller scale."""

import argparse
import secrets
import shutil
import sys
import time
from pathlib import Path
from typing import Final

from bench import report
from bench.cluster import cluster
from bench.processes import compile_drive
from bench.soak import age, load
from bench.stage import Metrics, Stage

RESULTS = Path(__file__).parents[2] / ".bench" / "soak"
PARTS: Final = ("load", "age")
WATCHED: Final = (*load.WATCHED, *age.WATCHED)
HOW: Final = """
Measured once. Load, server and PostgreSQL share the machine. What each number means stands in
bench/README.md.
"""


def main() -> int:
    """Measures, and tells; 1 if something was lost, doubled or out of order."""
    asked = _arguments()
    RESULTS.mkdir(parents=True, exist_ok=True)
    directory = RESULTS / f"data-{secrets.token_hex(4)}"
    directory.mkdir(mode=0o700)
    began = time.monotonic()
    measured: dict[str, Metrics] = {}
    wrong: list[str] = []
    try:
        with cluster(directory) as running:
            stage = Stage(running, directory, compile_drive(directory), 1.0)
            stage.prepare_empty()
            if "load" in asked.parts:
                wrong = load.load(stage, load.Size.of(asked.scale), measured)
            if "age" in asked.parts:
                age.age(stage, age.Lengths.of(asked.scale, asked.finished), measured)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        # What one part measured is told whatever happens to the other.
        _tell(measured, wrong, time.monotonic() - began)
    return 1 if wrong else 0


def _tell(measured: dict[str, Metrics], wrong: list[str], seconds: float) -> None:
    rounds = {name: [metrics] for name, metrics in measured.items()}
    report.write(RESULTS, rounds, WATCHED, HOW)
    print(f"\n{report.machine()} {seconds:.0f} s.")
    print("\n".join([*report.lines(rounds, WATCHED), *(f"WRONG: {what}" for what in wrong)]))
    print(f"\n{RESULTS / 'report.md'}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; both if none is named")
    parser.add_argument("--scale", type=float, default=1.0, help="of numbers and times")
    parser.add_argument(
        "--finished", type=int, help="runs that have ended; a million unless scaled"
    )
    asked = parser.parse_args()
    if unknown := set(asked.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    asked.parts = asked.parts or PARTS
    asked.finished = asked.finished or round(1_000_000 * asked.scale)
    return asked


if __name__ == "__main__":
    sys.exit(main())
