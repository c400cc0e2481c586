"""Metrics that tell how long things took, and how much there was."""

import re
from collections import Counter

import pytest

from server import telemetry
from server.loops import digests
from tests.client import Client
from tests.factories import Workspace, refused
from tests.streams import subscribed
from tests.world import World


def _read(by: Client, name: str) -> float:
    """One number of the server's metrics; 0 if it has none yet."""
    found = re.search(rf"^{re.escape(name)} (\S+)$", by.get("/metrics"), re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_a_claim_tells_how_long_its_run_had_waited(world: World, workspace: Workspace) -> None:
    name = 'worklease_queue_latency_seconds_{}{{priority="high"}}'
    count, total = (_read(world.admin, name.format(part)) for part in ("count", "sum"))
    workspace.task(priority="high")
    world.advance(40)
    workspace.agent().claim("k1")
    assert _read(world.admin, name.format("count")) == count + 1
    assert 40 <= _read(world.admin, name.format("sum")) - total < 100


@pytest.mark.parametrize(("how", "outcome"), [("complete", "completed"), ("fail", "failed")])
def test_the_end_of_a_run_tells_how_long_it_was_held(
    world: World, workspace: Workspace, how: str, outcome: str
) -> None:
    name = f'worklease_run_duration_seconds_{{}}{{{{outcome="{outcome}"}}}}'
    count, total = (_read(world.admin, name.format(part)) for part in ("count", "sum"))
    workspace.task()
    held = workspace.agent().claim()
    world.advance(40)
    for _ in range(2):
        held.complete() if how == "complete" else held.fail()
    assert _read(world.admin, name.format("count")) == count + 1
    assert 40 <= _read(world.admin, name.format("sum")) - total < 100


def test_waits_for_a_connection_are_measured(world: World) -> None:
    before = _read(world.admin, "worklease_db_pool_wait_seconds_count")
    world.admin.get("/api/tasks")
    assert _read(world.admin, "worklease_db_pool_wait_seconds_count") > before


def test_each_event_is_counted_once_by_whichever_server(lonely: World) -> None:
    def counted() -> float:
        text = telemetry.exposition().decode()
        return float(re.findall(r"^worklease_events_written_total (\S+)$", text, re.MULTILINE)[0])

    workspace = lonely.workspace()
    lonely.run(digests.run_once)
    before, events = counted(), len(workspace.log())
    workspace.task()
    for _ in range(2):
        lonely.run(digests.run_once)
    assert counted() - before == len(workspace.log()) - events == 2


def _ended() -> Counter[tuple[str, str]]:
    each = re.compile(
        r'^worklease_runs_ended_total{failure_kind="(.*)",outcome="(.*)"} (\S+)$', re.M
    )
    found = each.findall(telemetry.exposition().decode())
    return Counter({(outcome, kind): int(float(count)) for kind, outcome, count in found})


def test_each_end_of_a_run_is_counted_once_however_it_came(lonely: World) -> None:
    workspace = lonely.workspace()
    agent, runs, tasks = workspace.agent(), "/api/runs", "/api/tasks"
    lonely.run(digests.run_once)
    before = _ended()
    agent.work(workspace.task(max_attempts=1).id, "complete")
    for kind in ("error", "no_such_file"):
        workspace.task(max_attempts=1)
        agent.claim().fail(failure_kind=kind)
    workspace.task(deadline_seconds=5, max_attempts=1)
    agent.claim()
    lonely.advance(6)
    workspace.sweep()
    for how in (f"{runs}/{{run}}/fail", "/api/task-runs/{run}/cancel", f"{tasks}/{{task}}/cancel"):
        task = workspace.task(max_attempts=1)
        path = how.format(run=agent.claim().run_id, task=task.id)
        workspace.operator.post(path, reason="enough")
    lonely.run(digests.run_once)
    assert _ended() - before == {
        ("completed", ""): 1, ("failed", "error"): 1, ("failed", "other"): 1,
        ("failed", "deadline_exceeded"): 1, ("failed", "operator_forced"): 1, ("canceled", ""): 2,
    }  # fmt: skip


def test_refusals_of_waits_beyond_the_quota_are_counted(world: World) -> None:
    own = world.workspace(max_streams=1, max_waiting_claims=1)
    name = "worklease_rate_limited_total"
    before = _read(world.admin, name)
    with subscribed(own.operator, "/api/observe/stream"), refused(429, "rate_limited", limit=1):
        own.operator.get("/api/observe/stream")
    assert _read(world.admin, name) == before + 1
