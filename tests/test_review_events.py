"""What the log tells of reviews: each event with its payload, and nothing else."""

from typing import Final

from tests.factories import Workspace
from tests.judging import by_operator, claim, review_of, reviewed

RUN: Final = {"task_status", "status", "attempt", "fence"}
BOUND: Final = RUN | {
    "review_id", "session_id", "reviewer_agent_name", "reviewer_peer_id", "reviewer_channel_id",
}  # fmt: skip
VERDICT: Final = RUN | {
    "review_id", "outcome", "confidence", "reason", "delivery_id", "review_round",
    "missing_work", "next_round_guidance", "continuation_run_id",
}  # fmt: skip
OUTCOMES: Final = ("approved", "rejected", "blocked", "error", "timeout", "invalid_output")
PAYLOADS: Final = {
    "requested": RUN | {
        "review_id", "policy", "review_round", "review_attempt", "gating", "deadline_at",
    },
    "bound": BOUND,
    "started": BOUND,
    "released": RUN | {"review_id", "session_id", "cause", "note"},
    "recorded": VERDICT,
    **dict.fromkeys(OUTCOMES, VERDICT),
    "circuit_opened": RUN | {"review_id", "outcome", "review_round", "review_attempt"},
    "canceled": RUN | {"review_id", "cause"},
    "retry_enqueued": RUN | {
        "review_id", "parent_run_id", "continuation_run_id", "review_round",
    },
}  # fmt: skip


def test_each_event_of_a_review_tells_what_the_contract_says(workspace: Workspace) -> None:
    eve = workspace.agent("eve")
    reviewed(workspace, review_max_rounds=1)
    claim(eve).judge("rejected")
    for outcome in OUTCOMES:
        held = reviewed(workspace)
        by_operator(workspace, held.run_id, outcome)
        review = review_of(workspace, held.run_id)
        if review.status == "requested":
            claim(eve).release(note="n")
        workspace.operator.post(f"/api/task-runs/{held.run_id}/reviews", attempt=9)
        workspace.cancel(reviewed(workspace).task_id)
    workspace.agent().claims()
    reviewed(workspace)
    claim(eve).heartbeat()
    told = workspace.events()
    told = [event for event in told if event.event_type.startswith("task.run_review_")]
    kinds = {event.event_type.removeprefix("task.run_review_") for event in told}
    assert kinds == set(PAYLOADS)
    for event in told:
        wanted = PAYLOADS[event.event_type.removeprefix("task.run_review_")]
        assert set(event.payload) == wanted, event.event_type
    assert {(event.actor.kind, event.origin.ref) for event in told} >= {
        ("agent_session", "agent.review.next"), ("human", "tasks.submit_review"),
        ("agent_session", "agent.task.complete"), ("human", "tasks.cancel"),
    }  # fmt: skip


def test_a_review_tells_no_secret(workspace: Workspace) -> None:
    """P12: its token is in the claim's answer only."""
    eve = workspace.agent("eve")
    reviewed(workspace)
    held = claim(eve)
    held.heartbeat()
    held.release()
    held = claim(eve)
    held.judge()
    for token in (held.token, held.token.split("_")[-1]):
        assert token not in str(workspace.snapshot())
        assert token not in str(eve.get("/api/agent/leases"))
        assert token not in eve.http.get("/metrics").text


def test_another_workspace_sees_no_review(workspace: Workspace) -> None:
    """P12: it answers as if there were none."""
    held = reviewed(workspace)
    other = workspace.world.workspace().operator
    review = review_of(workspace, held.run_id)
    paths = (f"/api/task-reviews/{review.review_id}", f"/api/tasks/{held.task_id}/reviews")
    for path in (*paths, f"/api/task-runs/{held.run_id}/reviews"):
        answer = other.http.get(path, headers=other.sent())
        assert answer.status_code == 404
    assert other.get("/api/task-reviews").reviews == []


def test_the_stream_of_a_session_tells_nothing_of_its_reviews(workspace: Workspace) -> None:
    """It is told of its leases on runs; a heartbeat tells what became of a review."""
    listed = workspace.operator.get("/api/events", event_type="task.run_review_bound").events
    assert listed == []
    eve = workspace.agent("eve")
    held = reviewed(workspace)
    claim(eve)
    by_operator(workspace, held.run_id)
    [ended] = workspace.world.db.execute(
        "select count(*) from _signals(%s, %s, 0, 1000)", [workspace.id, [eve.session]]
    )
    assert ended == (0,)
