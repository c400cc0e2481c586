"""P5: a lost reply, a server that restarts: the SDK asks again, and nothing is lost or doubled."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from agent_sdk import Client, errors, transport
from agent_sdk.testing import running_server
from tests.agents import SOON, lossy, working


def _claimed(agent: Client) -> Any:
    lease = agent.claim()
    assert lease is not None
    return lease


CALLS: dict[str, tuple[Callable[[Client], Any], Callable[[Client, Any], Any]]] = {
    "create": (lambda agent: None, lambda agent, _: agent.tasks.create(title="new")),
    "submit": (lambda agent: None, lambda agent, _: agent.submit([{"title": "a"}, {"title": "b"}])),
    "claim": (lambda agent: None, lambda agent, _: _claimed(agent)),
    "complete": (_claimed, lambda agent, lease: lease.complete(1, claim_next={})),
    "fail": (_claimed, lambda agent, lease: lease.fail("broken")),
    "release": (_claimed, lambda agent, lease: lease.release("later")),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_whose_reply_got_lost_is_repeated_and_counts_once(
    clients: tuple[Client, Client], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    operator, agent = clients
    operator.submit([{"title": "first"}, {"title": "second"}])
    prepare, call = CALLS[name]
    given = prepare(agent)
    replies = lossy(agent, monkeypatch)
    call(agent, given)
    first, second = (reply.json() for reply in replies)
    first.pop("server_time", None), second.pop("server_time", None)
    assert first == second
    assert replies[1].headers["Idempotent-Replayed"] == "true"


def test_a_claim_repeated_with_its_key_is_the_same_claim(clients: tuple[Client, Client]) -> None:
    operator, agent = clients
    operator.submit([{"title": "a"}, {"title": "b"}])
    first, second = (agent.leases.claim_next(key="once").claims[0] for _ in range(2))
    assert first.run.id == second.run.id
    assert first.lease.claim_token == second.lease.claim_token
    assert len(agent.leases.list().leases) == 1


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What the SDK has told of the server's being away, each with its level."""
    caplog.set_level(logging.INFO, "agent_sdk")
    return lambda: [
        f"{record.levelname} {record.getMessage()}"
        for record in caplog.records
        if "reach" in record.getMessage()
    ]


def test_a_server_that_is_away_is_told_of_once_and_when_it_is_back(
    clients: tuple[Client, Client], monkeypatch: pytest.MonkeyPatch, told: Callable[[], list[str]]
) -> None:
    http, url, calls = clients[1].transport._http, clients[1].settings.url, iter(range(4))
    send = http.send

    def away(request: httpx2.Request) -> httpx2.Response:
        if next(calls) < 3:
            raise httpx2.ConnectError("connection refused")
        return send(request)

    monkeypatch.setattr(http, "send", away)
    assert clients[1].leases.claim_next().claims == []
    assert told() == [
        f"WARNING cannot reach {url}: connection refused; trying on",
        f"INFO reached {url} again",
    ]


def test_a_server_that_stays_away_is_told_of_once_a_minute(
    monkeypatch: pytest.MonkeyPatch, told: Callable[[], list[str]]
) -> None:
    reach, now = transport.Reach("http://away"), 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for now in (1000.0, 1001.0, 1059.0, 1060.0, 1061.0):  # noqa: B007 - the clock reads it
        reach.missed(errors.ConnectionFailed("refused"))
        reach.missed(errors.Unavailable("rate_limited", "wait a little", status=429))
    assert told() == ["WARNING cannot reach http://away: refused; trying on"] * 2


def test_a_worker_says_where_it_starts_and_as_whom(
    clients: tuple[Client, Client], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "agent_sdk")
    with working(clients[1], lambda ctx: None):
        clients[0].wait(clients[0].tasks.create(title="any").id, timeout=SOON)
    url = clients[1].settings.url
    assert f"worker starts: {url}, agent of the key, workspace of the key" in caplog.messages


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_calls_made_while_the_server_is_away_are_done_once_when_it_is_back(end: str) -> None:
    with running_server() as server, server.agent as agent:
        held = agent.tasks.create(title="held")
        lease = _claimed(agent)
        getattr(server, end)()
        answers: list[str] = []
        calls: list[Callable[[], object]] = [
            lambda: answers.append(agent.tasks.create(title="new", key="the-same").id),
            lambda: lease.complete("still mine"),
        ]
        threads = [threading.Thread(target=call) for call in calls]
        for thread in threads:
            thread.start()
        server.start()
        for thread in threads:
            thread.join(SOON)
        assert agent.tasks.create(title="new", key="the-same").id == answers[0]
        assert len(agent.tasks.list().tasks) == 2
        assert agent.wait(held.id, timeout=SOON).result == "still mine"
