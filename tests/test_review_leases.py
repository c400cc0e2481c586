"""P2 for reviews: no call without the lease changes anything; a test a row of the table."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from server.rules.tokens import claim_token
from tests.client import Client
from tests.factories import Agent, Workspace, refused
from tests.judging import HeldReview, by_operator, claim, judge, review_of, reviewed

OPERATIONS = ("heartbeat", "release", "verdict")


class Misuse(NamedTuple):
    """A call: by whom, on which review, with what beside the operation's own fields."""

    by: Client
    held: HeldReview
    body: Mapping[str, Any] = MappingProxyType({})


def _held(w: Workspace, **task: Any) -> HeldReview:
    reviewed(w, **task)
    return claim(w.agent("eve"), lease_seconds=60)


def _no_session(w: Workspace) -> Misuse:
    return Misuse(w.client("agent", X_Agent_Name="eve"), _held(w))


def _anothers_session(w: Workspace) -> Misuse:
    held = _held(w)
    return Misuse(w.agent("bob", held.agent.session), held)


def _unknown(w: Workspace) -> Misuse:
    held = _held(w)
    held.review_id = "rev_0"
    return Misuse(held.agent, held)


def _another_workspace(w: Workspace) -> Misuse:
    other = w.world.workspace()
    return Misuse(other.agent("eve"), _held(w))


def _without_form(w: Workspace) -> Misuse:
    held = _held(w)
    return Misuse(held.agent, held, {"claim_token": f"{held.token}!"})


def _of_a_stranger(w: Workspace) -> Misuse:
    held = _held(w)
    made_up = claim_token(b"another server", w.id, held.review_id, held.fence)
    return Misuse(held.agent, held, {"claim_token": made_up})


def _of_the_run(w: Workspace) -> Misuse:
    done = reviewed(w)
    held = claim(w.agent("eve"))
    return Misuse(held.agent, held, {"claim_token": done.token})


def _another_session(w: Workspace) -> Misuse:
    return Misuse(w.agent("eve"), _held(w))


def _another_session_without_token(w: Workspace) -> Misuse:
    return Misuse(w.agent("eve"), _held(w), {"claim_token": None})


def _without_token(w: Workspace) -> Misuse:
    held = _held(w)
    return Misuse(held.agent, held, {"claim_token": None})


def _never_claimed(w: Workspace) -> Misuse:
    held, other = _held(w), reviewed(w)
    held.review_id, held.run_id = review_of(w, other.run_id).review_id, other.run_id
    return Misuse(held.agent, held, {"claim_token": None})


def _claimed_since(w: Workspace) -> Misuse:
    held = _expired(w).held
    claim(w.agent("eve"))
    return Misuse(held.agent, held)


def _fence_of_the_future(w: Workspace) -> Misuse:
    held = _held(w)
    return Misuse(held.agent, held, {"fence": held.fence + 1})


def _canceled(w: Workspace) -> Misuse:
    held = _held(w)
    w.cancel(held.task_id)
    return Misuse(held.agent, held)


def _judged_by_a_person(w: Workspace) -> Misuse:
    held = _held(w)
    by_operator(w, held.run_id, "approved", delivery_id="theirs")
    return Misuse(held.agent, held)


def _released(w: Workspace) -> Misuse:
    held = _held(w)
    held.release(reason="busy")
    return Misuse(held.agent, held)


def _expired(w: Workspace) -> Misuse:
    held = _held(w)
    w.world.advance(61)
    w.world.expire_reviews()
    return Misuse(held.agent, held)


