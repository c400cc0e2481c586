"""The worker of the SDK against a real server: handlers, and what becomes of their runs."""

import asyncio
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from agent_sdk import AsyncLease, Client, Fail, Lease, Release, Retry, WaitFor
from agent_sdk.testing import Server
from tests.agents import SOON, expire, line_of, worker_process, working

FAR = datetime(2999, 1, 1, tzinfo=UTC)
NO_PAUSE: Any = {"strategy": "none"}


def test_a_handler_gets_the_payload_and_its_return_is_the_result(
    clients: tuple[Client, Client],
) -> None:
    operator, agent = clients

    def handle(ctx: Lease) -> Any:
        return {"answer": ctx.payload, "fence": ctx.fence}

    with working(agent, handle):
        task = operator.tasks.create(title="double", payload=21)
        done = operator.wait(task.id, timeout=SOON)
    assert (done.status, done.result) == ("completed", {"answer": 21, "fence": 1})


def test_async_handlers_run_side_by_side(clients: tuple[Client, Client]) -> None:
    operator, agent = clients
    both = asyncio.Event()
    seen: list[Any] = []

    async def handle(ctx: AsyncLease) -> Any:
        await ctx.progress(50, "half")
        seen.append(ctx.payload)
        if len(seen) == 2:
            both.set()
        await asyncio.wait_for(both.wait(), SOON)
        return ctx.payload

    with working(agent, handle, concurrency=2):
        ids = operator.submit([{"title": "a", "payload": "a"}, {"title": "b", "payload": "b"}])
        results = {operator.wait(task_id, timeout=SOON).result for task_id in ids.values()}
    assert results == {"a", "b"}


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()], ids=repr)
def test_an_async_handler_that_exits_fails_its_run_and_no_other(
    clients: tuple[Client, Client], error: BaseException
) -> None:
    operator, agent = clients

    async def handle(ctx: AsyncLease) -> Any:
        if ctx.payload == "exits":
            raise error
        return "done"

    with working(agent, handle):
        ids = operator.submit(
            [{"title": "a", "payload": "exits", "max_attempts": 1}, {"title": "b"}]
        )
        ended = [operator.wait(task_id, timeout=SOON).status for task_id in ids.values()]
    assert ended == ["failed", "completed"]


def test_the_inputs_are_the_whole_results_of_what_was_waited_for(
    clients: tuple[Client, Client],
) -> None:
    operator, agent = clients

    async def handle(ctx: AsyncLease) -> Any:
        if ctx.payload:
            return ctx.payload * 10_000
        return [len(item.result) async for item in ctx.inputs()]

    with working(agent, handle):
        first = operator.tasks.create(title="first", payload="a")
        second = operator.tasks.create(title="second", payload="bb")
        joined = operator.tasks.create(title="joined", depends_on=[first.id, second.id])
        assert operator.wait(joined.id, timeout=SOON).result == [10_000, 20_000]


def test_a_checkpoint_is_there_for_the_next_attempt_with_the_error(
    clients: tuple[Client, Client],
) -> None:
    operator, agent = clients

    def handle(ctx: Lease) -> Any:
        if ctx.run.attempt == 1:
            ctx.checkpoint({"page": 7})
            raise ConnectionError("the line went dead")
        assert ctx.previous.error is not None
        return [ctx.previous.checkpoint, ctx.previous.error.splitlines()[0]]

    with working(agent, handle):
        task = operator.tasks.create(title="pages", retry=NO_PAUSE)
        done = operator.wait(task.id, timeout=SOON)
    assert done.result == [{"page": 7}, "ConnectionError: the line went dead"]


def test_a_repeated_attempt_finds_the_child_that_the_first_one_made(
    clients: tuple[Client, Client],
) -> None:
    operator, agent = clients
    children: list[str] = []

    def handle(ctx: Lease) -> Any:
        children.append(ctx.spawn("part", available_at=FAR).id)
        if ctx.run.attempt == 1:
            raise Retry(after=0)
        return "done"

    with working(agent, handle):
        task = operator.tasks.create(title="whole")
        assert operator.wait(task.id, timeout=SOON).result == "done"
    assert len(children) == 2
    assert len(set(children)) == 1
    child = operator.tasks.get(children[0]).task
    assert (child.parent_task_id, child.created_by_run_id is not None) == (task.id, True)


