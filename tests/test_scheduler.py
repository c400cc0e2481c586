"""Pause and resume of the scheduler: while it is paused nothing is claimed, nothing else stops."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.client import Client
from tests.crowd import Line, crowd, request
from tests.factories import Agent, Workspace, refused
from tests.streams import subscribed
from tests.world import Servers, World


def _switch(workspace: Workspace, how: str, **body: Any) -> Any:
    return workspace.operator.post(f"/api/scheduler/{how}", **body).scheduler


def _all(world: World, how: str) -> Any:
    return world.admin.post(f"/api/scheduler/{how}?workspace=*").scheduler


def test_nothing_is_claimed_while_the_scheduler_is_paused(
    workspace: Workspace, agent: Agent
) -> None:
    """P6."""
    task = workspace.task()
    status = _switch(workspace, "pause", reason="a fire")
    told = (status.paused, status.paused_scope, status.paused_reason)
    assert told == (True, "workspace", "a fire")
    assert status.paused_by.startswith("human:")
    assert agent.claims() == []
    [reason] = workspace.operator.get(f"/api/tasks/{task.id}/explain").explain.reasons
    assert (reason.code, reason.evidence["paused_scope"]) == ("scheduler_paused", "workspace")
    status = _switch(workspace, "resume")
    assert (status.paused, status.paused_by, status.paused_scope) == (False, None, None)
    assert agent.claim().task_id == task.id


def test_a_claim_by_hand_is_refused_while_the_scheduler_is_paused(workspace: Workspace) -> None:
    task = workspace.task()
    _switch(workspace, "pause")
    told = workspace.operator.get(f"/api/tasks/{task.id}/inspect").inspect
    assert (told.scheduler.paused, told.next_action) == (True, "waiting_for_gate")
    run_id = told.current_run.run_id
    with workspace.unchanged(), refused(409, "run_not_claimable", reasons=["scheduler_paused"]):
        workspace.operator.post(f"/api/task-runs/{run_id}/claim")


def test_what_is_held_goes_on_while_the_scheduler_is_paused(
    workspace: Workspace, agent: Agent
) -> None:
    """P5, P7: heartbeats, repeated claims, completions; what becomes runnable is queued."""
    ids = workspace.graph({"a": [], "b": ["a"]})
    held = agent.claim("k1")
    _switch(workspace, "pause")
    assert agent.claim("k1").token == held.token
    held.call("heartbeat")
    held.complete()
    explained = workspace.operator.get(f"/api/tasks/{ids['b']}/explain").explain
    assert [reason.code for reason in explained.reasons] == ["scheduler_paused"]
    assert agent.claims() == []
    _switch(workspace, "resume")
    assert agent.claim().task_id == ids["b"]


def test_a_lease_that_lapses_while_the_scheduler_is_paused_is_swept(
    world: World, workspace: Workspace, agent: Agent
) -> None:
    workspace.task()
    agent.claim(lease_seconds=60)
    _switch(workspace, "pause")
    world.advance(61)
    assert workspace.sweep() == 1


def test_a_pause_is_told_again_and_a_resume_of_what_goes_on_is_not(workspace: Workspace) -> None:
    _switch(workspace, "pause", reason="one")
    assert _switch(workspace, "pause", reason="two").paused_reason == "two"
    _switch(workspace, "resume", reason="done")
    _switch(workspace, "resume")
    events = [e for e in workspace.events() if e.event_type.startswith("scheduler.")]
    told = [(e.event_type, e.payload["previous_paused"], e.payload["reason"]) for e in events]
    assert told == [
        ("scheduler.paused", False, "one"),
        ("scheduler.paused", True, "two"),
        ("scheduler.resumed", True, "done"),
    ]
    assert {(e.task_id, e.payload["scope"], e.payload["manual"]) for e in events} == {
        (None, "workspace", True)
    }


def test_a_resume_wakes_claims_that_wait_at_every_server(
    world: World, workspace: Workspace, servers: Servers
) -> None:
    agents = [workspace.agent(), workspace.agent()]
    far = servers.start()
    agents[1].http = far.http
    for _ in agents:
        workspace.task()
    _switch(workspace, "pause")
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(agent.claim, wait_seconds=30) for agent in agents]
        world.until_waiting()
        world.until_waiting(1, Client(far.http, world.admin.key))
        began = time.monotonic()
        _switch(workspace, "resume")
        assert len({held.result().run_id for held in waiting}) == 2
        assert time.monotonic() - began < 1


async def _claims(line: Line, claim: bytes, ended: list[bool]) -> int:
    count = 0
    while not ended:
        count += (await line.ask(claim)).status == 200
    return count


async def _pauses(line: Line, claim: bytes, pause: bytes, ended: list[bool], world: World) -> int:
    for _ in range(5):
        await line.ask(claim)
    reply = await line.ask(pause)
    [[count]] = world.db.execute("select count(*) from lease")
    ended.append(True)
    assert reply.status == 200
    return int(count)


def test_no_claim_commits_behind_the_answer_of_a_pause(lonely: World, alone: Servers) -> None:
    """P6: claims at full speed on two servers; the log has none behind the pause."""
    workspace = lonely.workspace()
    # Some share slots: those that a claim could not take have to stay in their contest.
    items: list[Any] = [{"ref": f"{n}", "title": "t"} for n in range(3000)]
    items += [{"ref": f"k{n}", "title": "t", "concurrency_key": f"{n % 9}"} for n in range(90)]
    workspace.operator.post("/api/tasks/bulk", tasks=items)
    urls = [lonely.server.url, alone.start().server.url]
    claim = request(workspace.agent(), "POST", "/api/agent/tasks/claim-next", {})
    pause = request(workspace.operator, "POST", "/api/scheduler/pause", {})
    with crowd(urls, 17) as callers:
        for _ in range(5):
            ended: list[bool] = []
            *lines, last = callers.lines
            lives = [_claims(line, claim, ended) for line in lines]
            told = callers.together([*lives, _pauses(last, claim, pause, ended, lonely)])
            events = workspace.log()
            paused = max(e.sequence for e in events if e.event_type == "scheduler.paused")
            claimed = [e.sequence for e in events if e.event_type == "task.run_claimed"]
            assert max(claimed) < paused
            assert len(claimed) == told[-1]
            _switch(workspace, "resume")
    assert workspace.faults() == {}


@pytest.mark.parametrize(
    ("role", "code"), [("viewer", "forbidden"), ("agent", "forbidden_operator_action")]
)
def test_who_may_not_pause_is_refused(workspace: Workspace, role: str, code: str) -> None:
    client = workspace.agent() if role == "agent" else workspace.client(role)
    assert client.get("/api/scheduler").scheduler.paused is False
    with refused(403, code):
        client.post("/api/scheduler/pause")


def test_all_workspaces_are_for_admins(workspace: Workspace) -> None:
    """P12."""
    with refused(404, "workspace_not_found"):
        workspace.operator.get("/api/scheduler", workspace="*")
    with refused(404, "workspace_not_found"):
        workspace.operator.post("/api/scheduler/pause?workspace=*")
    with refused(404, "workspace_not_found"):
        workspace.operator.post("/api/scheduler/pause", workspace="*")


def test_a_body_may_name_the_workspaces_that_are_stopped(lonely: World) -> None:
    one, other = lonely.workspace(), lonely.workspace()
    for each in (one, other):
        each.task()
    pause = "/api/scheduler/pause"
    assert lonely.admin.post(pause, workspace=one.name).scheduler.paused_scope == "workspace"
    assert (one.agent().claims(), len(other.agent().claims())) == ([], 1)
    assert lonely.admin.post(pause, workspace="*").scheduler.paused_scope == "all"
    with refused(422, "validation_failed"):
        lonely.admin.post(f"{pause}?workspace={one.name}", workspace="*")


@pytest.mark.parametrize(("query", "body"), [("default", "*"), ("*", "default")])
def test_all_workspaces_are_not_the_default_one(lonely: World, query: str, body: str) -> None:
    with refused(422, "validation_failed"):
        lonely.admin.post(f"/api/scheduler/pause?workspace={query}", workspace=body)
    assert not lonely.admin.get("/api/scheduler?workspace=*").scheduler.paused


def test_one_switch_stops_all_workspaces(lonely: World) -> None:
    one, two = lonely.workspace(), lonely.workspace()
    tasks = [each.task() for each in (one, two)]
    status = _all(lonely, "pause")
    assert (status.paused_scope, status.queued_run_count) == ("all", 2)
    late = lonely.workspace()
    late.task()
    for each in (one, two, late):
        assert each.agent().claims() == []
        assert _switch(each, "resume").paused_scope == "all"
    assert {each.told()[-1] for each in (one, two)} == {"scheduler.paused"}
    assert _all(lonely, "resume").paused is False
    assert [each.agent().claim().task_id for each in (one, two)] == [task.id for task in tasks]
    [event] = one.events(event_type="scheduler.resumed")
    assert event.payload["scope"] == "all"
    assert [each.faults() for each in (one, two, late)] == [{}, {}, {}]


def test_a_workspace_stays_paused_when_all_others_go_on(lonely: World) -> None:
    workspace = lonely.workspace()
    workspace.task()
    _switch(workspace, "pause")
    _all(lonely, "pause")
    assert _switch(workspace, "pause").paused_scope == "workspace"
    _all(lonely, "resume")
    assert workspace.agent().claims() == []
    assert lonely.admin.get("/api/scheduler", workspace="*").scheduler.paused is False


def test_a_workspace_that_is_held_up_keeps_a_pause_of_all_from_holding_up_the_others(
    lonely: World,
) -> None:
    one, two = lonely.workspace(), lonely.workspace()
    with one.locked("log"), refused(503, "database_unavailable"):
        _all(lonely, "pause")
    two.task()
    two.agent().claim()
    assert _all(lonely, "pause").paused


def test_a_session_is_told_at_once_that_its_scheduler_stops_and_goes_on(
    workspace: Workspace, agent: Agent
) -> None:
    with subscribed(agent, "/api/agent/stream") as stream:
        stream.until("ready")
        _switch(workspace, "pause")
        _switch(workspace, "pause")
        told = stream.next()
        assert told is not None
        assert (told.data.paused, told.data.scope, told.data.task_id) == (True, "workspace", None)
        _switch(workspace, "resume")
        told = stream.next()
        assert told is not None
        assert told.data.paused is False


def test_a_session_that_comes_is_told_whether_its_scheduler_is_paused(
    workspace: Workspace, agent: Agent
) -> None:
    for how, paused in (("pause", True), ("resume", False)):
        _switch(workspace, how)
        with subscribed(agent, "/api/agent/stream") as stream:
            frame = stream.next()
            assert frame is not None
            assert frame.data.scheduler_paused is paused


def test_inspect_tells_who_paused_the_scheduler_and_why(workspace: Workspace) -> None:
    task = workspace.task()
    status = _switch(workspace, "pause", reason="a fire")
    told = workspace.operator.get(f"/api/tasks/{task.id}/inspect").inspect.scheduler
    assert (told.paused_by, told.paused_at, told.reason) == (
        status.paused_by, status.paused_at, "a fire",
    )  # fmt: skip
    assert told.updated_at == told.paused_at
    _switch(workspace, "resume")
    told = workspace.operator.get(f"/api/tasks/{task.id}/inspect").inspect.scheduler
    assert (told.paused, told.reason) == (False, None)
    assert told.updated_at > status.paused_at


def test_the_numbers_of_the_scheduler_are_those_of_its_runs_and_tasks(
    world: World, workspace: Workspace, agent: Agent
) -> None:
    workspace.task(max_lease_expiries=1)
    agent.claim(lease_seconds=60)
    world.advance(61)
    workspace.sweep()
    for _ in range(4):
        workspace.task()
    agent.claim().call("heartbeat")
    agent.claim()
    paused = workspace.task()
    workspace.operator.post(f"/api/tasks/{paused.id}/pause", reason="x")
    workspace.task(available_at="2999-01-01T00:00:00Z")
    status = workspace.operator.get("/api/scheduler").scheduler
    assert (status.active_claim_count, status.queued_run_count) == (2, 4)
    assert (status.needs_attention_run_count, status.paused_task_count) == (1, 1)
