"""What the SDK does when replies hang, processes fork, keys differ, and stops are cut off."""

import os
import queue
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx2
import pytest

from agent_sdk import (
    ApiError,
    Client,
    ConnectionFailed,
    StreamEvent,
    Verdict,
    WaitFor,
    Worker,
)
from agent_sdk import worker as worker_module
from agent_sdk.lease import END_PATIENCE_SECONDS
from agent_sdk.testing import Server, running
from tests.agents import SOON, event_of, expire, lossy, working
from tests.serving import until


def test_a_reply_that_hangs_is_asked_for_again(
    clients: tuple[Client, Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    """P5: though the time of the call is over by then."""
    operator, _ = clients
    replies, began, clock = lossy(operator, monkeypatch), time.monotonic(), time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: clock() + (31 if replies else 0))
    operator.tasks.create(title="once")
    monkeypatch.undo()
    assert time.monotonic() - began < SOON
    assert len(operator.tasks.list().tasks) == 1


def test_a_redirect_is_no_success(
    clients: tuple[Client, Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = httpx2.Response(301, headers={"Location": "https://elsewhere.example/"})
    monkeypatch.setattr(clients[0].transport._http, "send", lambda request: moved)
    with pytest.raises(ApiError, match="301"):
        clients[0].tasks.delete("task_1")


def _used_ports(client: Client) -> set[int]:
    return {known.getsockname()[1] for known in client.transport._sockets}


def test_a_forked_process_has_connections_of_its_own(clients: tuple[Client, Client]) -> None:
    client, (reads, writes) = clients[1], os.pipe()
    client.whoami()
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            client.whoami()
            os.write(writes, repr(_used_ports(client)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writes)
    ports = os.read(reads, 100).decode()
    assert ports.startswith("{")
    assert not any(str(port) in ports for port in _used_ports(client))
    client.whoami()


def test_another_agent_finds_the_graph_that_was_submitted(worklease: Server) -> None:
    """P5: once per name, whoever asks again."""
    operator, *agents = worklease.workspace("one", "two")
    task = operator.tasks.create(title="plan", retry={"strategy": "none"})
    graph: list[dict[str, Any]] = [{"title": "a"}, {"title": "b", "depends_on_refs": ["0"]}]
    found = []
    for agent in agents:
        lease = agent.claim(priority_min=0)
        while lease is not None and lease.task.id != task.id:
            lease = agent.claim()
        assert lease is not None
        found.append(lease.submit(graph))
        lease.release()
    assert found[0] == found[1]
    assert len(operator.tasks.list().tasks) == 3


def test_claims_go_on_after_one_that_ran_out_before_it_was_seen(
    worklease: Server, clients: tuple[Client, Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    operator, agent = clients
    task = operator.tasks.create(title="late", retry={"strategy": "none"})
    send = agent.transport._http.send

    def lose(request: httpx2.Request) -> httpx2.Response:
        send(request)
        monkeypatch.setattr(agent.transport._http, "send", send)
        expire(worklease, operator, task.id)
        raise httpx2.ReadError("the reply got lost")

    monkeypatch.setattr(agent.transport._http, "send", lose)
    assert [lease.fence for lease in agent.claims(until_empty=True, lease_seconds=5)] == [2]


@pytest.mark.parametrize("how", ["hangs", "refuses"])
def test_waiting_ends_in_time_when_the_server_is_away(how: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        if how == "refuses":
            silent.close()
        began = time.monotonic()
        with (
            Client(url=url, api_key="none") as client,
            pytest.raises((TimeoutError, ConnectionFailed)),
        ):
            client.wait("task_1", timeout=1)
        assert time.monotonic() - began < 4


def test_a_resync_is_waited_behind(
    clients: tuple[Client, Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a task whose events are no longer kept is asked for without a pause."""
    operator, _ = clients
    task, asked = operator.tasks.create(title="old"), list[int]()

    def stream(task_id: str, *, after_sequence: int, until: float) -> Iterator[StreamEvent]:
        asked.append(after_sequence)
        if after_sequence < 1000:
            yield StreamEvent("resync", 1000, reason="retention")

    monkeypatch.setattr(operator.tasks, "stream", stream)
    with pytest.raises(TimeoutError):
        operator.wait(task.id, timeout=0.5)
    assert asked[:2] == [task.latest_event_seq, 1000]


def test_a_verdict_without_a_json_form_is_recorded_as_such(worklease: Server) -> None:
    operator, agent, reviewer = worklease.workspace("worker", "reviewer")
    operator.tasks.create(title="code", review_policy="always")
    lease = agent.claim()
    assert lease is not None
    lease.complete(1)
    odd = Verdict("approved", "fine", float("nan"))
    with working(reviewer, lambda ctx: odd, reviews=True):
        event_of(operator, lease.task.id, "task.run_review_invalid_output")


def _stay(begun: threading.Event, never: threading.Event) -> None:
    begun.set()
    never.wait(2 * SOON)


def test_what_cannot_be_given_back_is_left_to_expire(
    clients: tuple[Client, Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is not kept alive by the client, which lives on."""
    operator, agent = clients
    begun, never, beats = threading.Event(), threading.Event(), Counter[str]()

    def noted(items: Any, **_: Any) -> Any:
        beats.update(item["run_id"] for item in items)
        raise ConnectionFailed("no route")

    monkeypatch.setattr(agent.leases, "release", lambda *_, **__: noted([]))
    stuck = operator.tasks.create(title="stuck")
    with working(agent, lambda ctx: _stay(begun, never), lease_seconds=5, grace_seconds=0):
        assert begun.wait(SOON)
    operator.tasks.create(title="lives")
    monkeypatch.setattr(agent.leases, "bulk_heartbeat", noted)
    lives = agent.claim(lease_seconds=5)
    assert lives is not None
    with lives:
        until(lambda: beats[lives.run.id] > 1)
    never.set()
    assert operator.tasks.get(stuck.id).runs[0].id not in beats


def test_a_completion_on_its_way_is_not_given_back(
    clients: tuple[Client, Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    operator, agent = clients
    on_its_way, given_back, complete = threading.Event(), threading.Event(), agent.leases.complete

    def slow(*told: Any, **more: Any) -> Any:
        on_its_way.set()
        assert given_back.wait(SOON)
        return complete(*told, **more)

    def give_back(lease: Any) -> None:
        release(lease)
        given_back.set()

    release = worker_module._release
    monkeypatch.setattr(worker_module, "_release", give_back)
    monkeypatch.setattr(agent.leases, "complete", slow)
    task = operator.tasks.create(title="done")
    with working(agent, lambda ctx: "done", grace_seconds=0):
        assert on_its_way.wait(SOON)
    assert operator.wait(task.id, timeout=SOON).result == "done"


def test_a_worker_that_stops_claims_nothing_more(
    clients: tuple[Client, Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its session holds leases of others, as another worker of the client does."""
    operator, agent = clients
    operator.tasks.create(title="another's")
    assert agent.claim() is not None
    worker, made = Worker(client=agent), list[str]()
    worker.task(lambda ctx: None)
    has_claimed = worker._duty.has_claimed

    def late(key: str, patience: float) -> bool:
        made.append(operator.tasks.create(title="later").id)
        return has_claimed(key, patience)

    monkeypatch.setattr(worker._duty, "has_claimed", late)
    with running(worker):
        until(lambda: worker._asking is not None)
    [task_id] = made
    kinds = {event.event_type for event in operator.tasks.get(task_id).events}
    assert "task.run_claimed" not in kinds


def test_a_heartbeat_that_hangs_leaves_time_for_another(
    clients: tuple[Client, Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    operator, agent = clients
    times: queue.SimpleQueue[float] = queue.SimpleQueue()

    def hangs(items: Any, *, patience: float, timeout: float) -> Any:
        times.put(timeout)
        raise ConnectionFailed("no answer")

    monkeypatch.setattr(agent.leases, "bulk_heartbeat", hangs)
    operator.tasks.create(title="short")
    lease = agent.claim(lease_seconds=6)
    assert lease is not None
    with lease:
        assert times.get(timeout=SOON) == pytest.approx(2)


def test_waiting_for_children_has_the_patience_of_other_ends(
    clients: tuple[Client, Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    operator, agent = clients
    until, send = list[float](), agent.transport.send

    def noted(method: str, path: str, **how: Any) -> Any:
        until.append(how["patience"]) if path.endswith(("/dependencies", "/release")) else None
        return send(method, path, **how)

    child = operator.tasks.create(title="child", draft=True)
    operator.tasks.create(title="parent")
    lease = agent.claim()
    assert lease is not None
    monkeypatch.setattr(agent.transport, "send", noted)
    with lease:
        raise WaitFor([child])
    assert until == [END_PATIENCE_SECONDS] * 2
