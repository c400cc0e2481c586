"""The reviewer of the SDK against a real server."""

import queue
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import create_autospec

import pytest

from agent_sdk import Client, Fail, Lease, ReviewLease, Verdict, Worker
from agent_sdk.duties import ReviewDuty
from agent_sdk.testing import Server
from tests.agents import SOON, event_of, expire, line_of, lossy, process, working

GOOD = Verdict("approved", "reads well", 0.9)


@contextmanager
def reviewing(client: Client, handler: Any, **options: Any) -> Iterator[Worker]:
    """A reviewer that runs within the block."""
    with working(client, handler, reviews=True, **options) as worker:
        yield worker


def test_a_reviewer_gets_the_work_and_its_verdict_ends_the_task(
    clients: tuple[Client, Client], reviewer: Client
) -> None:
    operator, agent = clients
    seen: list[Any] = []

    def judge(ctx: ReviewLease) -> Verdict:
        seen.append((ctx.payload, ctx.result, ctx.task.title, list(ctx.previous_reviews)))
        return GOOD

    with working(agent, lambda ctx: ctx.payload * 2), reviewing(reviewer, judge):
        task = operator.tasks.create(title="double", payload=21, review_policy="on_success")
        assert operator.wait(task.id, timeout=SOON).result == 42
    assert seen == [(21, 42, "double", [])]
    (review,) = operator.reviews.of_task(task.id).reviews
    assert (review.status, review.outcome, review.confidence) == ("recorded", "approved", 0.9)
    assert review.delivery_id == f"{review.review_id}:{review.fence}"


def test_a_rejection_brings_the_work_back_with_what_is_missing(
    clients: tuple[Client, Client], reviewer: Client
) -> None:
    operator, agent = clients

    def handle(ctx: Lease) -> Any:
        return {"tests": ctx.run.missing_work}

    async def judge(ctx: ReviewLease) -> Verdict:
        if ctx.result["tests"] is None:
            return Verdict("rejected", "not yet", missing_work=["tests"], next_round_guidance="go")
        assert ctx.previous_reviews[0].reason == "not yet"
        assert ctx.missing_work == ["tests"]
        return GOOD

    with working(agent, handle), reviewing(reviewer, judge):
        task = operator.tasks.create(title="code", review_policy="always")
        assert operator.wait(task.id, timeout=SOON).result == {"tests": ["tests"]}
    rounds = [review.review_round for review in operator.reviews.of_task(task.id).reviews]
    assert sorted(rounds) == [1, 2]


def test_a_handler_that_fails_gives_the_review_back(
    clients: tuple[Client, Client], reviewer: Client
) -> None:
    operator, agent = clients
    tries: list[int] = []

    def judge(ctx: ReviewLease) -> Verdict:
        tries.append(ctx.fence)
        if len(tries) == 1:
            raise ConnectionError("the model is away")
        return GOOD

    with working(agent, lambda ctx: 1), reviewing(reviewer, judge):
        task = operator.tasks.create(title="code", review_policy="always")
        operator.wait(task.id, timeout=SOON)
    assert len(set(tries)) == 2
    note = event_of(operator, task.id, "task.run_review_released").timeline
    assert note
    assert note.payload["note"].startswith("ConnectionError: the model is away")


@pytest.mark.parametrize(
    ("produce", "outcome"),
    [
        (lambda: "fine", "invalid_output"),
        (lambda: Verdict("rejected", "no"), "invalid_output"),
        (lambda: _raise(Fail("not for me to judge")), "error"),
    ],
    ids=["no verdict", "refused verdict", "fail"],
)
def test_what_is_no_verdict_is_recorded_as_such(
    clients: tuple[Client, Client], reviewer: Client, produce: Any, outcome: str
) -> None:
    operator, agent = clients
    with working(agent, lambda ctx: 1):
        task = operator.tasks.create(title="code")
        operator.wait(task.id, timeout=SOON)
    run = operator.tasks.get(task.id).runs[0]
    asked = operator.reviews.request(run.id, reason="please")
    assert asked.created
    with reviewing(reviewer, lambda ctx: produce()):
        event_of(operator, task.id, f"task.run_review_{outcome}")
    assert operator.reviews.get(asked.review.review_id).outcome == outcome


def _raise(error: Exception) -> Any:
    raise error


def test_a_verdict_of_an_operator_stops_the_reviewer(
    clients: tuple[Client, Client], reviewer: Client
) -> None:
    operator, agent = clients
    lost: queue.SimpleQueue[str] = queue.SimpleQueue()

    def judge(ctx: ReviewLease) -> Verdict:
        ctx.lost.wait(SOON)
        lost.put(ctx.hold.loss.code if ctx.hold.loss else "nothing")
        return GOOD

    with working(agent, lambda ctx: 1), reviewing(reviewer, judge, lease_seconds=5):
        task = operator.tasks.create(title="code", review_policy="always")
        event_of(operator, task.id, "task.run_review_started")
        (review,) = operator.reviews.list(status="in_review").reviews
        judged = operator.reviews.verdict(review, Verdict("blocked", "ask me first"))
        assert lost.get(timeout=SOON) == "review_already_recorded"
    assert (judged.review.outcome, operator.tasks.get(task.id).task.status) == (
        "blocked",
        "blocked",
    )


