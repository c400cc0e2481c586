"""Reviews by hand: nothing waits for them, but what they reject is done again."""

from typing import Any

import pytest

from tests.factories import Agent, Held, Workspace, refused, seconds
from tests.judging import by_operator, claim, judge, review_of, reviewed


def _ask(by: Any, run_id: str, key: str | None = None, /, **body: Any) -> Any:
    return by.post(f"/api/task-runs/{run_id}/reviews", key, **body)


@pytest.fixture
def done(workspace: Workspace) -> Held:
    """A run that completed, and is not reviewed."""
    return workspace.agent().work(workspace.task().id, result=1)


def test_a_review_by_hand_gates_nothing(workspace: Workspace, done: Held) -> None:
    told = _ask(done.agent, done.run_id, reason="to be sure")
    review = told.review
    assert (told.created, review.gating, review.policy) == (True, False, "always")
    assert (review.reason, review.status, review.attempt) == ("to be sure", "requested", 1)
    assert seconds(review.deadline_at, review.requested_at) == 86400
    assert workspace.get(done.task_id).status == "completed"
    told = by_operator(workspace, done.run_id)
    assert (told.review.status, told.continuation_run) == ("recorded", None)
    assert workspace.get(done.task_id).status == "completed"


def test_there_is_one_review_of_a_run_round_and_attempt(workspace: Workspace, done: Held) -> None:
    first = _ask(workspace.operator, done.run_id).review
    with workspace.unchanged():
        told = _ask(workspace.operator, done.run_id, reason="another")
    assert (told.created, told.review, workspace.operator.last.status_code) == (False, first, 200)
    assert _ask(workspace.operator, done.run_id, attempt=2).created
    assert _ask(workspace.operator, done.run_id, review_round=2).created
    gated = reviewed(workspace)
    told = _ask(workspace.operator, gated.run_id)
    assert (told.created, told.review.gating) == (False, True)


def test_a_repeated_request_answers_the_same_review(workspace: Workspace, done: Held) -> None:
    """P5."""
    first = _ask(workspace.operator, done.run_id, "k")
    with workspace.unchanged():
        assert _ask(workspace.operator, done.run_id, "k") == first
    assert workspace.operator.replayed
    assert workspace.operator.last.status_code == 201


def test_a_rejection_by_hand_queues_a_continuation(workspace: Workspace, done: Held) -> None:
    """Whoever waits for the task waits again."""
    late = workspace.task(depends_on=[done.task_id])
    _ask(workspace.operator, done.run_id)
    run = claim(workspace.agent("eve")).judge("rejected").continuation_run
    assert (run.parent_run_id, run.review_round) == (done.run_id, 2)
    task = workspace.get(done.task_id)
    assert (task.status, task.closed_at, task.attempts_used) == ("ready", None, 1)
    assert workspace.get(late.id).dependencies_waiting == 1


def test_a_review_by_hand_counts_fences_of_its_own(workspace: Workspace, done: Held) -> None:
    _ask(workspace.operator, done.run_id)
    first = claim(workspace.agent("eve"))
    first.release()
    second = claim(workspace.agent("eve"))
    assert (first.fence, second.fence, workspace.get(done.task_id).fence) == (1, 2, 1)


def test_a_rejection_by_hand_needs_a_task_that_can_run(workspace: Workspace, done: Held) -> None:
    review = _ask(workspace.operator, done.run_id).review
    run = workspace.operator.post(f"/api/tasks/{done.task_id}/start").run
    with workspace.unchanged(), refused(409, "open_run_exists", run_id=run.id):
        judge(workspace.operator, review.review_id, done.run_id, "rejected")
    workspace.operator.patch(f"/api/tasks/{done.task_id}", review_policy="always")
    held = workspace.agent().work(done.task_id)
    gating = review_of(workspace, held.run_id).review_id
    with workspace.unchanged(), refused(409, "review_open", review_id=gating):
        judge(workspace.operator, review.review_id, done.run_id, "rejected")
    assert judge(workspace.operator, review.review_id, done.run_id).review.outcome == "approved"


