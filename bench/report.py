"""From numbers to a result: medians, ratios with their targets, JSON and a page to read."""

import os
import platform
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from bench.stage import Metrics

# Of each scenario, the numbers of every round.
Rounds = dict[str, list[Metrics]]
Value = Callable[[dict[str, Metrics]], float]


class Ratio(NamedTuple):
    """A number that is watched: how it comes out of one round, and what it should be."""

    name: str
    at_least: float | None
    at_most: float | None
    value: Value

    @property
    def target(self) -> str:
        """The target in words."""
        return f">= {self.at_least:g}" if self.at_least is not None else f"<= {self.at_most:g}"

    def met(self, value: float) -> bool:
        """Whether a value is as it should be."""
        if self.at_least is not None:
            return value >= self.at_least
        return self.at_most is None or value <= self.at_most


def over(scenario: str, other: str, metric: str = "per_second") -> Value:
    """One scenario's number as a multiple of another's, in the same round."""
    return lambda measured: measured[scenario][metric] / measured[other][metric]


def of(scenario: str, *metrics: str) -> Value:
    """A number as it was measured; several are added."""
    return lambda measured: sum(measured[scenario][metric] for metric in metrics)


RATIOS: Final = (
    Ratio("jobs_64_over_pgbench", 1.5, None, over("jobs_64", "pgbench")),
    Ratio("jobs_256_over_pgbench", 1.6, None, over("jobs_256", "pgbench")),
    Ratio("jobs_256_two_servers_over_pgbench", 1.9, None, over("jobs_256_two_servers", "pgbench")),
    Ratio("jobs_64_chained_over_pgbench", 1.6, None, over("jobs_64_chained", "pgbench")),
    Ratio("batch_over_single", 4, None, over("batch", "jobs_64")),
    Ratio("batch_over_pgbench_batch", 0.7, None, over("batch", "pgbench_batch")),
    Ratio("claim_p50_ms_1_agent", None, 0.6, of("jobs_1", "claim_p50_ms")),
    Ratio("claim_p99_ms_64_agents", None, 20, of("jobs_64", "claim_p99_ms")),
    Ratio("heartbeats_per_second", 9000, None, of("heartbeat", "per_second")),
    Ratio("creates_per_second", 4000, None, of("create", "per_second")),
    Ratio("bulk_10000_seconds", None, 1, of("bulk_10000", "seconds")),
    Ratio("pickup_p50_ms", None, 2, of("pickup", "p50_ms")),
    Ratio("pickup_p99_ms", None, 5, of("pickup", "p99_ms")),
    Ratio("idle_cores", None, 0.02, of("idle", "server_cores", "postgres_cores")),
    Ratio("claim_1m_queued_over_fresh", None, 1.25, over("queued_1m", "queued_1k", "claim_p50_ms")),
    Ratio("jobs_1m_queued_over_fresh", 0.8, None, over("queued_1m_64", "jobs_64")),
)  # fmt: skip

HOW: Final = """
Median of the rounds, lowest to highest in brackets. A round runs each scenario once, so what is
compared was measured within minutes; a ratio is taken in each round. Load, servers and PostgreSQL
share the machine. What each number means stands in bench/README.md.
"""


def spread(values: list[float]) -> str:
    """Median, lowest and highest."""
    middle = statistics.median(values)
    return f"{middle:.4g} [{min(values):.4g} - {max(values):.4g}]"


def ratios(rounds: Rounds, watched: tuple[Ratio, ...] = RATIOS) -> dict[str, dict[str, object]]:
    """The watched numbers whose scenarios were measured."""
    found: dict[str, dict[str, object]] = {}
    count = min(map(len, rounds.values()), default=0)
    for ratio in watched:
        try:
            values = [
                ratio.value({name: measured[n] for name, measured in rounds.items()})
                for n in range(count)
            ]
        except KeyError:  # not measured this time
            continue
        middle = statistics.median(values)
        found[ratio.name] = {
            "value": middle, "low": min(values), "high": max(values), "target": ratio.target,
            "met": ratio.met(middle),
        }  # fmt: skip
    return found


def lines(rounds: Rounds, watched: tuple[Ratio, ...] = RATIOS) -> list[str]:
    """Each watched number on a line of its own."""
    return [
        f"{name}: {found['value']:.4g}  (target {found['target']}{_range(found)}"
        f"{'' if found['met'] else ', missed'})"
        for name, found in ratios(rounds, watched).items()
    ]


def _range(found: dict[str, object]) -> str:
    low, high = found["low"], found["high"]
    return "" if low == high else f", {low:.4g} - {high:.4g}"


def page(rounds: Rounds, watched: tuple[Ratio, ...] = RATIOS, how: str = HOW) -> str:
    """The report in Markdown."""
    text = ["# Worklease, measured", "", machine(), how]
    text += ["| number | value | spread | target | |", "|---|---|---|---|---|"]
    for name, found in ratios(rounds, watched).items():
        text.append(
            f"| {name} | {found['value']:.4g} | {found['low']:.4g} - {found['high']:.4g} |"
            f" {found['target']} | {'met' if found['met'] else 'missed'} |"
        )
    for name, measured in rounds.items():
        text += ["", f"## {name}", "", "| | median [lowest - highest] |", "|---|---|"]
        for metric in measured[0]:
            values = [numbers[metric] for numbers in measured]
            if any(values):
                text.append(f"| {metric} | {spread(values)} |")
    return "\n".join([*text, ""])


def machine() -> str:
    """Where this was measured."""
    model = next(
        (line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
         if line.startswith("model name")), platform.machine(),
    )  # fmt: skip
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    return f"{os.cpu_count()} cores, {model}, Python {platform.python_version()}; load {load}."


def write(
    directory: Path, rounds: Rounds, watched: tuple[Ratio, ...] = RATIOS, how: str = HOW
) -> None:
    """Writes result.json and report.md."""
    result = {"machine": machine(), "ratios": ratios(rounds, watched), "rounds": rounds}
    text = msgspec.json.format(msgspec.json.encode(result), indent=1)
    (directory / "result.json").write_bytes(text + b"\n")
    (directory / "report.md").write_text(page(rounds, watched, how))
