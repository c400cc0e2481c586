"""P5: a lost reply, a server that restarts: the SDK asks again, and nothing is lost or doubled."""

import threading
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from agent_sdk import Client
from agent_sdk.testing import running_server
from tests.agents import SOON


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
    http, replies = agent.transport._http, []
    send = http.send

    def lossy(request: httpx2.Request) -> httpx2.Response:
        replies.append(send(request))
        if len(replies) == 1:
            raise httpx2.ReadError("the reply got lost")
        return replies[-1]

    monkeypatch.setattr(http, "send", lossy)
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
