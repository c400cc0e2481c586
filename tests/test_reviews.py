"""Reviews: a judgement on the result of a run, for which its task may wait."""

from typing import Any

import pytest

from tests.factories import Agent, Workspace, refused, seconds
from tests.judging import by_operator, claim, judge, review_of, reviewed


def test_a_completed_run_is_reviewed_before_its_task_completes(workspace: Workspace) -> None:
    """The request is made in the transaction that ends the run; dependents wait."""
    task = workspace.task(review_policy="on_success", review_timeout_seconds=90)
    late = workspace.task(depends_on=[task.id])
    held = workspace.agent().work(task.id, result=1)
    found = workspace.get(task.id)
    assert (found.status, found.closed_at, found.result) == ("pending", None, None)
    assert workspace.get(late.id).status == "blocked"
    review = review_of(workspace, held.run_id)
    assert (review.status, review.policy, review.gating) == ("requested", "on_success", True)
    assert (review.review_round, review.attempt, review.parent_review_id) == (1, 1, None)
    assert seconds(review.deadline_at, review.requested_at) == 90
    completed, asked = workspace.events(run_id=held.run_id)[-2:]
    assert completed.payload["review_id"] == review.review_id
    assert completed.payload["task_status"] == "pending"
    assert asked.payload == {
        "review_id": review.review_id, "policy": "on_success", "review_round": 1,
        "review_attempt": 1, "gating": True, "deadline_at": review.deadline_at,
        "task_status": "pending", "status": "completed", "attempt": 1, "fence": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("policy", "end", "status"),
    [
        ("none", "complete", "completed"), ("on_success", "complete", "pending"),
        ("on_failure", "complete", "completed"), ("always", "complete", "pending"),
        ("none", "fail", "failed"), ("on_success", "fail", "failed"),
        ("on_failure", "fail", "pending"), ("always", "fail", "pending"),
    ],
)  # fmt: skip
def test_the_policy_says_which_ends_are_reviewed(
    workspace: Workspace, agent: Agent, policy: str, end: str, status: str
) -> None:
    task = workspace.task(review_policy=policy, max_attempts=1)
    agent.work(task.id, end)
    assert workspace.get(task.id).status == status
    asked = workspace.operator.get(f"/api/tasks/{task.id}/reviews").reviews
    assert len(asked) == (status == "pending")


def test_a_failed_run_is_reviewed_only_if_no_automatic_retry_follows(
    workspace: Workspace, agent: Agent
) -> None:
    task = workspace.task(review_policy="always", max_attempts=2, retry={"strategy": "none"})
    first = agent.work(task.id, "fail")
    assert workspace.get(task.id).status == "ready"
    [failed] = workspace.events(run_id=first.run_id, event_type="task.run_failed")
    assert failed.payload["review_id"] is None
    second = agent.work(task.id, "fail")
    assert workspace.get(task.id).status == "pending"
    [failed] = workspace.events(run_id=second.run_id, event_type="task.run_failed")
    assert failed.payload["review_id"] == review_of(workspace, second.run_id).review_id


def test_a_run_that_an_operator_fails_is_reviewed_and_a_canceled_one_is_not(
    workspace: Workspace, agent: Agent
) -> None:
    forced, stopped = (workspace.task(review_policy="always") for _ in range(2))
    runs = {held.task_id: held.run_id for held in agent.claims(max_runs=2)}
    workspace.operator.post(f"/api/runs/{runs[forced.id]}/fail", reason="enough")
    workspace.operator.post(f"/api/task-runs/{runs[stopped.id]}/cancel")
    assert workspace.get(forced.id).status == "pending"
    assert workspace.get(stopped.id).status == "ready"


def test_a_run_that_passed_its_deadline_is_reviewed(workspace: Workspace, agent: Agent) -> None:
    task = workspace.task(review_policy="on_failure", max_attempts=1, deadline_seconds=30)
    agent.claim()
    workspace.world.advance(31)
    workspace.sweep()
    assert workspace.get(task.id).status == "pending"