def test_a_canceled_task_goes_on_no_more(workspace: Workspace) -> None:
    task = workspace.task()
    held = workspace.agent().claim()
    workspace.cancel(task.id)
    review = _ask(workspace.operator, held.run_id, policy="on_failure").review
    with workspace.unchanged(), refused(409, "task_canceled"):
        judge(workspace.operator, review.review_id, held.run_id, "rejected")


@pytest.mark.parametrize("outcome", ["blocked", "error", "timeout", "invalid_output"])
def test_other_verdicts_by_hand_are_recorded_only(
    workspace: Workspace, done: Held, outcome: str
) -> None:
    _ask(workspace.operator, done.run_id)
    told = claim(workspace.agent("eve")).judge(outcome)
    assert (told.review.status, told.circuit_opened) == ("recorded", False)
    assert len(workspace.operator.get("/api/task-reviews").reviews) == 1
    assert workspace.get(done.task_id).status == "completed"


@pytest.mark.parametrize(
    ("policy", "end", "fits"),
    [("on_success", "complete", True), ("on_failure", "complete", False),
     ("on_success", "fail", False), ("on_failure", "fail", True), ("always", "cancel", True),
     ("on_success", "cancel", False), ("on_failure", "cancel", True)],
)  # fmt: skip
def test_the_policy_must_fit_how_the_run_ended(
    workspace: Workspace, agent: Agent, policy: str, end: str, fits: bool
) -> None:
    task = workspace.task(max_attempts=1)
    held = agent.work(task.id, end) if end != "cancel" else agent.claim()
    if end == "cancel":
        workspace.operator.post(f"/api/task-runs/{held.run_id}/cancel")
    if fits:
        assert _ask(workspace.operator, held.run_id, policy=policy).created
    else:
        with workspace.unchanged(), refused(409, "review_policy_mismatch", policy=policy):
            _ask(workspace.operator, held.run_id, policy=policy)


def test_a_run_is_reviewed_when_it_has_ended(workspace: Workspace, agent: Agent) -> None:
    workspace.task()
    held = agent.claim()
    with workspace.unchanged(), refused(409, "run_not_terminal", run_status="claimed"):
        _ask(workspace.operator, held.run_id)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"policy": "none"}, "policy"), ({"run_id": "run_0"}, "run_id"),
    ({"task_id": "task_0"}, "task_id"), ({"attempt": 0}, "attempt"),
    ({"attempt": 1_000_001}, "attempt"), ({"review_round": 2**31 - 1}, "review_round"),
    ({"deadline_at": "2020-01-01T00:00:00Z"}, "deadline_at"),
    ({"deadline_at": "2099-01-01T00:00:00Z"}, "deadline_at"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "field"), BAD)
def test_a_request_says_what_fits(
    workspace: Workspace, done: Held, body: dict[str, Any], field: str
) -> None:
    with workspace.unchanged(), refused(422, "validation_failed") as told:
        _ask(workspace.operator, done.run_id, **body)
    assert [fault["field"] for fault in told[0].evidence["errors"]] == [field]


def test_the_last_round_that_may_be_asked_for_is_judged_too(
    workspace: Workspace, done: Held
) -> None:
    """A rejection adds one to it."""
    review = _ask(workspace.operator, done.run_id, review_round=1_000_000).review
    told = judge(workspace.operator, review.review_id, done.run_id, "rejected")
    assert told.continuation_run.review_round == 1_000_001


def test_what_is_unknown_is_not_found(workspace: Workspace, done: Held) -> None:
    with workspace.unchanged():
        with refused(404, "run_not_found", id="run_0"):
            _ask(workspace.operator, "run_0")
        with refused(404, "review_not_found", id="rev_0"):
            _ask(workspace.operator, done.run_id, parent_review_id="rev_0")
        with refused(404, "run_not_found"):
            _ask(workspace.world.workspace().operator, done.run_id)


def test_viewers_ask_for_nothing(workspace: Workspace, done: Held) -> None:
    viewer = workspace.client("viewer")
    with workspace.unchanged(), refused(403, "forbidden"):
        _ask(viewer, done.run_id)