def test_a_review_that_outlasts_the_grace_is_given_back(
    clients: tuple[Client, Client], reviewer: Client
) -> None:
    operator, agent = clients
    begun = threading.Event()

    def judge(ctx: ReviewLease) -> Verdict:
        begun.set()
        ctx.lost.wait(SOON)
        ctx.check()
        return GOOD

    with working(agent, lambda ctx: 1):
        task = operator.tasks.create(title="code", review_policy="always")
        with reviewing(reviewer, judge, grace_seconds=0):
            assert begun.wait(SOON)
    (review,) = operator.reviews.of_task(task.id).reviews
    assert (review.status, review.reviewer_session_id) == ("requested", None)


def test_an_agent_holds_reviews_beside_its_leases(
    clients: tuple[Client, Client], reviewer: Client
) -> None:
    operator, agent = clients
    task = operator.tasks.create(title="code", review_policy="always")
    lease = agent.claim()
    assert lease
    lease.complete(1)
    assert agent.reviews.claim_next().claim is None
    claim = reviewer.reviews.claim_next(key="once", lease_seconds=60).claim
    assert claim
    assert reviewer.reviews.claim_next(key="once", lease_seconds=60).claim == claim
    assert [held.review_id for held in reviewer.leases.list().reviews] == [claim.review.review_id]
    token = claim.lease.claim_token or ""
    assert reviewer.reviews.heartbeat(claim.review.review_id, token).review.status == "in_review"
    released = reviewer.reviews.release(claim.review.review_id, token, note="too long for me")
    assert released.lease.lease_until is None
    assert [one.review_id for one in operator.reviews.of_run(lease.run.id).reviews] == [
        claim.review.review_id
    ]
    assert operator.tasks.get(task.id).task.status == "pending"


def _held(agent: Client) -> ReviewLease:
    claim = agent.reviews.claim_next().claim
    assert claim
    return ReviewLease(agent, claim, agent.heartbeats)


CALLS: dict[str, tuple[Callable[[Client], Any], Callable[[Client, Any], object]]] = {
    "claim": (lambda agent: None, lambda agent, _: _held(agent)),
    "verdict": (_held, lambda agent, lease: lease.judge(GOOD)),
    "release": (_held, lambda agent, lease: lease.release("not mine")),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_of_a_reviewer_whose_reply_got_lost_counts_once(
    clients: tuple[Client, Client], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """P5: the SDK asks again, under the same key, token or delivery id."""
    operator, agent = clients
    task = operator.tasks.create(title="code", review_policy="always")
    run = operator.tasks.list_runs(task.id).runs[0]
    operator.runs.claim(run.id)
    operator.runs.complete(run.id, result=1)
    prepare, call = CALLS[name]
    given = prepare(agent)
    replies = lossy(agent, monkeypatch)
    call(agent, given)
    first, second = (reply.json() for reply in replies)
    first.pop("server_time", None), second.pop("server_time", None)
    assert first == second
    assert replies[1].headers["Idempotent-Replayed"] == "true"


JUDGES = """
from agent_sdk import *
worker = Worker(wait_seconds=1, lease_seconds=5)
@worker.review
def judge(ctx):
    print("begun")
    ctx.lost.wait(30)
    try:
        ctx.check()
    except LeaseLost as loss:
        print(loss.code)
worker.run()
"""


def test_a_suspended_reviewer_learns_first_that_its_lease_is_lost(
    worklease: Server, clients: tuple[Client, Client], reviewer: Client
) -> None:
    """P2: and gives no verdict."""
    operator, agent = clients
    with working(agent, lambda ctx: 1), process(worklease, reviewer, JUDGES) as suspended:
        task = operator.tasks.create(title="code", review_policy="always")
        assert line_of(suspended) == "begun"
        suspended.send_signal(signal.SIGSTOP)
        expire(worklease, operator, task.id, event="task.run_review_released")
        suspended.send_signal(signal.SIGCONT)
        assert line_of(suspended) == "lease_expired"
    (review,) = operator.reviews.of_task(task.id).reviews
    assert (review.lease_expiries, review.outcome) == (1, None)


def test_a_reviewer_rests_longer_with_each_failure_in_a_row(reviewer: Client) -> None:
    duty, given_back = ReviewDuty(reviewer, {}), create_autospec(ReviewLease, instance=True)
    rests = [duty.rest_seconds()]
    for _ in range(9):
        duty.fail(given_back, ConnectionError("the model is away"))
        rests.append(duty.rest_seconds())
    duty.finish(given_back, GOOD, more=True)
    rests.append(duty.rest_seconds())
    assert rests == [0, 1, 2, 4, 8, 16, 32, 60, 60, 60, 0]


def test_a_worker_has_one_handler_and_reviews_have_no_priority(reviewer: Client) -> None:
    worker = Worker(client=reviewer)
    worker.task(lambda ctx: None)
    with pytest.raises(ValueError, match="handler already"):
        worker.review(lambda ctx: GOOD)
    with pytest.raises(ValueError, match="priority_min"):
        Worker(client=reviewer, priority_min="high").review(lambda ctx: GOOD)
