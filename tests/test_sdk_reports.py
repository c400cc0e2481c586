"""What a holder reports while it works: progress, usage, and what is left of the budget."""

from collections.abc import Callable
from typing import Any

import pytest

from agent_sdk import AsyncLease, Client, Fail, Lease, Release, WaitFor
from tests.agents import SOON, event_of, working


def _spends(ctx: Lease) -> None:
    ctx.usage(input_tokens=100)
    ctx.lost.wait(SOON)
    ctx.check()


async def _spends_awaiting(ctx: AsyncLease) -> None:
    await ctx.usage(input_tokens=100)


@pytest.mark.parametrize("handler", [_spends, _spends_awaiting])
def test_who_spent_the_budget_gives_the_run_back_until_there_is_more(
    clients: tuple[Client, Client], handler: Callable[[Any], Any]
) -> None:
    operator, agent = clients
    with working(agent, handler):
        task = operator.tasks.create(title="dear", budget={"max_total_tokens": 100})
        event_of(operator, task.id, "task.run_released")
    detail = operator.tasks.get(task.id)
    assert (detail.task.status, detail.runs[0].status) == ("ready", "queued")
    assert (detail.task.note, detail.task.attempts_used) == ("the budget of the task is spent", 1)


ENDS: dict[str, tuple[Callable[[Lease], Any], str]] = {
    "result": (lambda ctx: "done", "task.run_completed"),
    "fail": (lambda ctx: _raise(Fail("broken")), "task.run_failed"),
    "release": (lambda ctx: _raise(Release("later")), "task.run_released"),
    "wait": (lambda ctx: _raise(WaitFor([], checkpoint="half")), "task.run_released"),
}


def _raise(error: Exception) -> Any:
    raise error


@pytest.mark.parametrize("end", ENDS)
def test_a_run_whose_last_report_spends_the_budget_ends_all_the_same(
    clients: tuple[Client, Client], end: str
) -> None:
    operator, agent = clients
    told, event = ENDS[end]

    def handle(ctx: Lease) -> Any:
        ctx.progress(10)
        ctx.usage(input_tokens=100)
        ctx.progress(100)
        return told(ctx)

    with working(agent, handle):
        task = operator.tasks.create(title="dear", budget={"max_total_tokens": 100})
        event_of(operator, task.id, event)
    assert operator.tasks.get(task.id).task.usage.input_tokens == 100