SPAWNS = """
def handle(ctx):
    print(ctx.spawn("part", available_at="2999-01-01T00:00:00Z").id)
    if ctx.fence == 1:
        os.kill(os.getpid(), 9)
    return "done"
"""


def test_a_crash_after_a_spawn_makes_no_second_child(
    worklease: Server, clients: tuple[Client, Client]
) -> None:
    """P5: the crash loses the reply and the run, and doubles nothing."""
    operator, agent = clients
    task = operator.tasks.create(title="whole", retry=NO_PAUSE)
    with worker_process(worklease, agent, SPAWNS, lease_seconds=5) as crashes:
        first = line_of(crashes)
        assert crashes.wait(SOON) == -signal.SIGKILL
    expire(worklease, operator, task.id)
    with worker_process(worklease, agent, SPAWNS) as again:
        assert line_of(again) == first
        done = operator.wait(task.id, timeout=SOON)
    assert (done.result, done.fence) == ("done", 2)
    assert [child.id for child in operator.tasks.get(task.id).children] == [first]


def test_waiting_for_children_brings_their_results_and_the_checkpoint(
    clients: tuple[Client, Client],
) -> None:
    operator, agent = clients

    def handle(ctx: Lease) -> Any:
        if ctx.task.title != "sum":
            return ctx.payload
        if ctx.previous.checkpoint is None:
            parts = [ctx.spawn(f"part {n}", payload=n) for n in (1, 2, 3)]
            raise WaitFor(parts, checkpoint={"parts": len(parts)})
        return [ctx.previous.checkpoint["parts"], sum(item.result for item in ctx.inputs())]

    with working(agent, handle):
        task = operator.tasks.create(title="sum")
        done = operator.wait(task.id, timeout=SOON)
    assert (done.result, done.attempts_used) == ([3, 6], 1)


def test_a_failed_child_holds_its_parent_back_unless_the_parent_runs_all_the_same(
    clients: tuple[Client, Client],
) -> None:
    operator, agent = clients

    def handle(ctx: Lease) -> Any:
        if ctx.payload != "parent":
            raise Fail("broken")
        if ctx.previous.checkpoint is None:
            raise WaitFor([ctx.spawn("part")], checkpoint="split")
        return [item.depends_on.status for item in ctx.inputs()]

    with working(agent, handle):
        runs = operator.tasks.create(title="runs", payload="parent", on_dependency_failure="run")
        blocks = operator.tasks.create(title="blocks", payload="parent")
        assert operator.wait(runs.id, timeout=SOON).result == ["failed"]
        child = operator.tasks.list(parent_task_id=blocks.id).tasks[0]
        assert operator.wait(child.id, timeout=SOON).error == "broken"
        assert operator.tasks.get(blocks.id).task.status == "blocked"


FAILURES: dict[str, tuple[Callable[[], Any], str]] = {
    "fail": (lambda: _raise(Fail("bad input", kind="bad_input")), "bad_input"),
    "too large": (lambda: "x" * 300_000, "result_too_large"),
    "not json": (object, "result_not_json"),
    "exception": (lambda: _raise(ZeroDivisionError("by zero")), "error"),
}


def _raise(error: Exception) -> Any:
    raise error


@pytest.mark.parametrize("case", FAILURES)
def test_a_failure_is_recorded_with_its_kind(clients: tuple[Client, Client], case: str) -> None:
    operator, agent = clients
    produce, kind = FAILURES[case]
    with working(agent, lambda ctx: produce()):
        task = operator.tasks.create(title=case, max_attempts=1)
        ended = operator.wait(task.id, timeout=SOON)
    (run,) = operator.tasks.list_runs(task.id).runs
    assert (run.failure_kind, run.retryable) == (kind, kind == "error")
    assert run.error
    assert (ended.status, ended.error) == ("failed", run.error)


@pytest.mark.parametrize(
    ("outcome", "attempt"),
    [(Release("come back", delay=20), 1), (Retry(after=20, error="come back"), 2)],
    ids=["release", "retry"],
)
def test_a_run_comes_back_when_it_was_told_to(
    worklease: Server, clients: tuple[Client, Client], outcome: Exception, attempt: int
) -> None:
    operator, agent = clients
    operator.tasks.create(title="later")
    lease = agent.claim()
    assert lease is not None
    with lease:
        raise outcome
    assert agent.claim() is None
    worklease.advance(21)
    again = agent.claim(wait_seconds=5)
    assert again is not None
    assert again.run.attempt == attempt
    assert "come back" in (again.previous.note, again.previous.error)
