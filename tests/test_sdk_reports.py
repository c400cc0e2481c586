"""What a holder reports while it works: progress, usage, and what is left of the budget."""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx2
import pytest

from agent_sdk import AsyncLease, Client, Fail, Invalid, Lease, NotJson, Release, WaitFor
from tests.agents import SOON, event_of, working
from tests.serving import until

NAN = float("nan")


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


@pytest.mark.parametrize("wrong", ["percent", "usage"])
def test_a_report_without_a_json_form_is_refused_where_it_is_made(
    clients: tuple[Client, Client], wrong: str
) -> None:
    operator, agent = clients

    def handle(ctx: Lease) -> Any:
        ctx.usage(input_tokens=5)
        with pytest.raises(NotJson):
            ctx.progress(NAN) if wrong == "percent" else ctx.usage(total_cost=NAN)
        return "done"

    with working(agent, handle):
        task = operator.tasks.create(title="odd")
        done = operator.wait(task.id, timeout=SOON)
    assert (done.result, done.usage.input_tokens) == ("done", 5)


def test_a_heartbeat_that_breaks_leaves_the_others_alive(
    clients: tuple[Client, Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    operator, agent = clients
    operator.submit([{"title": "broken"}, {"title": "whole"}])
    broken, whole = agent.claims(until_empty=True)
    monkeypatch.setattr(broken.hold, "beat_alone", lambda: _raise(RuntimeError("a bug")))
    with broken, whole:
        until(lambda: operator.runs.get(whole.run.id).run.status == "running")


REFUSED: dict[str, Callable[[Lease], Any]] = {
    "progress": lambda ctx: ctx.progress(120),
    "checkpoint": lambda ctx: ctx.checkpoint("x" * 300_000),
}


@pytest.mark.parametrize("wrong", REFUSED)
def test_a_refused_report_takes_no_usage_with_it(
    clients: tuple[Client, Client], wrong: str
) -> None:
    operator, agent = clients

    def handle(ctx: Lease) -> Any:
        ctx.usage(input_tokens=100)
        ctx.usage(input_tokens=50)
        with suppress(Invalid):
            REFUSED[wrong](ctx)
        return ctx.usage(input_tokens=60)

    with working(agent, handle):
        task = operator.tasks.create(title="counts")
        assert operator.wait(task.id, timeout=SOON).usage.input_tokens == 210


@pytest.mark.parametrize(("outcome", "status"), [(None, "completed"), (Release("later"), "ready")])
def test_a_run_ends_as_told_though_its_usage_is_refused(
    clients: tuple[Client, Client], outcome: Exception | None, status: str
) -> None:
    operator, agent = clients
    task = operator.tasks.create(title="odd")
    lease = agent.claim()
    assert lease is not None
    with lease:
        lease.progress(1)
        lease.usage(input_tokens=0.5)  # type: ignore[arg-type]  # the point here
        lease.result = "done"
        if outcome:
            raise outcome
    told = operator.tasks.get(task.id).task
    assert (told.status, told.result) == (status, None if outcome else "done")


def test_a_report_that_does_not_get_through_goes_with_a_later_heartbeat(
    clients: tuple[Client, Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    operator, agent = clients
    task = operator.tasks.create(title="cut off")
    lease = agent.claim()
    assert lease is not None
    http = agent.transport._http
    send = http.send

    def away(request: httpx2.Request) -> httpx2.Response:
        if threading.current_thread() is threading.main_thread():
            raise httpx2.ConnectError("connection refused")
        return send(request)

    with lease:
        monkeypatch.setattr(http, "send", away)
        lease.progress(40, "reading")
        monkeypatch.setattr(http, "send", send)
        event = event_of(operator, task.id, "task.run_progress")
    assert event.timeline
    assert event.timeline.payload["progress"]["percent"] == 40
