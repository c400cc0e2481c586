"""AGE: does work stay as fast beside an old snapshot, and beside a million runs that have ended?"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import psycopg

from bench.report import Ratio, of, over
from bench.stage import KEEP_UP, WARM, Metrics, Run, Stage

FINISHED = Path(__file__).with_name("finished.sql").read_text()
AGENTS: Final = 64
RATE: Final = 200.0
# Enough for two minutes at this speed, and for six more at the rate above.
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


def age(stage: Stage, lengths: Lengths) -> dict[str, Metrics]:
    """Measures, first as usual, then with an old snapshot or with runs that have ended."""
    return _beside_an_old_snapshot(stage, lengths) | _beside_finished_runs(stage, lengths)


def _beside_an_old_snapshot(stage: Stage, lengths: Lengths) -> dict[str, Metrics]:
    fast = 2 * lengths.normal + lengths.full_speed + 3 * lengths.warm_up
    paced = lengths.normal + lengths.paced + 2 * lengths.warm_up
    database = "soak_snapshot"
    stage.queue(database, round(fast * JOBS_PER_SECOND + paced * RATE))
    stage.cluster.ask(database, WARM)
    measured: dict[str, Metrics] = {}
    with stage.serving_on(database) as serving:
        measured["full_speed"] = _drive(serving, lengths, lengths.normal)
        measured["paced"] = _drive(serving, lengths, lengths.normal, RATE)
        with held_snapshot(stage.cluster.conninfo(database)):
            measured["full_speed_old_snapshot"] = _drive(serving, lengths, lengths.full_speed)
            measured["full_speed_old_snapshot_end"] = _drive(serving, lengths, lengths.normal / 2)
            measured["paced_old_snapshot"] = _drive(serving, lengths, lengths.paced, RATE)
    stage.cluster.drop(database)
    return measured


def _beside_finished_runs(stage: Stage, lengths: Lengths) -> dict[str, Metrics]:
    database = "soak_finished"
    stage.queue(database, round((2 * lengths.normal + 4 * lengths.warm_up) * JOBS_PER_SECOND))
    stage.cluster.ask(database, WARM)
    measured = _claims(stage, database, lengths, "fresh")
    measured["finished"] = {"runs": _copy_finished(stage, database, lengths.finished)}
    measured |= _claims(stage, database, lengths, "finished")
    stage.cluster.drop(database)
    return measured


def _claims(stage: Stage, database: str, lengths: Lengths, name: str) -> dict[str, Metrics]:
    with stage.serving_on(database) as serving:
        return {
            f"one_agent_{name}": _drive(serving, lengths, lengths.normal / 2, agents=1),
            f"full_speed_{name}": _drive(serving, lengths, lengths.normal / 2),
        }


def _copy_finished(stage: Stage, database: str, wanted: int) -> float:
    """Copies what was completed until it is as much as wanted; how much there is."""
    stage.cluster.execute(database, KEEP_UP)
    [worked] = stage.cluster.ask(database, COMPLETED)
    with psycopg.connect(stage.cluster.conninfo(database)) as connection:
        connection.execute("set local session_replication_role = replica")
        connection.execute(FINISHED.encode())
        connection.execute("select pg_temp.copy_finished(%s)", [max(1, -(-wanted // worked) - 1)])
    stage.cluster.execute(database, "vacuum (analyze);\ncheckpoint;\n")
    [runs] = stage.cluster.ask(database, COMPLETED)
    return float(runs)


def _drive(
    serving: Run, lengths: Lengths, seconds: float, rate: float = 0, agents: int = AGENTS
) -> Metrics:
    options = {"seconds": seconds, "warm_up": lengths.warm_up, "rate": rate}
    return serving.drive("work", agents, **options)


@contextmanager
def held_snapshot(conninfo: str) -> Iterator[None]:
    """A transaction that somebody forgot: what it may still see, nothing clears away."""
    with psycopg.connect(conninfo) as forgotten:
        forgotten.execute("set transaction isolation level repeatable read")
        forgotten.execute("select count(*) from workspace")
        yield
        forgotten.rollback()
