"""Drafts, approvals and pauses through the SDK."""

import pytest

from agent_sdk import Client, Conflict, Denied
from tests.agents import SOON


def test_drafts_are_published_with_those_below(clients: tuple[Client, Client]) -> None:
    operator, agent = clients
    root = operator.tasks.create(title="plan", draft=True)
    operator.tasks.create_child(root.id, title="step", draft=True)
    assert agent.claim() is None
    assert len(operator.tasks.list(include_drafts=True).tasks) == 2
    run = operator.tasks.publish(root.id, subtree=True)
    assert run
    assert run.task_id == root.id
    assert {lease.task.title for lease in agent.claims(until_empty=True)} == {"plan", "step"}


def test_what_was_approved_is_worked_on(clients: tuple[Client, Client]) -> None:
    operator, agent = clients
    task = operator.tasks.create(title="dangerous", approval_policy="manual")
    assert (agent.claim(), task.approval_state) == (None, "pending")
    with pytest.raises(Conflict, match="task_blocked"):
        operator.tasks.start(task.id)
    run = operator.tasks.approve(task.id)
    lease = agent.claim()
    assert run
    assert lease
    assert lease.run.id == run.id
    lease.complete()
    assert operator.wait(task.id, timeout=SOON).approval_state == "approved"


def test_a_rejection_says_why(clients: tuple[Client, Client]) -> None:
    operator, agent = clients
    task = operator.tasks.create(title="dangerous", approval_policy="manual")
    rejected = operator.tasks.reject(task.id, reason="too early")
    assert (rejected.status, rejected.approval_reason) == ("blocked", "too early")
    with pytest.raises(Denied) as denied:
        agent.tasks.approve(task.id)
    assert denied.value.code == "forbidden_operator_action"


def test_a_holder_sees_the_pause_and_nobody_else_begins(clients: tuple[Client, Client]) -> None:
    operator, agent = clients
    root = operator.tasks.create(title="root")
    lease = agent.claim()
    operator.tasks.create_child(root.id, title="child")
    assert lease
    assert operator.tasks.pause(root.id, "look first").paused_reason == "look first"
    assert agent.claim() is None
    lease.progress(50)
    lease.heartbeat()
    assert lease.paused
    lease.complete()
    assert not operator.tasks.resume(root.id).effective_paused
    assert agent.claim()