TABLE: tuple[tuple[Callable[[Workspace], Misuse], int, str, set[str]], ...] = (
    (_no_session, 401, "identity_required", {"header"}),
    (_anothers_session, 403, "identity_mismatch", {"session_id"}),
    (_unknown, 404, "review_not_found", {"id"}),
    (_another_workspace, 404, "review_not_found", {"id"}),
    (_without_form, 409, "invalid_claim_token", {"review_id"}),
    (_of_a_stranger, 409, "invalid_claim_token", {"review_id"}),
    (_of_the_run, 409, "invalid_claim_token", {"review_id"}),
    (_another_session, 403, "foreign_run", {"review_id"}),
    (_another_session_without_token, 403, "foreign_run", {"review_id"}),
    (_without_token, 422, "claim_token_required", {"review_id"}),
    (_never_claimed, 409, "no_active_lease", {"review_id", "review_status"}),
    (_claimed_since, 409, "stale_fence", {"review_id", "fence", "current_fence"}),
    (_fence_of_the_future, 409, "stale_fence", {"review_id", "fence", "current_fence"}),
    (_canceled, 409, "review_closed", {"review_id", "outcome", "delivery_id"}),
    (
        _judged_by_a_person, 409, "review_already_recorded",
        {"review_id", "outcome", "delivery_id"},
    ),
    (
        _expired, 409, "lease_expired",
        {"review_id", "review_status", "lease_until", "deadline_at"},
    ),
)  # fmt: skip


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("row", TABLE, ids=lambda row: row[0].__name__.strip("_"))
def test_a_call_without_the_lease_changes_nothing(
    workspace: Workspace, row: tuple[Any, int, str, set[str]], operation: str
) -> None:
    situation, status, code, evidence = row
    misuse = situation(workspace)
    with workspace.unchanged(), refused(status, code) as told:
        misuse.held.by(misuse.by, operation, **misuse.body)
    assert set(told[0].evidence) == evidence


def test_a_repeated_release_of_a_review_tells_nothing_of_the_next_lease(
    workspace: Workspace,
) -> None:
    reviewed(workspace)
    held = claim(workspace.agent("judge"))
    held.release()
    claim(workspace.agent("other"))
    with workspace.unchanged():
        lease = held.release().lease
    assert (lease.fence, lease.lease_until) == (held.fence, None)


@pytest.mark.parametrize("operation", ["heartbeat", "verdict"])
def test_a_released_review_is_nobodys(workspace: Workspace, operation: str) -> None:
    misuse = _released(workspace)
    with workspace.unchanged(), refused(409, "lease_released", reason="busy"):
        misuse.held.by(misuse.by, operation)


@pytest.mark.parametrize("end", ["deadline", "circuit"])
def test_what_the_loop_recorded_stands(workspace: Workspace, end: str) -> None:
    """An agent's late verdict is told so, and a person's wins over an open circuit only."""
    held = _held(workspace, review_timeout_seconds=60)
    for _ in range(1 if end == "deadline" else 3):
        workspace.world.advance(61)
        workspace.world.expire_reviews()
    evidence = {"outcome": "timeout", "delivery_id": None}
    with workspace.unchanged(), refused(409, "review_already_recorded", **evidence):
        held.judge()
    with workspace.unchanged(), refused(409, "review_already_recorded", **evidence):
        judge(workspace.operator, held.review_id, held.run_id)
    if end == "circuit":
        assert workspace.get(held.task_id).status == "blocked"
        by_operator(workspace, held.run_id)
        assert workspace.get(held.task_id).status == "completed"


def test_a_late_call_counts_until_the_loop_has_come(workspace: Workspace) -> None:
    """Nobody else can have the review meanwhile; its deadline works the same way."""
    held, other = _held(workspace), _held(workspace, review_timeout_seconds=60)
    workspace.world.advance(61)
    held.heartbeat()
    workspace.world.expire_reviews()
    held.judge("approved")
    with refused(409, "review_already_recorded", outcome="timeout"):
        other.judge("approved")
    late = _held(workspace, review_timeout_seconds=60)
    workspace.world.advance(61)
    assert late.judge("approved").review.outcome == "approved"


def test_a_verdict_needs_the_lease_and_not_only_the_token(workspace: Workspace) -> None:
    held = _held(workspace)
    path = f"/api/task-reviews/{held.review_id}/verdict"
    agent: Agent = held.agent
    told = {"outcome": "approved", "confidence": 1, "reason": "r", "delivery_id": "d"}
    proven = agent.also(X_Claim_Token=held.token)
    with workspace.unchanged(), refused(422, "validation_failed") as faults:
        proven.post(path, run_id="run_0", verdict=told)
    assert [fault["field"] for fault in faults[0].evidence["errors"]] == ["run_id"]
    assert proven.post(path, run_id=held.run_id, verdict=told).review.delivery_id == "d"
