"""Verdicts: what they must say, who may give them, and that each counts once."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from tests.client import RefusedError
from tests.factories import Agent, Workspace, refused
from tests.judging import by_operator, claim, judge, review_of, reviewed, verdict

FAULTS: list[tuple[str, dict[str, Any], str]] = [
    ("approved", {"missing_work": ["x"]}, "verdict.missing_work"),
    ("rejected", {"missing_work": []}, "verdict.missing_work"),
    ("rejected", {"missing_work": [" "]}, "verdict.missing_work"),
    ("rejected", {"missing_work": {"a": 1}}, "verdict.missing_work"),
    ("approved", {"confidence": 1.1}, "verdict.confidence"),
    ("approved", {"reason": " "}, "verdict.reason"),
    ("approved", {"delivery_id": "x" * 257}, "verdict.delivery_id"),
    ("splendid", {}, "verdict.outcome"),
]
EXPIRE = "select outcomes from expire_reviews(%s, %s, 3, 3)"


@pytest.fixture
def eve(workspace: Workspace) -> Agent:
    """A reviewer."""
    return workspace.agent("eve")


@pytest.mark.parametrize(("outcome", "fields", "field"), FAULTS)
def test_a_verdict_says_all_that_it_must(
    workspace: Workspace, outcome: str, fields: dict[str, Any], field: str
) -> None:
    held = reviewed(workspace)
    with workspace.unchanged(), refused(422, "validation_failed") as told:
        by_operator(workspace, held.run_id, outcome, **fields)
    assert [fault["field"] for fault in told[0].evidence["errors"]] == [field]


def test_what_is_missing_has_its_limit(workspace: Workspace) -> None:
    held = reviewed(workspace)
    field = "verdict.missing_work"
    with workspace.unchanged(), refused(413, "value_too_large", field=field, limit_bytes=65536):
        by_operator(workspace, held.run_id, "rejected", missing_work=["x" * 66000])
    told = by_operator(workspace, held.run_id, "rejected", missing_work=["x" * 9000])
    assert told.continuation_run.missing_work_bytes == 9004
    [run, _] = workspace.operator.get(f"/api/tasks/{held.task_id}/runs").runs
    assert (run.missing_work, run.missing_work_bytes) == (None, 9004)
    [review] = workspace.operator.get(f"/api/tasks/{held.task_id}/reviews").reviews
    assert (review.missing_work, review.missing_work_bytes) == (None, 9004)


def test_guidance_alone_is_enough_for_a_rejection(workspace: Workspace) -> None:
    held = reviewed(workspace)
    told = by_operator(workspace, held.run_id, "rejected", next_round_guidance="again")
    assert told.continuation_run.missing_work == []


def test_a_lost_reply_of_a_verdict_loses_nothing(workspace: Workspace, eve: Agent) -> None:
    """P5: the same delivery, outcome and actor is the same verdict."""
    reviewed(workspace)
    held = claim(eve)
    first = held.judge("rejected", delivery_id="d")
    with workspace.unchanged():
        assert held.judge("rejected", delivery_id="d") == first
        assert eve.replayed
        for outcome, delivery in (("rejected", "e"), ("blocked", "d")):
            with refused(409, "review_already_recorded", outcome="rejected", delivery_id="d"):
                held.judge(outcome, delivery_id=delivery)
        with refused(409, "review_already_recorded"):
            judge(workspace.operator, held.review_id, held.run_id, "rejected", delivery_id="d")


def test_an_opened_circuit_is_answered_again(workspace: Workspace, eve: Agent) -> None:
    reviewed(workspace, review_max_rounds=1)
    held = claim(eve)
    first = held.judge("rejected", delivery_id="d")
    with workspace.unchanged():
        assert held.judge("rejected", delivery_id="d") == first
    assert first.circuit_opened


def test_agents_do_not_judge_their_own_work(workspace: Workspace, eve: Agent) -> None:
    """Not even under a lease that they got before the run was theirs."""
    held = reviewed(workspace)
    review = review_of(workspace, held.run_id)
    evidence = {"review_id": review.review_id, "run_id": held.run_id}
    with workspace.unchanged(), refused(403, "own_work", **evidence):
        judge(held.agent, review.review_id, held.run_id)
    with workspace.unchanged(), refused(403, "own_work"):
        judge(workspace.agent("worker"), review.review_id, held.run_id)


def test_viewers_do_not_judge(workspace: Workspace) -> None:
    held, viewer = reviewed(workspace), workspace.client("viewer")
    review = review_of(workspace, held.run_id)
    with workspace.unchanged(), refused(403, "forbidden"):
        judge(viewer, review.review_id, held.run_id)


def test_a_person_needs_no_lease_and_wins(workspace: Workspace, eve: Agent) -> None:
    reviewed(workspace)
    held = claim(eve)
    held.heartbeat()
    told = by_operator(workspace, held.run_id, delivery_id="p").review
    assert (told.reviewer_session_id, told.reviewed_by.kind) == (eve.session, "human")
    assert eve.get("/api/agent/leases").reviews == []
    with workspace.unchanged(), refused(409, "review_already_recorded", delivery_id="p"):
        held.judge("rejected")


def test_verdicts_at_once_count_once(workspace: Workspace) -> None:
    """Of an agent, of people and of the deadline the first wins; the others are told."""
    for _ in range(4):
        reviewed(workspace, review_timeout_seconds=60, review_max_rounds=20)
        held = claim(workspace.agent("eve"))
        workspace.world.advance(61)

        def at_once(who: int, held: Any = held) -> str | None:
            if who == 2:
                with psycopg.connect(workspace.world.server.conninfo) as connection:
                    row = connection.execute(EXPIRE, [workspace.id, [held.review_id]]).fetchone()
                    return row[0][0] if row and row[0] else None
            by = workspace.operator if who else held.agent
            try:
                body = {"claim_token": held.token} if not who else {}
                return str(judge(by, held.review_id, held.run_id, **body).review.outcome)
            except RefusedError as error:
                return None if error.code == "review_already_recorded" else error.code

        with ThreadPoolExecutor(3) as pool:
            assert len([got for got in pool.map(at_once, range(3)) if got]) == 1
    assert len(workspace.told(event_type="task.run_review_recorded")) == 4


def test_a_task_that_is_canceled_closes_its_reviews(workspace: Workspace, eve: Agent) -> None:
    held = reviewed(workspace)
    child = workspace.task(parent_task_id=held.task_id)
    done = workspace.task(parent_task_id=held.task_id, review_policy="always")
    workspace.agent().work(done.id)
    review = claim(eve)
    told = workspace.cancel(held.task_id)
    assert (told.status, workspace.get(child.id).status) == ("canceled", "canceled")
    events = workspace.events(event_type="task.run_review_canceled")
    assert [event.payload["cause"] for event in events] == ["task_canceled"] * 2
    assert review_of(workspace, held.run_id).status == "canceled"
    with workspace.unchanged(), refused(409, "review_closed"):
        judge(workspace.operator, review.review_id, held.run_id)


def test_an_operators_retry_closes_the_review_of_the_run(workspace: Workspace) -> None:
    held = reviewed(workspace, "on_failure")
    workspace.operator.post(f"/api/runs/{held.run_id}/retry")
    assert workspace.get(held.task_id).status == "ready"
    assert review_of(workspace, held.run_id).status == "canceled"
    [event] = workspace.events(event_type="task.run_review_canceled")
    assert (event.run_id, event.payload["cause"]) == (held.run_id, "retry")


def test_a_deleted_task_takes_its_reviews_along(workspace: Workspace, eve: Agent) -> None:
    """The log tells of the open one as the other events do."""
    held = reviewed(workspace)
    review = claim(eve)
    workspace.operator.delete(f"/api/tasks/{held.task_id}")
    event = workspace.events()[-2]
    assert event.payload == {
        "review_id": review.review_id, "cause": "task_deleted", "task_status": "pending",
        "status": "completed", "attempt": 1, "fence": 1,
    }  # fmt: skip
    with refused(404, "review_not_found", id=review.review_id):
        review.judge()
    assert workspace.snapshot()["review"] == workspace.snapshot()["review_lease"] == []


def test_a_recovered_run_is_not_reviewed(workspace: Workspace, agent: Agent) -> None:
    """A run follows it at once."""
    task = workspace.task(review_policy="always", max_lease_expiries=1)
    held = agent.claim(lease_seconds=60)
    workspace.world.advance(61)
    workspace.sweep()
    workspace.operator.post(f"/api/runs/{held.run_id}/recover", reason="seen")
    assert workspace.operator.get(f"/api/tasks/{task.id}/reviews").reviews == []


def test_an_approval_of_the_task_waits_for_its_review(workspace: Workspace) -> None:
    """No run is queued behind an open review."""
    held = reviewed(workspace)
    path = f"/api/tasks/{held.task_id}"
    workspace.operator.patch(path, approval_policy="manual")
    assert workspace.operator.post(f"{path}/approve").run is None
    assert workspace.get(held.task_id).status == "pending"


def test_a_policy_may_change_while_a_review_is_open(workspace: Workspace) -> None:
    """What is asked for stays asked for."""
    held = reviewed(workspace)
    fields = {"review_policy": "none", "review_max_rounds": 7, "review_timeout_seconds": 61}
    told = workspace.operator.patch(f"/api/tasks/{held.task_id}", **fields).task
    assert (told.status, told.review_policy, told.review_max_rounds) == ("pending", "none", 7)
    by_operator(workspace, held.run_id, "rejected")
    workspace.agent().work(held.task_id)
    assert workspace.get(held.task_id).status == "completed"


def test_the_verdict_of_an_operator_who_acts_as_an_agent_is_a_persons(
    workspace: Workspace,
) -> None:
    held = reviewed(workspace)
    by = workspace.client("operator", X_Agent_Name="worker", X_Session_ID="desk")
    review = review_of(workspace, held.run_id)
    told = by.post(
        f"/api/task-reviews/{review.review_id}/verdict", run_id=held.run_id,
        verdict=verdict("approved"),
    )  # fmt: skip
    assert told.review.status == "recorded"
