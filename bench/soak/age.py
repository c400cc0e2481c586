"""AGE: does work stay as fast beside an old snapshot, and beside a million runs that have ended?"""

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import psycopg

from bench.report import Ratio, of, over
from bench.stage import KEEP_UP, WARM, Metrics, Run, Stage

FINISHED = Path(__file__).with_name("finished.sql").read_text()
DATABASE: Final = "soak_age"
FRESH: Final = "soak_fresh"
TURNS: Final = 3
AGENTS: Final = 64
RATE: Final = 200.0
# The queue lasts at this speed.
JOBS_PER_SECOND: Final = 3000
COMPLETED: Final = "select count(*) from run where status = 'completed'"

WATCHED: Final = (
    Ratio("age_jobs_old_snapshot_over_normal", 0.7, None,
          over("full_speed_old_snapshot", "full_speed")),
    Ratio("age_jobs_old_snapshot_at_the_end_over_normal", 0.7, None,
          over("full_speed_old_snapshot_end", "full_speed")),
    Ratio("age_claim_p99_old_snapshot_over_normal", None, 2,
          over("full_speed_old_snapshot", "full_speed", "claim_p99_ms")),
    Ratio("age_paced_jobs_old_snapshot_over_normal", 0.7, None,
          over("paced_old_snapshot", "paced")),
    Ratio("age_paced_claim_p99_old_snapshot_over_normal", None, 2,
          over("paced_old_snapshot", "paced", "claim_p99_ms")),
    Ratio("age_claim_p50_finished_over_fresh", None, 1.5,
          over("one_agent_finished", "one_agent_fresh", "claim_p50_ms")),
    Ratio("age_jobs_finished_over_fresh", 0.7, None,
          over("full_speed_finished", "full_speed_fresh")),
    Ratio("age_finished_runs", 1_000_000, None, of("finished", "runs")),
)  # fmt: skip


class Lengths(NamedTuple):
    """How long each measurement lasts, in seconds, and how many runs have ended."""

    normal: float
    full_speed: float
    paced: float
    finished: int
    warm_up: float = 1.0

    @staticmethod
    def of(scale: float, finished: int) -> "Lengths":
        """Of a whole soak, or of a part of one."""
        # Below some seconds a percentile says nothing.
        return Lengths(max(1.0, 20 * scale), max(1.0, 60 * scale), max(1.0, 300 * scale), finished)


def age(stage: Stage, lengths: Lengths, measured: dict[str, Metrics]) -> None:
    """One database grows old: beside an old snapshot, then with runs that have ended."""
    fast = 3 * lengths.normal + lengths.full_speed + 12 * lengths.warm_up
    # At this speed a 99th percentile wants a minute.
    minute = 3 * lengths.normal
    paced = minute + lengths.paced + 2 * lengths.warm_up
    stage.queue(DATABASE, round(fast * JOBS_PER_SECOND + paced * RATE))
    stage.cluster.ask(DATABASE, WARM)
    with stage.serving_on(DATABASE) as serving:
        measured["full_speed"] = _drive(serving, lengths, lengths.normal)
        measured["paced"] = _drive(serving, lengths, minute, RATE)
        with held_snapshot(stage.cluster.conninfo(DATABASE)):
            measured["full_speed_old_snapshot"] = _drive(serving, lengths, lengths.full_speed)
            measured["full_speed_old_snapshot_end"] = _drive(serving, lengths, lengths.normal / 2)
            measured["paced_old_snapshot"] = _drive(serving, lengths, lengths.paced, RATE)
    measured["finished"] = {"runs": _copy_finished(stage, lengths.finished)}
    measured |= _beside_a_fresh_one(stage, lengths)
    stage.cluster.drop(DATABASE)


def _beside_a_fresh_one(stage: Stage, lengths: Lengths) -> dict[str, Metrics]:
    """Old and new database in turn, since the machine itself is not always as fast; medians."""
    seconds = lengths.normal / 4
    stage.queue(FRESH, round(2 * TURNS * (seconds + lengths.warm_up) * JOBS_PER_SECOND))
    measured: dict[str, list[Metrics]] = {}
    with stage.serving_on(FRESH) as fresh, stage.serving_on(DATABASE) as old:
        for name, agents in (("one_agent", 1), ("full_speed", AGENTS)) * TURNS:
            for kind, serving in (("fresh", fresh), ("finished", old)):
                measured.setdefault(f"{name}_{kind}", []).append(
                    _drive(serving, lengths, seconds, agents=agents)
                )
    stage.cluster.drop(FRESH)
    return {name: _medians(rounds) for name, rounds in measured.items()}


def _medians(rounds: list[Metrics]) -> Metrics:
    return {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}


def _copy_finished(stage: Stage, wanted: int) -> float:
    """Copies what was completed until it is as much as wanted; how much there is."""
    stage.cluster.execute(DATABASE, KEEP_UP)
    [worked] = stage.cluster.ask(DATABASE, COMPLETED)
    with psycopg.connect(stage.cluster.conninfo(DATABASE)) as connection:
        connection.execute("set local session_replication_role = replica")
        connection.execute(FINISHED.encode())
        connection.execute("select pg_temp.copy_finished(%s)", [max(1, -(-wanted // worked) - 1)])
    stage.cluster.execute(DATABASE, "vacuum (analyze);\ncheckpoint;\n")
    [runs] = stage.cluster.ask(DATABASE, COMPLETED)
    return float(runs)


def _drive(
    serving: Run, lengths: Lengths, seconds: float, rate: float = 0, agents: int = AGENTS
) -> Metrics:
    return serving.drive("work", agents, seconds=seconds, warm_up=lengths.warm_up, rate=rate)


@contextmanager
def held_snapshot(conninfo: str) -> Iterator[None]:
    """A transaction that somebody forgot: what it may still see, nothing clears away."""
    with psycopg.connect(conninfo) as forgotten:
        # A cluster that ends forgotten transactions by itself is not to end this one.
        forgotten.execute("set local idle_in_transaction_session_timeout = 0")
        forgotten.execute("set transaction isolation level repeatable read")
        forgotten.execute("select count(*) from workspace")
        yield
        forgotten.rollback()
