"""Bridges and subscriptions through the SDK."""

import pytest

from agent_sdk import Client, NotFound


def test_an_operator_makes_changes_and_removes_a_bridge(clients: tuple[Client, Client]) -> None:
    operator, _ = clients
    made = operator.bridges.create("hook", "https://receiver.invalid/", enabled=False)
    assert made.signing_secret
    assert operator.bridges.get(made.id).signing_secret is None
    told = operator.bridges.update(made.id, workspace_event_types=["task.created"])
    assert (told.workspace_event_types, told.version) == (["task.created"], 2)
    assert operator.bridges.update(made.id, workspace_event_types=None).version == 3
    rotated = operator.bridges.update(made.id, rotate_secret=True)
    assert rotated.signing_secret not in (None, made.signing_secret)
    assert [one.id for one in operator.bridges.list().bridges] == [made.id]
    assert operator.bridges.deliveries(made.id).deliveries == []
    operator.bridges.delete(made.id)
    with pytest.raises(NotFound):
        operator.bridges.get(made.id)


def test_an_operator_subscribes_to_a_task(clients: tuple[Client, Client]) -> None:
    operator, agent = clients
    task = operator.tasks.create(title="tell me")
    to = operator.bridges.create("hook", "https://receiver.invalid/", enabled=False)
    mine = operator.subscriptions.create(task.id, to.id, peer_id="p", event_types=["task.created"])
    assert (mine.delivery_mode, mine.cursor.last_sequence) == ("direct-send", 0)
    seen = agent.subscriptions.list(task.id).subscriptions
    assert [one.subscription_id for one in seen] == [mine.subscription_id]
    assert agent.subscriptions.get(task.id, mine.subscription_id).peer_id == "p"
    operator.subscriptions.delete(task.id, mine.subscription_id)
    assert agent.subscriptions.list(task.id).subscriptions == []
