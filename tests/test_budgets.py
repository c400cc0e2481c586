"""Budgets: what the work on a task may use up, over all its runs."""

from typing import Any

import pytest

from server.contract.base import Budget
from tests.factories import Agent, Workspace, refused
from tests.world import World

USED = {"input_tokens": 60, "output_tokens": 40, "total_cost": 2.5, "cost_currency": "EUR"}


def _tokens(most: int) -> dict[str, Any]:
    return {"max_total_tokens": most}


def _left(told: Any) -> tuple[Any, Any]:
    return told.budget_remaining.total_tokens, told.budget_remaining.cost


def _patch(workspace: Workspace, task_id: str, **fields: Any) -> Any:
    return workspace.operator.patch(f"/api/tasks/{task_id}", **fields).task


def test_a_task_has_a_budget_or_none(workspace: Workspace) -> None:
    task = workspace.task(budget={"max_cost": 1.25})
    assert task.budget == Budget(max_total_tokens=None, max_cost=1.25)
    assert workspace.task().budget is None
    assert workspace.task(budget={"max_cost": None}).budget is None
    assert _patch(workspace, task.id, budget={"max_cost": 1.25}).version == task.version
    assert _patch(workspace, task.id, budget=_tokens(7)).budget.max_cost is None
    cleared = _patch(workspace, task.id, budget={})
    assert cleared.budget is None
    assert _patch(workspace, task.id, budget=None).version == cleared.version
    with workspace.unchanged(), refused(422, "validation_failed"):
        workspace.task(budget=_tokens(-1))


def test_a_holder_knows_what_is_left(workspace: Workspace, agent: Agent) -> None:
    """The claim says it, each heartbeat, and the repeat of the claim."""
    workspace.task(budget={"max_total_tokens": 150, "max_cost": 10})
    held = agent.claim("k")
    assert _left(held.claim) == (150, 10)
    assert _left(held.heartbeat()) == (150, 10)
    assert _left(held.heartbeat(usage=USED)) == (50, 7.5)
    assert _left(held.heartbeat()) == (50, 7.5)
    assert _left(agent.claim("k").claim) == (50, 7.5)
    told = held.heartbeat(usage=USED | {"output_tokens": 240})
    assert _left(told) == (0, 7.5)


def test_without_a_budget_nothing_is_limited(workspace: Workspace, agent: Agent) -> None:
    workspace.task()
    held = agent.claim()
    assert _left(held.claim) == (None, None)
    told = held.heartbeat(usage=USED)
    assert (_left(told), told.cancel_requested, told.stop_reason) == ((None, None), False, None)


@pytest.mark.parametrize("budget", [_tokens(100), {"max_cost": 2.5}])
def test_who_spent_the_budget_is_asked_to_stop(
    workspace: Workspace, agent: Agent, budget: dict[str, Any]
) -> None:
    """Exhausted is at the limit; it still holds the lease, and may end the run itself."""
    workspace.task(budget=budget)
    held = agent.claim()
    assert held.heartbeat(usage=USED | {"input_tokens": 59, "total_cost": 2}).stop_reason is None
    told = held.heartbeat(usage=USED)
    assert (told.cancel_requested, told.stop_reason) == (True, "budget_exhausted")
    told = held.heartbeat()
    assert (told.cancel_requested, told.stop_reason) == (True, "budget_exhausted")
    items = [{"run_id": held.run_id, "claim_token": held.token}]
    [told] = agent.post("/api/agent/tasks/bulk/heartbeat", items=items).results
    assert (told.cancel_requested, told.stop_reason) == (True, "budget_exhausted")
    held.complete(result=1)


