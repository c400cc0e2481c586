"""Reviews are claimed like work, under a lease of their own, never by who did it."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.factories import Agent, Workspace, refused, seconds
from tests.judging import by_operator, claim, review_of, reviewed, reviews

ROUTING = [
    ({"agent_name": "eve"}, {}), ({"allowed_agent_names": ["eve"]}, {}),
    ({"required_capabilities": ["read"]}, {"capabilities": ["read", "more"]}),
    ({"allowed_channel_ids": ["blue"]}, {"channel": "blue"}),
    ({"allowed_peer_ids": ["p1"]}, {"peer_id": "p1"}),
]  # fmt: skip


@pytest.fixture
def eve(workspace: Workspace) -> Agent:
    """A reviewer."""
    return workspace.agent("eve")


def test_a_claim_hands_out_all_that_a_reviewer_needs(workspace: Workspace, eve: Agent) -> None:
    held = reviewed(workspace, payload={"do": 1}, description="all")
    got = claim(eve, lease_seconds=60, channel="blue", peer_id="p1").claim
    assert (got.review.status, got.review.reviewer_agent_name) == ("routed", "eve")
    assert (got.review.reviewer_channel_id, got.review.reviewer_peer_id) == ("blue", "p1")
    assert (got.run.id, got.task.id) == (held.run_id, held.task_id)
    assert (got.payload, got.description, got.result) == ({"do": 1}, "all", {"made": 1})
    assert (got.lease.lease_seconds, got.lease.lease_until) == (60, got.review.lease_until)
    assert seconds(got.review.lease_until, got.review.routed_at) == 60
    assert (got.previous_reviews, got.execution_profile) == ([], None)
    [bound] = workspace.events(event_type="task.run_review_bound")
    assert bound.payload == {
        "review_id": got.review.review_id, "session_id": eve.session,
        "reviewer_agent_name": "eve", "reviewer_peer_id": "p1", "reviewer_channel_id": "blue",
        "task_status": "pending", "status": "completed", "attempt": 1, "fence": 1,
    }  # fmt: skip


def test_a_gating_review_draws_from_the_fence_of_its_task(workspace: Workspace, eve: Agent) -> None:
    """P3: the claim of the next run has the next number."""
    held = reviewed(workspace)
    review = claim(eve)
    assert (held.fence, review.fence, workspace.get(held.task_id).fence) == (1, 2, 2)
    review.judge("rejected")
    assert workspace.agent().claim().fence == 3


def test_nobody_is_handed_the_review_of_their_own_work(workspace: Workspace, eve: Agent) -> None:
    """Neither the same agent in another session, nor the same session."""
    task = workspace.task(review_policy="always")
    held = workspace.agent("worker").work(task.id)
    assert reviews(held.agent) == reviews(workspace.agent("worker")) == []
    assert claim(eve).run_id == held.run_id


@pytest.mark.parametrize(("demands", "wish"), ROUTING)
def test_the_profile_says_who_may_review(
    workspace: Workspace, demands: dict[str, Any], wish: dict[str, Any]
) -> None:
    reviewed(workspace, execution_profile={"review": demands})
    assert reviews(workspace.agent("bob")) == []
    assert claim(workspace.agent("eve"), **wish).claim.execution_profile.review is not None


def test_reviews_come_in_the_order_of_their_deadlines(workspace: Workspace, eve: Agent) -> None:
    """Then in that of their requests."""
    late = [reviewed(workspace).run_id for _ in range(2)]
    soon = reviewed(workspace, review_timeout_seconds=60).run_id
    assert [claim(eve).run_id for _ in range(3)] == [soon, *late]
    assert reviews(eve) == []
    told = eve.get("/api/agent/leases").reviews
    assert [review.run_id for review in told] == [soon, *late]


def test_previous_reviews_are_told(workspace: Workspace, eve: Agent) -> None:
    held = reviewed(workspace)
    by_operator(workspace, held.run_id, "rejected", reason="thin")
    workspace.agent().work(held.task_id)
    [before] = claim(eve).claim.previous_reviews
    assert (before.outcome, before.reason) == ("rejected", "thin")


def test_a_repeated_claim_answers_the_same_lease(workspace: Workspace, eve: Agent) -> None:
    """P5: a lost reply loses no review."""
    reviewed(workspace)
    reviewed(workspace)
    first = claim(eve, "k", lease_seconds=60)
    with workspace.unchanged():
        again = claim(eve, "k", lease_seconds=60)
    assert eve.replayed
    assert (again.token, again.claim.lease) == (first.token, first.claim.lease)
    with refused(422, "idempotency_key_reused"):
        reviews(eve, "k", lease_seconds=61)
    first.release()
    with workspace.unchanged(), refused(409, "claim_key_spent", review_ids=[first.review_id]):
        reviews(eve, "k", lease_seconds=60)


def test_the_first_heartbeat_begins_the_review(workspace: Workspace, eve: Agent) -> None:
    """Later ones renew the lease, never shorten it, and are no events."""
    reviewed(workspace)
    held = claim(eve, lease_seconds=60)
    told = held.heartbeat()
    assert (told.review.status, told.review.started_at is None) == ("in_review", False)
    assert workspace.told()[-1] == "task.run_review_started"
    workspace.world.advance(30)
    with workspace.unchanged("review_lease"):
        again = held.heartbeat(lease_seconds=90)
    assert seconds(again.lease.lease_until, told.lease.lease_until) > 59
    shorter = held.heartbeat(lease_seconds=5)
    assert shorter.lease.lease_until == again.lease.lease_until


def test_a_lease_ends_at_the_deadline_of_its_review(workspace: Workspace, eve: Agent) -> None:
    reviewed(workspace, review_timeout_seconds=60)
    held = claim(eve, lease_seconds=90)
    assert held.claim.lease.lease_until == held.claim.review.deadline_at
    assert held.heartbeat(lease_seconds=90).lease.lease_until == held.claim.review.deadline_at


def test_a_released_review_goes_to_the_next(workspace: Workspace, eve: Agent) -> None:
    reviewed(workspace)
    held = claim(eve)
    held.heartbeat()
    told = held.release(reason="busy", note="look at the tests").review
    assert (told.status, told.reviewer_session_id, told.lease_until) == ("requested", None, None)
    assert (told.routed_at, told.started_at, told.lease_expiries) == (None, None, 0)
    event = workspace.events(event_type="task.run_review_released")[0]
    assert (event.payload["cause"], event.payload["note"]) == ("release", "look at the tests")
    with workspace.unchanged():
        held.release()
    assert eve.replayed
    assert claim(workspace.agent("bob")).review_id == held.review_id


def test_two_reviewers_claim_one_review_and_one_gets_it(workspace: Workspace) -> None:
    """P1 for reviews."""
    for _ in range(5):
        reviewed(workspace)
        agents = [workspace.agent(f"r{n}") for n in range(6)]
        with ThreadPoolExecutor(6) as pool:
            got = [held for found in pool.map(reviews, agents) for held in found]
        assert len(got) <= 1
        got = got or [claim(agents[0])]
        got[0].judge()


def test_a_waiting_reviewer_is_woken_by_a_request(workspace: Workspace, eve: Agent) -> None:
    task = workspace.task(review_policy="on_success")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(claim, eve, wait_seconds=30)
        workspace.world.until_waiting()
        held = workspace.agent().work(task.id)
        assert waiting.result(20).run_id == held.run_id


def test_a_wait_ends_with_nothing_to_review(workspace: Workspace, eve: Agent) -> None:
    assert reviews(eve, wait_seconds=1) == []
    assert int(eve.last.headers["Retry-After"]) >= 1


def test_a_held_review_counts_as_a_lease_of_its_session(workspace: Workspace, eve: Agent) -> None:
    reviewed(workspace)
    claim(eve)
    [session] = workspace.operator.get("/api/sessions", agent_name="eve").sessions
    assert session.lease_count == 1


def test_a_review_shows_its_reviewer(workspace: Workspace, eve: Agent) -> None:
    held = reviewed(workspace)
    told = claim(eve, peer_id="p").judge()
    assert (told.review.reviewed_by.kind, told.review.reviewed_by.ref) == (
        "agent_session", eve.session,
    )  # fmt: skip
    path = f"/api/tasks/{held.task_id}/reviews"
    read = workspace.operator.get
    assert read(path, reviewer_session_id=eve.session).reviews == [told.review]
    assert read(path, reviewer_session_id="another").reviews == []
    assert review_of(workspace, held.run_id).reviewer_peer_id == "p"


def test_a_paused_scheduler_hands_out_no_review(workspace: Workspace, eve: Agent) -> None:
    """A waiting reviewer gets it at the resume; who holds one goes on."""
    reviewed(workspace)
    held = claim(eve)
    workspace.operator.post("/api/scheduler/pause", reason="stop")
    reviewed_run = review_of(workspace, held.run_id).run_id
    held.release()
    with workspace.unchanged():
        assert reviews(eve) == []
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(claim, eve, wait_seconds=30)
        workspace.world.until_waiting()
        workspace.operator.post("/api/scheduler/resume")
        assert waiting.result(20).run_id == reviewed_run
