"""The client of the SDK against a real server: the bare form, graphs, waiting, administration."""

import time

import pytest

from agent_sdk import Client, Denied, Graph, Invalid, LeaseLost, NotFound
from agent_sdk.testing import Server
from tests.agents import SOON


def test_nothing_to_do_is_none(clients: tuple[Client, Client]) -> None:
    assert clients[1].claim() is None
    assert list(clients[1].claims(until_empty=True)) == []


def test_the_bare_form_ends_each_run_as_its_block_does(clients: tuple[Client, Client]) -> None:
    operator, agent = clients
    titles = ["explicit", "as set", "by default"]
    ids = operator.submit([{"title": title, "ref": title} for title in titles])
    for lease in agent.claims(until_empty=True):
        with lease:
            if lease.task.title == "explicit":
                lease.complete(1)
            elif lease.task.title == "as set":
                lease.result = 2
    results = [operator.wait(ids[title], timeout=SOON).result for title in titles]
    assert results == [1, 2, None]


def test_an_exception_fails_the_run_and_leaves_the_block(clients: tuple[Client, Client]) -> None:
    operator, agent = clients
    task = operator.tasks.create(title="fails", max_attempts=1)
    lease = agent.claim()
    assert lease is not None
    with pytest.raises(ZeroDivisionError), lease:
        raise ZeroDivisionError("by zero")
    assert operator.wait(task.id, timeout=SOON).status == "failed"


def test_a_graph_runs_in_the_order_of_its_edges(clients: tuple[Client, Client]) -> None:
    operator, agent = clients
    graph = Graph(tags=["test"])
    parse = graph.task("parse")
    graph.task("report", after=[parse, graph.task("lint")])
    ids = operator.submit(graph, key="nightly")
    assert operator.submit(graph, key="nightly") == ids
    order = []
    for lease in agent.claims(until_empty=True):
        with lease:
            order.append(lease.task.title)
            lease.result = [item.depends_on.title for item in lease.inputs()]
    assert order[-1] == "report"
    assert sorted(operator.wait(ids["report"], timeout=SOON).result) == ["lint", "parse"]


def test_waiting_answers_the_whole_result(clients: tuple[Client, Client]) -> None:
    operator, agent = clients
    task = operator.tasks.create(title="large")
    lease = agent.claim()
    assert lease is not None
    lease.complete("x" * 20_000)
    assert operator.wait(task.id, timeout=SOON).result == "x" * 20_000


def test_waiting_ends_when_its_time_is_over(clients: tuple[Client, Client]) -> None:
    task = clients[0].tasks.create(title="nobody's")
    began = time.monotonic()
    with pytest.raises(TimeoutError, match="ready"):
        clients[0].wait(task.id, timeout=1)
    assert 1 <= time.monotonic() - began < 3


def test_a_stream_goes_on_after_the_event_that_was_seen_last(
    clients: tuple[Client, Client],
) -> None:
    """P9: every later event once, in order."""
    operator, agent = clients
    task = operator.tasks.create(title="watched")
    created = next(operator.tasks.stream(task.id))
    assert created.type == "task.created"
    lease = agent.claim()
    assert lease is not None
    lease.complete()
    rest = []
    for event in operator.tasks.stream(task.id, after_sequence=created.sequence):
        if event.type == "ready":
            break
        rest.append(event.type)
    assert rest == ["task.run_enqueued", "task.run_claimed", "task.run_completed"]
    log = list(operator.events.each(task_id=task.id))
    assert [event.event_type for event in log] == ["task.created", *rest]


def test_the_progress_and_usage_of_a_lease_reach_the_task(clients: tuple[Client, Client]) -> None:
    operator, agent = clients
    task = operator.tasks.create(title="reports")
    lease = agent.claim()
    assert lease is not None
    with lease:
        for step in range(1, 5):
            lease.usage(input_tokens=10, tool_calls=1)
            lease.progress(step * 25, f"step {step}")
        lease.checkpoint({"step": 4})
    done = operator.wait(task.id, timeout=SOON)
    assert done.progress
    assert (done.progress.percent, done.progress.message) == (100, "step 4")
    assert (done.usage.input_tokens, done.usage.tool_calls) == (40, 4)


