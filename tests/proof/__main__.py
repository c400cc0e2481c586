"""Tries to break the promises P1 to P12, and reports what was tried: python -m tests.proof."""

import argparse
import signal
import sys
import time
from pathlib import Path
from secrets import randbelow
from typing import Final

from server import telemetry
from tests.proof.access import part as access
from tests.proof.fuzz import part as fuzz
from tests.proof.histories import run as histories
from tests.proof.mutants import run as mutants
from tests.proof.part import Bounds, Part, Told

# By name, what is tried and the share of the time it gets.
PARTS: Final[dict[str, tuple[Part, float]]] = {
    "histories": (histories.prove, 9.7),
    "mutants": (mutants.prove, 5.6),
    "fuzz": (fuzz.prove, 3.2),
    "access": (access.prove, 1),
}


def main() -> int:
    """Runs the parts that were asked for; 1 if one of them found a breach."""
    asked = _arguments()
    # Servers and clusters are ended then as by Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # What loops in this process tell is none of the report.
    telemetry.configure("error", "text")
    asked.directory.mkdir(parents=True, exist_ok=True)
    print(f"seed {asked.seed}", flush=True)
    report = [f"# What was tried\n\nSeed {asked.seed}.\n"]
    breaches = 0
    whole = sum(PARTS[name][1] for name in asked.parts)
    for name in asked.parts:
        part, share = PARTS[name]
        directory = asked.directory / name
        directory.mkdir(exist_ok=True)
        began = time.monotonic()
        print(f"{name} …", flush=True)
        told = part(Bounds(asked.seed, 60 * asked.minutes * share / whole, directory))
        report.append(_section(name, told, time.monotonic() - began))
        print(report[-1], flush=True)
        breaches += len(told.breaches)
    page = asked.directory / "report.md"
    page.write_text("\n".join(report))
    print(f"{breaches} breaches; the report is {page}")
    return 1 if breaches else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.proof", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all if none is named")
    parser.add_argument("--seed", type=int, default=randbelow(1_000_000), help="repeats a run")
    parser.add_argument(
        "--minutes",
        type=float,
        default=19.5,
        help="for all parts together; access takes what it takes",
    )
    parser.add_argument("--directory", type=Path, default=Path(".proof"), help="for the report")
    asked = parser.parse_args()
    if unknown := set(asked.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    asked.parts = asked.parts or list(PARTS)
    return asked


def _section(name: str, told: Told, seconds: float) -> str:
    lines = [f"## {name.capitalize()}", ""]
    lines += [f"- {what}: {amount}" for what, amount in told.tried.items()]
    lines += [f"- seconds: {seconds:.0f}", f"- breaches: {len(told.breaches)}", ""]
    lines += [f"**Breach.** {breach}\n" for breach in told.breaches]
    return "\n".join(lines) + told.page


if __name__ == "__main__":
    sys.exit(main())