def test_a_task_without_budget_left_is_not_claimed(workspace: Workspace, agent: Agent) -> None:
    """P6: by nobody; and P7: it is, from the transaction on that gives it more."""
    task = workspace.task(budget=_tokens(100))
    held = agent.claim()
    held.release(usage=USED)
    assert agent.claims() == []
    reasons = {"reasons": ["budget_exhausted"]}
    with workspace.unchanged(), refused(409, "run_not_claimable", **reasons):
        workspace.operator.post(f"/api/task-runs/{held.run_id}/claim")
    assert workspace.get(task.id).status == "ready"
    _patch(workspace, task.id, budget=_tokens(101))
    again = agent.claim()
    assert _left(again.claim) == (1, None)
    _patch(workspace, task.id, budget=_tokens(50))
    assert again.heartbeat().stop_reason == "budget_exhausted"
    again.release()
    _patch(workspace, task.id, budget=None)
    assert agent.claim().fence == 3


def test_a_failed_run_is_tried_again_only_within_the_budget(
    world: World, workspace: Workspace, agent: Agent
) -> None:
    """P6: also when its back-off is over."""
    task = workspace.task(budget=_tokens(100), retry={"strategy": "fixed", "base_seconds": 60})
    agent.claim().fail(usage=USED)
    world.advance(61)
    assert agent.claims() == []
    world.promote()
    assert agent.claims() == []
    _patch(workspace, task.id, budget=_tokens(200))
    assert agent.claim().task_id == task.id


def test_usage_counts_once_whatever_is_repeated(workspace: Workspace, agent: Agent) -> None:
    """P5: per claim the greatest value counts; runs and tasks have the sums of their claims."""
    task = workspace.task(max_attempts=2, retry={"strategy": "none"})
    held = agent.claim()
    for used in (60, 60, 20):
        held.heartbeat(usage=USED | {"input_tokens": used})
    for _ in range(2):
        held.release(usage=USED)
    held = agent.claim()
    for _ in range(2):
        held.fail(usage={"output_tokens": 5, "tool_calls": 2})
    assert workspace.run(held.run_id).usage.total_tokens == 105
    last = agent.claim()
    for _ in range(2):
        last.complete(usage=USED | {"turns": 3})
    usage = workspace.get(task.id).usage
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (120, 85, 205)
    assert (usage.total_cost, usage.cost_currency) == (5, "EUR")
    assert (usage.tool_calls, usage.turns) == (2, 3)


def test_a_currency_is_kept_for_the_whole_task(workspace: Workspace, agent: Agent) -> None:
    workspace.task(budget={"max_cost": 5})
    held = agent.claim()
    held.release(usage=USED)
    held = agent.claim()
    with workspace.unchanged(), refused(422, "currency_mismatch", expected="EUR"):
        held.heartbeat(usage={"total_cost": 1, "cost_currency": "USD"})


def test_a_currency_that_is_told_alone_is_an_event(workspace: Workspace, agent: Agent) -> None:
    """P8: it is stored, so the log says so; and once only."""
    workspace.task()
    held = agent.claim()
    for _ in range(2):
        held.heartbeat(usage={"cost_currency": "EUR"})
    [event] = workspace.events(event_type="task.run_progress")
    assert event.payload["usage"]["cost_currency"] == "EUR"


def test_explain_and_inspect_tell_of_a_spent_budget(workspace: Workspace, agent: Agent) -> None:
    task = workspace.task(budget=_tokens(100))
    held = agent.claim()
    held.heartbeat(usage=USED)
    path = f"/api/tasks/{task.id}"
    codes = [d.code for d in workspace.operator.get(f"{path}/inspect").inspect.diagnostics]
    assert codes == ["task_budget_exhausted"]
    held.release()
    [reason] = workspace.operator.get(f"{path}/explain").explain.reasons
    assert reason.code == "budget_exhausted"
    assert reason.evidence["budget"] == {"max_total_tokens": 100, "max_cost": None}
    assert reason.evidence["usage"]["total_tokens"] == 100
    assert workspace.operator.get(f"{path}/inspect").inspect.next_action == "waiting_for_gate"


def test_a_spent_task_holds_no_slot_up(workspace: Workspace, agent: Agent) -> None:
    """P7: the next of its key is claimed in its place."""
    workspace.task(concurrency_key="k", budget=_tokens(100))
    second = workspace.task(concurrency_key="k")
    agent.claim().release(usage=USED)
    assert [held.task_id for held in agent.claims(max_runs=2)] == [second.id]