@pytest.mark.parametrize(
    ("policy", "status"), [("on_success", "completed"), ("on_failure", "failed")]
)
def test_an_approval_ends_the_task_as_its_run(
    workspace: Workspace, policy: str, status: str
) -> None:
    """P7: dependents are counted again, and queued, in the same transaction."""
    held = reviewed(workspace, policy)
    late = workspace.task(depends_on=[held.task_id], on_dependency_failure="run")
    told = by_operator(workspace, held.run_id, confidence=0.5, review_text="all of it")
    review = told.review
    assert (review.status, review.outcome, review.confidence) == ("recorded", "approved", 0.5)
    assert (review.reviewed_by.kind, review.review_text) == ("human", "all of it")
    assert (told.continuation_run, told.circuit_opened) == (None, False)
    task = workspace.get(held.task_id)
    assert (task.status, task.closed_at) == (status, review.reviewed_at)
    assert workspace.get(late.id).status == "ready"
    assert workspace.operator.get(f"/api/tasks/{late.id}/runs").runs[0].status == "queued"
    kinds = workspace.told(run_id=held.run_id)[-2:]
    assert kinds == ["task.run_review_recorded", "task.run_review_approved"]


def test_a_checkpoint_is_kept_until_the_review_approves(workspace: Workspace, agent: Agent) -> None:
    task = workspace.task(review_policy="on_success")
    held = agent.claim()
    held.complete(checkpoint={"at": 1})
    assert workspace.get(task.id).checkpoint == {"at": 1}
    by_operator(workspace, held.run_id)
    assert workspace.get(task.id).checkpoint is None


def test_a_rejection_queues_a_continuation_run(workspace: Workspace, agent: Agent) -> None:
    """It burns no attempt, and its worker is told what is missing."""
    held = reviewed(workspace, network_channel="blue", max_attempts=1)
    guidance = {"missing_work": ["tests", "docs"], "next_round_guidance": "write them"}
    told = by_operator(workspace, held.run_id, "rejected", reason="thin", **guidance)
    run = told.continuation_run
    assert (run.parent_run_id, run.review_id) == (held.run_id, told.review.review_id)
    assert (run.review_round, run.continuation_reason) == (2, "thin")
    assert (run.missing_work, run.next_round_guidance) == (["tests", "docs"], "write them")
    assert (run.previous_run_id, run.network_channel, run.attempt) == (None, "blue", 2)
    assert run.metadata == {
        "source": "task_run_review", "review_id": told.review.review_id, "outcome": "rejected",
        "parent_run_id": held.run_id,
    }  # fmt: skip
    task = workspace.get(held.task_id)
    assert (task.status, task.attempts_used) == ("ready", 1)
    assert agent.claim().claim.run.missing_work == ["tests", "docs"]
    [queued] = workspace.events(event_type="task.run_review_retry_enqueued")
    assert (queued.run_id, queued.payload["review_round"]) == (run.id, 2)
    assert len(workspace.told(event_type="task.run_enqueued")) == 1


def test_the_retry_of_a_continuation_is_told_the_same(workspace: Workspace, agent: Agent) -> None:
    """Rounds are counted along the chain of runs."""
    held = reviewed(workspace, max_attempts=3)
    run = by_operator(workspace, held.run_id, "rejected").continuation_run
    told = agent.work(held.task_id, "fail").agent
    again = told.claim().claim.run
    assert (again.previous_run_id, again.parent_run_id) == (run.id, held.run_id)
    assert (again.review_round, again.missing_work) == (2, ["tests"])
    assert workspace.get(held.task_id).attempts_used == 2
    told.post(f"/api/agent/tasks/{again.id}/complete")
    review = review_of(workspace, again.id)
    assert (review.review_round, review.parent_review_id) == (2, run.review_id)


def test_agents_reject_until_the_rounds_are_over(workspace: Workspace) -> None:
    """Then the circuit opens: no run, the task is blocked, and a person decides."""
    held = reviewed(workspace, review_max_rounds=2)
    assert claim(workspace.agent("eve")).judge("rejected").continuation_run is not None
    last = workspace.agent().work(held.task_id)
    told = claim(workspace.agent("eve")).judge("rejected")
    assert (told.circuit_opened, told.continuation_run) == (True, None)
    assert (told.review.status, told.review.outcome) == ("circuit_opened", "rejected")
    assert workspace.get(held.task_id).status == "blocked"
    assert workspace.told(run_id=last.run_id)[-1] == "task.run_review_circuit_opened"
    told = judge(workspace.operator, told.review.review_id, last.run_id, "rejected")
    assert (told.circuit_opened, told.continuation_run.review_round) == (False, 3)
    assert workspace.get(held.task_id).status == "ready"


