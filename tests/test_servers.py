"""Several servers on one database are one: what one does, the others know."""

import time
from concurrent.futures import ThreadPoolExecutor
from statistics import median

from tests.client import Client
from tests.factories import Workspace
from tests.streams import subscribed
from tests.world import Servers, World


def test_an_event_of_one_server_reaches_a_stream_of_another(
    world: World, workspace: Workspace, servers: Servers
) -> None:
    """P9: at once, and in the order of the log, whichever server wrote it."""
    task = workspace.task()
    far = Client(servers.start().http, workspace.operator.key)
    with subscribed(far, f"/api/tasks/{task.id}/stream") as stream:
        seen = stream.until("ready")
        for n in range(20):
            by = far if n % 2 else workspace.operator
            by.patch(f"/api/tasks/{task.id}", title=f"title {n}")
            frame = stream.next()
            assert frame is not None
            seen.append(frame)
    assert [frame.id for frame in seen] == [
        event.sequence for event in workspace.events(task_id=task.id)
    ]


def test_a_claim_that_waits_at_one_server_gets_what_another_makes(
    world: World, workspace: Workspace, servers: Servers
) -> None:
    """P7: and at once; the poll for lost hints comes once in 2 s, so not soon most of the time."""
    far = Client(servers.start().http, workspace.operator.key)
    agent, waits = workspace.agent(), []
    with ThreadPoolExecutor(1) as pool:
        for _ in range(9):
            claim = pool.submit(agent.claim, wait_seconds=30)
            world.until_waiting()
            began = time.monotonic()
            task = far.post("/api/tasks", title="t", auto_enqueue_on_ready=True).task
            assert claim.result().task_id == task.id
            waits.append(time.monotonic() - began)
    assert median(waits) < 0.4


def test_servers_that_sweep_at_once_end_each_lease_once(
    world: World, workspace: Workspace, servers: Servers
) -> None:
    """P8, P10: an expiry is told and counted once, however many servers look for it."""
    for _ in range(100):
        workspace.task()
    held = workspace.agent().claims(max_runs=100, lease_seconds=5)
    world.swept_now()
    world.advance(6)
    for _ in range(3):
        servers.start(WORKLEASE_LOOPS=True, WORKLEASE_SWEEP_SECONDS=0.1, WORKLEASE_SWEEP_BATCH=7)
    workspace.until_swept()
    told = workspace.events(event_type="task.run_lease_expired")
    assert sorted(event.run_id for event in told) == sorted(h.run_id for h in held)
    assert {workspace.run(h.run_id).lease_expiries for h in held} == {1}


def test_a_lease_of_one_server_is_good_at_another(workspace: Workspace, servers: Servers) -> None:
    """P2, P5: so are its token and its key; a dead server takes no right with it."""
    workspace.task()
    agent, further = workspace.agent(), servers.start()
    elsewhere = type(agent)(further.http, agent.key, **agent.headers)
    held = elsewhere.claim("k1")
    further.server.kill()
    again = agent.claim("k1")
    assert (again.run_id, again.fence, again.token) == (held.run_id, held.fence, held.token)
    held.by(agent, "heartbeat")
    held.by(agent, "complete", result=1)
    assert workspace.get(held.task_id).status == "completed"


def test_a_later_server_tells_of_no_key_file_that_it_does_not_make(alone: Servers) -> None:
    told = []
    for _ in range(2):
        server = alone.start()
        assert server.http.get("/readyz").status_code == 200
        assert server.server.process.stdout is not None
        told.append(server.server.process.stdout.readline())
    assert b"agent.key" in told[0]
    assert b"none is kept in this data directory" in told[1]
