"""Reviewers in tests: a claimed review in its agent's hands, and verdicts by it or by people."""

from itertools import count
from typing import Any

from tests.client import Client
from tests.factories import Agent, Held, Workspace

CLAIM = "/api/agent/reviews/claim-next"
DELIVERIES = count(1)


class HeldReview:
    """A claimed review; each call shows the token unless told otherwise."""

    def __init__(self, agent: Agent, claim: Any) -> None:
        self.agent, self.claim = agent, claim
        self.review_id, self.run_id = claim.review.review_id, claim.run.id
        self.task_id, self.token, self.fence = (
            claim.task.id, claim.lease.claim_token, claim.lease.fence,
        )  # fmt: skip

    def heartbeat(self, **body: Any) -> Any:
        return self.by(self.agent, "heartbeat", **body)

    def release(self, **body: Any) -> Any:
        return self.by(self.agent, "release", **body)

    def by(self, agent: Client, operation: str, **body: Any) -> Any:
        """Calls as anybody; claim_token None leaves it out."""
        told = {"claim_token": self.token, **body}
        told = {name: value for name, value in told.items() if value is not None}
        if operation == "verdict":
            return judge(agent, self.review_id, self.run_id, **told)
        return agent.post(f"/api/agent/reviews/{self.review_id}/{operation}", **told)

    def judge(self, outcome: str = "approved", **body: Any) -> Any:
        """Hands in a verdict as the holder."""
        return self.by(self.agent, "verdict", outcome=outcome, **body)


def verdict(outcome: str, **fields: Any) -> dict[str, Any]:
    """A verdict that keeps to the rules."""
    told = {"outcome": outcome, "confidence": 0.9, "reason": "looked", **fields}
    told.setdefault("delivery_id", f"d{next(DELIVERIES)}")
    if outcome == "rejected" and "next_round_guidance" not in fields:
        told.setdefault("missing_work", ["tests"])
    return told


def judge(by: Client, review_id: str, run_id: str, outcome: str = "approved", **body: Any) -> Any:
    """Judges a review; proof of a lease goes beside the verdict."""
    proof = {name: body.pop(name) for name in ("claim_token", "fence") if name in body}
    told = verdict(outcome, **body)
    path = f"/api/task-reviews/{review_id}/verdict"
    return by.post(path, run_id=run_id, verdict=told, **proof)


def reviews(agent: Agent, key: str | None = None, /, **wish: Any) -> list[HeldReview]:
    """What a claim gets; nothing is an empty list."""
    told = agent.post(CLAIM, key, **wish)
    return [] if told is None else [HeldReview(agent, told.claim)]


def claim(agent: Agent, key: str | None = None, /, **wish: Any) -> HeldReview:
    """One claim, which must find a review."""
    [held] = reviews(agent, key, **wish)
    return held


def reviewed(w: Workspace, policy: str = "on_success", **fields: Any) -> Held:
    """A run that ended in a way that asks for a review."""
    task = w.task(review_policy=policy, retry={"strategy": "none"}, **fields)
    if policy == "on_failure":
        return w.agent().work(task.id, "fail", retryable=False)
    return w.agent().work(task.id, result={"made": 1})


def review_of(w: Workspace, run_id: str) -> Any:
    """The newest review of a run."""
    return w.operator.get(f"/api/task-runs/{run_id}/reviews", limit=1).reviews[0]


def by_operator(w: Workspace, run_id: str, outcome: str = "approved", **body: Any) -> Any:
    """A person judges the newest review of a run."""
    review = review_of(w, run_id)
    return judge(w.operator, review.review_id, run_id, outcome, **body)