def test_a_fence_can_be_verified_by_others(clients: tuple[Client, Client]) -> None:
    operator, agent = clients
    operator.tasks.create(title="guarded")
    lease = agent.claim()
    assert lease is not None
    assert operator.leases.verify(lease.run.id, lease.fence).current
    lease.release()
    assert not operator.leases.verify(lease.run.id, lease.fence).current
    with pytest.raises(LeaseLost):
        lease.complete()


def test_refusals_have_classes_codes_and_evidence(clients: tuple[Client, Client]) -> None:
    operator, agent = clients
    with pytest.raises(NotFound) as missing:
        operator.tasks.get("task_unknown")
    assert (missing.value.code, missing.value.request_id is not None) == ("task_not_found", True)
    with pytest.raises(Invalid):
        operator.submit([{"title": "a", "depends_on_refs": ["nobody"]}])
    with pytest.raises(Denied):
        agent.keys.list()


def test_an_administrator_makes_keys_and_workspaces(worklease: Server) -> None:
    with worklease.admin as admin:
        name = f"team-{time.monotonic_ns()}"
        workspace = admin.workspaces.create(name, display_name="Team")
        key = admin.keys.create("fleet", "agent", workspace=name, agent_name="fleet-*")
        assert key.secret
        with worklease.client(api_key=key.secret, agent_name="fleet-1") as agent:
            me = agent.whoami()
            assert (me.agent_name, me.role) == ("fleet-1", "agent")
            assert me.workspace
            assert me.workspace.id == workspace.id
            assert admin.keys.rotate(key.id, overlap_seconds=0).secret != key.secret
            admin.keys.revoke(key.id)
    changed = worklease.admin.workspaces.update(name, settings={"default_lease_seconds": 60})
    assert changed.settings["default_lease_seconds"] == 60


def test_the_server_says_who_and_how_it_is(worklease: Server) -> None:
    with worklease.agent as agent:
        assert agent.healthz()
        assert agent.readyz().checks["database"]["ok"]
        assert agent.version().name == "worklease"
        assert agent.whoami().agent_name == "local"


def test_what_a_task_demands_can_be_changed(clients: tuple[Client, Client]) -> None:
    operator, agent = clients
    task = operator.tasks.create(title="demanding")
    assert operator.profiles.get(task.id).created_at is None
    told = operator.profiles.put(task.id, worker={"required_capabilities": ["gpu"]})
    assert told.worker["required_capabilities"] == ["gpu"]
    assert agent.claim() is None
    operator.profiles.delete(task.id)
    assert agent.claim() is not None


def test_an_operator_takes_runs_from_their_holders(clients: tuple[Client, Client]) -> None:
    operator, agent = clients
    operator.submit([{"title": "a"}, {"title": "b"}])
    first, second = agent.claims(until_empty=True)
    assert operator.runs.force_release(first.run.id, reason="mine").status == "queued"
    with pytest.raises(LeaseLost) as lost:
        first.complete()
    assert lost.value.code == "lease_revoked"
    assert operator.runs.force_fail(second.run.id, reason="enough").error == "enough"
    told = operator.runs.bulk("retry", [first.run.id, second.run.id])
    assert [result.ok for result in told] == [False, True]
    assert told[0].error is not None
    assert told[0].error.diagnostic.code == "task_run_still_active"


def test_people_take_one_run_and_end_it(clients: tuple[Client, Client]) -> None:
    operator, agent = clients
    tasks = [operator.tasks.create(title=title) for title in ("a", "b")]
    runs = [operator.tasks.list_runs(task.id).runs[0].id for task in tasks]
    claimed = operator.runs.claim(runs[0], key="mine")
    assert operator.runs.claim(runs[0], key="mine").lease.claim_token == claimed.lease.claim_token
    assert operator.runs.start(runs[0]).status == "running"
    assert [run.id for run in operator.runs.list(status=["running"]).runs] == runs[:1]
    assert operator.runs.complete(runs[0], result=1).result == 1
    operator.runs.claim(runs[1])
    told = operator.runs.attach_session(runs[1], agent.session_id, agent_name="elsewhere")
    assert (told.run.status, told.run.agent_name) == ("starting", "elsewhere")
    [session] = operator.sessions.list(agent_name="elsewhere").sessions
    assert (session.session_id, session.lease_count) == (agent.session_id, 1)
    assert operator.runs.fail(runs[1], error="no", retryable=False).error == "no"
