"""`python -m bench`: every scenario, three rounds; or the named ones, quickly."""

import argparse
import secrets
import shutil
import time
from pathlib import Path

from bench import report
from bench.cluster import cluster
from bench.processes import compile_drive
from bench.scenarios import SCENARIOS
from bench.stage import Stage

RESULTS = Path(__file__).parents[1] / ".bench"
ROUNDS, SECONDS, QUICK_SECONDS = 3, 3.0, 1.0


def main() -> None:
    """Measures, and tells."""
    chosen = _arguments()
    RESULTS.mkdir(exist_ok=True)
    directory = RESULTS / f"data-{secrets.token_hex(4)}"
    directory.mkdir(mode=0o700)
    (RESULTS / "server.log").unlink(missing_ok=True)
    names = chosen.scenario or list(SCENARIOS)
    rounds: report.Rounds = {}
    began = time.monotonic()
    try:
        program = compile_drive(directory)
        with cluster(directory) as running:
            stage = Stage(running, directory, program, QUICK_SECONDS if chosen.quick else SECONDS)
            stage.prepare()
            for number in range(1 if chosen.quick else ROUNDS):
                for name in names:
                    measured = SCENARIOS[name](stage)
                    rounds.setdefault(name, []).append(measured)
                    print(f"{number + 1} {name}: {_told(measured)}", flush=True)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    report.write(RESULTS, rounds)
    print(f"\n{report.machine()} {time.monotonic() - began:.0f} s.")
    print("\n".join(report.lines(rounds)))
    print(f"\n{RESULTS / 'report.md'}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measures Worklease.")
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("scenario", nargs="*", help=f"of {', '.join(SCENARIOS)}; default: all")
    chosen = parser.parse_args()
    for name in chosen.scenario:
        if name not in SCENARIOS:
            parser.error(f"there is no scenario {name}")
    return chosen


def _told(measured: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in measured.items() if value)


if __name__ == "__main__":
    main()