def test_a_blocked_task_waits_for_a_person(workspace: Workspace, agent: Agent) -> None:
    held = reviewed(workspace)
    told = claim(workspace.agent("eve")).judge("blocked")
    assert (told.review.status, told.circuit_opened) == ("recorded", False)
    assert workspace.get(held.task_id).status == "blocked"
    with workspace.unchanged(), refused(409, "task_blocked", reasons=["review_blocked"]):
        workspace.operator.post(f"/api/tasks/{held.task_id}/start")
    by_operator(workspace, held.run_id, "approved")
    assert workspace.get(held.task_id).status == "completed"
    with workspace.unchanged(), refused(409, "review_already_recorded", outcome="approved"):
        by_operator(workspace, held.run_id, "rejected")


def test_a_blocked_task_may_be_run_again_instead(workspace: Workspace, agent: Agent) -> None:
    """The old verdict is then history: nobody overrules it."""
    held = reviewed(workspace)
    by_operator(workspace, held.run_id, "blocked")
    workspace.operator.post(f"/api/tasks/{held.task_id}/runs")
    with workspace.unchanged(), refused(409, "review_already_recorded"):
        by_operator(workspace, held.run_id, "approved")


@pytest.mark.parametrize("outcome", ["error", "timeout", "invalid_output"])
def test_what_comes_to_nothing_is_asked_for_again(workspace: Workspace, outcome: str) -> None:
    """At the third attempt the circuit opens; a person may go on for ever."""
    held = reviewed(workspace)
    before: Any = None
    for attempt in (1, 2, 3):
        review = review_of(workspace, held.run_id)
        parent = before and before.review_id
        assert (review.attempt, review.parent_review_id) == (attempt, parent)
        before = claim(workspace.agent("eve")).judge(outcome).review
    assert (before.status, before.outcome) == ("circuit_opened", outcome)
    assert workspace.get(held.task_id).status == "blocked"
    judge(workspace.operator, before.review_id, held.run_id, outcome)
    assert review_of(workspace, held.run_id).attempt == 4
    assert workspace.get(held.task_id).status == "pending"


def test_no_run_starts_while_a_review_is_open(workspace: Workspace) -> None:
    held = reviewed(workspace)
    review = review_of(workspace, held.run_id)
    with workspace.unchanged():
        for how in ("start", "runs"):
            with refused(409, "review_open", review_id=review.review_id):
                workspace.operator.post(f"/api/tasks/{held.task_id}/{how}")
    told = workspace.operator.get(f"/api/tasks/{held.task_id}/explain").explain
    assert [reason.code for reason in told.reasons] == ["review_open"]
    inspected = workspace.operator.get(f"/api/tasks/{held.task_id}/inspect").inspect
    assert inspected.next_action == "review_required"
    by_operator(workspace, held.run_id, "blocked")
    told = workspace.operator.get(f"/api/tasks/{held.task_id}/explain").explain
    assert [reason.code for reason in told.reasons] == ["review_blocked"]
    inspected = workspace.operator.get(f"/api/tasks/{held.task_id}/inspect").inspect
    assert inspected.next_action == "review_required"


def test_reviews_are_listed(workspace: Workspace) -> None:
    first, second = reviewed(workspace), reviewed(workspace)
    by_operator(workspace, first.run_id, "error")
    read = workspace.operator.get
    path = f"/api/tasks/{first.task_id}/reviews"
    assert [r.attempt for r in read(path, status="requested,recorded").reviews] == [2, 1]
    assert [r.attempt for r in read(path, status="recorded").reviews] == [1]
    page = read(path, limit=1)
    assert [r.attempt for r in read(path, limit=1, cursor=page.next_cursor).reviews] == [1]
    every = read("/api/task-reviews").reviews
    assert [r.run_id for r in every] == [first.run_id, second.run_id, first.run_id]
    assert read("/api/task-reviews", gating=False).reviews == []
    assert read(f"/api/task-reviews/{every[0].review_id}").review == every[0]
    with refused(404, "review_not_found", id="rev_0"):
        read("/api/task-reviews/rev_0")
    with refused(404, "task_not_found", id="t0"):
        read("/api/tasks/t0/reviews")
    with refused(404, "run_not_found", id="r0"):
        read("/api/task-runs/r0/reviews")
