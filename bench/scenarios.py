"""What is measured: each scenario runs once a round and answers its numbers."""

import http.client
import time
from collections.abc import Callable
from typing import Final

import msgspec

from bench.processes import START_SECONDS
from bench.stage import BULK, EMPTY, FILLED, PAYLOAD, Metrics, Run, Stage, bulk, idle, percentiles

Scenario = Callable[[Stage], Metrics]

PICKUPS: Final = 200
# Long enough that the server has put the claim aside and sleeps.
PAUSE_SECONDS: Final = 0.01
TASK: Final = msgspec.json.encode(
    {"title": "Do it", "payload": PAYLOAD, "auto_enqueue_on_ready": True}
).decode()


def jobs(agents: int, servers: int = 1) -> Scenario:
    """Claim and complete, one by one."""

    def run(stage: Stage) -> Metrics:
        with stage.serving(FILLED, servers) as serving:
            return serving.drive("work", agents)

    return run


def chained(stage: Stage) -> Metrics:
    """64 agents complete and claim the next run in one request, as agent_sdk's worker does."""
    with stage.serving(FILLED) as serving:
        return serving.drive("chain", 64)


def batches(stage: Stage) -> Metrics:
    """Claims of 100 runs and bulk completions of 100, by 4 agents."""
    with stage.serving(FILLED) as serving:
        return serving.drive("work", 4, '{"max_runs":100}')


def heartbeats(stage: Stage) -> Metrics:
    """256 agents hold a lease each and renew it."""
    with stage.serving(FILLED) as serving:
        return serving.drive("hold", 256)


def creations(stage: Stage) -> Metrics:
    """64 callers create tasks, one by one."""
    with stage.serving(EMPTY) as serving:
        return serving.drive("create", 64, TASK)


def bulk_creation(stage: Stage) -> Metrics:
    """One request creates 10,000 tasks with 20,000 edges, on a server that has just started."""
    body = bulk(BULK, woven=True)
    with stage.serving(EMPTY) as serving:
        began = time.perf_counter()
        serving.post("/api/tasks/bulk", body)
        return {"seconds": time.perf_counter() - began}


def pickup(stage: Stage) -> Metrics:
    """A claim waits on an idle queue: from sending a task to the claim's answer."""
    with stage.serving(EMPTY) as serving:
        waiting = _connect(serving)
        creating = _connect(serving)
        rounds = PICKUPS if stage.seconds > 1 else PICKUPS // 4
        took = [_pick_up(serving, waiting, creating) for _ in range(rounds + 10)]
    return percentiles(took)


def _connect(serving: Run) -> http.client.HTTPConnection:
    port = serving.running[0].port
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_SECONDS)
    connection.connect()
    return connection


def _pick_up(
    serving: Run, waiting: http.client.HTTPConnection, creating: http.client.HTTPConnection
) -> float:
    headers = serving.headers
    waiting.request("POST", "/api/agent/tasks/claim-next", '{"wait_seconds":20}', headers)
    time.sleep(PAUSE_SECONDS)
    began = time.perf_counter()
    creating.request("POST", "/api/tasks", TASK, headers)
    claim = waiting.getresponse()
    took = (time.perf_counter() - began) * 1e3
    lease = msgspec.json.decode(claim.read())["claim"]["lease"]
    creating.getresponse().read()
    end = {"claim_token": lease["claim_token"]}
    path = f"/api/agent/tasks/{lease['run_id']}/complete"
    waiting.request("POST", path, msgspec.json.encode(end), headers)
    waiting.getresponse().read()
    return took


def depth(queued: int, agents: int) -> Scenario:
    """Claim and complete with this many runs in the queue; few enough that it stays that deep."""

    def run(stage: Stage) -> Metrics:
        database = f"bench_depth_{queued}"
        stage.queue(database, queued)
        # At most a quarter of a short queue is taken in a round, a claim and a completion each.
        requests = min(queued // 2, 20_000)
        with stage.serving_on(database) as serving:
            return serving.drive("work", agents, requests=requests, warm_up=0.2)

    return run


def yardstick(stage: Stage) -> Metrics:
    """The same work in PostgreSQL alone."""
    length = f"--time={max(1, round(stage.seconds))}"
    return {"per_second": stage.cluster.pgbench("single.sql", length)}


def batch_yardstick(stage: Stage) -> Metrics:
    """The same work in PostgreSQL alone, a hundred at once; as long as the table lasts."""
    return {"per_second": 100 * stage.cluster.pgbench("batch.sql", "--transactions=170")}


def idleness(stage: Stage) -> Metrics:
    """A server with a queue and nobody who asks."""
    with stage.serving(FILLED) as serving:
        return idle(serving, 2 * stage.seconds)


SCENARIOS: Final[dict[str, Scenario]] = {
    "pgbench": yardstick,
    "jobs_64": jobs(64),
    "jobs_1": jobs(1),
    "jobs_16": jobs(16),
    "jobs_256": jobs(256),
    "jobs_64_chained": chained,
    "jobs_64_two_servers": jobs(64, 2),
    "jobs_256_two_servers": jobs(256, 2),
    "batch": batches,
    "pgbench_batch": batch_yardstick,
    "heartbeat": heartbeats,
    "create": creations,
    "bulk_10000": bulk_creation,
    "pickup": pickup,
    "idle": idleness,
    "queued_1k": depth(1_000, 1),
    "queued_100k": depth(100_000, 1),
    "queued_1m": depth(1_000_000, 1),
    "queued_1m_64": depth(1_000_000, 64),
}
