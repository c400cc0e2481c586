"""The digests: kept behind the log by any number of servers, whatever happens to these."""

from concurrent.futures import ThreadPoolExecutor

import psycopg

from server import telemetry
from server.loops import digests
from tests import books, recount
from tests.factories import Agent, Workspace
from tests.world import World

KEEP = "select events from keep_digests(%s, %s)"
POSITION = "select sequence from digest_position where workspace_id = %s"


def history(workspace: Workspace, agent: Agent) -> None:
    """Tasks that were made, ended, failed and started again."""
    for n in range(5):
        first = workspace.task(max_attempts=1)
        workspace.task(depends_on=[first.id], owner={"kind": "pool", "ref": f"p{n % 2}"})
        agent.work(first.id, "fail" if n % 2 else "complete")


def counted(workspace: Workspace) -> None:
    """Everything is counted as it is."""
    assert workspace.miscounts() == {}


def test_numbers_are_exact_at_any_lag(workspace: Workspace, agent: Agent) -> None:
    history(workspace, agent)
    newest = workspace.events()[-1].sequence
    for _ in range(newest):
        workspace.world.db.execute(KEEP, [workspace.id, 1])
        counted(workspace)
    assert workspace.world.db.execute(POSITION, [workspace.id]).fetchone() == (newest,)


def test_a_pass_that_is_not_committed_is_made_again(workspace: Workspace, agent: Agent) -> None:
    history(workspace, agent)
    with psycopg.connect(workspace.world.server.conninfo) as crashed:
        crashed.execute(KEEP, [workspace.id, 10])
        crashed.rollback()
    counted(workspace)
    workspace.world.keep_digests()
    counted(workspace)


def test_one_server_at_a_time_keeps_a_workspace(workspace: Workspace, agent: Agent) -> None:
    """The other one passes by, and waits for nothing."""
    history(workspace, agent)
    workspace.world.db.execute(KEEP, [workspace.id, 1])
    with psycopg.connect(workspace.world.server.conninfo) as slow:
        slow.execute(KEEP, [workspace.id, 5])
        assert workspace.world.db.execute(KEEP, [workspace.id, 100]).fetchone() == (0,)
    workspace.world.keep_digests()
    counted(workspace)


def test_servers_that_keep_at_once_count_nothing_twice(workspace: Workspace, agent: Agent) -> None:
    conninfo = workspace.world.server.conninfo

    def keep(_: int) -> None:
        with psycopg.connect(conninfo, autocommit=True) as db:
            for _ in range(20):
                db.execute(KEEP, [workspace.id, 3])

    with ThreadPoolExecutor(3) as servers:
        kept = servers.map(keep, range(3))
        history(workspace, agent)
        list(kept)
    counted(workspace)
    workspace.world.keep_digests()
    counted(workspace)


def test_a_dependent_follows_while_digests_lag_between_two_turns(
    workspace: Workspace, agent: Agent
) -> None:
    """What it waits for fails and is retried; the pass that meets the dependent sees the middle."""
    first = workspace.task(max_attempts=1)
    second = workspace.task(depends_on=[first.id])
    workspace.world.keep_digests()
    workspace.operator.patch(f"/api/tasks/{second.id}", title="touched")
    agent.work(first.id, "fail")
    workspace.world.db.execute(KEEP, [workspace.id, 1])
    run = workspace.operator.get(f"/api/tasks/{first.id}/runs").runs[0]
    workspace.operator.post(f"/api/runs/{run.id}/retry")
    agent.work(first.id)
    workspace.world.keep_digests()
    counted(workspace)


def test_retention_keeps_what_the_digests_have_not_come_to(world: World) -> None:
    workspace = world.workspace(event_retention_days=1)
    task = workspace.task()
    world.advance(2 * 86400)
    workspace.operator.patch(f"/api/tasks/{task.id}", title="new")
    forget = "select forget_events(%s, 100)"
    assert world.db.execute(forget, [workspace.id]).fetchone() == (0,)
    world.keep_digests()
    [deleted] = world.db.execute(forget, [workspace.id]).fetchone() or [0]
    assert deleted > 0
    counted(workspace)


def test_a_review_that_nobody_takes_is_a_persons(world: World) -> None:
    workspace = world.workspace(stranded_seconds=60)
    task = workspace.task(review_policy="on_success")
    workspace.agent().claim().complete()
    world.keep_digests()
    path = "/api/observe/tasks/inbox"
    told = workspace.operator.get(path, lane="approvals").inbox
    assert told.total == 0
    world.advance(61)
    for _ in range(2):
        [group] = workspace.operator.get(path, lane="approvals").inbox.groups
        assert [(i.task.id, i.blocking_reason) for i in group.items] == [
            (task.id, "review_pending")
        ]
        counted(workspace)
        world.keep_digests()
    workspace.agent("judge").post("/api/agent/reviews/claim-next")
    assert workspace.operator.get(path, lane="approvals").inbox.total == 0
    counted(workspace)


def test_the_gauges_tell_what_there_is(lonely: World) -> None:
    workspace = lonely.workspace()
    workspace.task(priority="high")
    workspace.task(draft=True)
    lonely.advance(5)
    workspace.agent().claim(lease_seconds=60)
    workspace.task()
    lonely.advance(31)
    lonely.keep_digests()
    lonely.run(digests.measure)
    told = telemetry.exposition().decode()
    for line in (
        'worklease_tasks{status="ready"} 1.0', 'worklease_tasks{status="draft"} 1.0',
        'worklease_runs{status="claimed"} 1.0', 'worklease_runs{status="failed"} 0.0',
        'worklease_queue_depth{priority="medium"} 1.0', "worklease_stuck_runs 1.0",
    ):  # fmt: skip
        assert line in told
    assert 'worklease_queue_oldest_age_seconds{priority="medium"} 3' in told


def test_a_digest_is_the_same_however_its_runs_are_found(
    workspace: Workspace, agent: Agent, world: World
) -> None:
    """They lie in the table in any order, and are read in any order."""
    task = workspace.task(max_attempts=2, retry={"strategy": "none"})
    first = agent.work(task.id, "fail")
    agent.work(task.id)
    world.keep_digests()
    # Its row lies behind that of the second from here on.
    world.db.execute("update run set lane_id = lane_id where run_id = %s", [first.run_id])
    with psycopg.connect(world.server.conninfo) as own:
        own.execute("set enable_indexscan = off; set enable_bitmapscan = off")
        assert books.faults(own, workspace.id, recount.RULES) == {}
