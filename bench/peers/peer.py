"""The peers: which program speaks for each, and what its tables say.

A program is called with the database's URL, a verb and an argument:

    setup -       makes its tables
    fill N        queues N jobs that do nothing, with its bulk call
    work HOW      works on them until it is killed; `single` or `batch`
    pickup N      works on an idle queue, queues a job N times, prints `took MS` for each
    send -        queues the job that is held
    hold -        works on that: prints `began`, waits for a line of input, prints `ended`
"""

import sys
from typing import Final, LiteralString, NamedTuple

from bench.peers.environments import HOME, NODE, PROGRAMS, PYTHON


class Peer(NamedTuple):
    """A queue that is measured; of `fills`, the jobs queued for each way to work."""

    name: str
    command: tuple[str, ...]
    fills: dict[str, int]
    # How many jobs are not done, and whether the held one is.
    left: LiteralString
    held_is_done: LiteralString
    # What has to be done to a lock that nobody can wait for.
    age: LiteralString | None = None


PEERS: Final = (
    Peer(
        "procrastinate", (str(PYTHON), str(HOME / "procrastinate_jobs.py")), {"single": 10_000},
        "select count(*) from procrastinate_jobs where status in ('todo', 'doing')",
        "select bool_and(status = 'succeeded') from procrastinate_jobs where queue_name = 'hold'",
    ),
    Peer(
        "pgqueuer", (str(PYTHON), str(HOME / "pgqueuer_jobs.py")),
        {"single": 15_000, "batch": 60_000},
        "select count(*) from pgqueuer",
        "select count(*) = 0 from pgqueuer where entrypoint = 'hold'",
    ),
    Peer(
        "pg-boss", (str(NODE), str(HOME / "pgboss.mjs")), {"single": 20_000, "batch": 120_000},
        "select count(*) from pgboss.job where name = 'nothing' and state < 'completed'",
        "select bool_and(state = 'completed') from pgboss.job where name = 'hold'",
    ),
    Peer(
        "graphile-worker", (str(NODE), str(HOME / "graphile.mjs")),
        {"single": 40_000, "batch": 120_000},
        "select count(*) from graphile_worker._private_jobs",
        "select count(*) = 0 from graphile_worker.jobs where task_identifier = 'hold'",
        "update graphile_worker._private_jobs set locked_at = locked_at - interval '4 hours'",
    ),
)  # fmt: skip
WORKLEASE: Final = Peer(
    "Worklease, agent_sdk", (sys.executable, str(PROGRAMS / "worklease_jobs.py")),
    {"single": 15_000},
    "select count(*) from task where title = 'nothing' and status <> 'completed'",
    "select bool_and(status = 'completed') from task where title = 'hold'",
)  # fmt: skip
