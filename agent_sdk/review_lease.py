"""A review in the hands of its reviewer: what is to be judged, and the verdict."""

import time
from collections.abc import Sequence
from typing import Any

from agent_sdk.api import Api
from agent_sdk.api.reviews import Judged, Review, ReviewClaim, Reviews, Verdict
from agent_sdk.heartbeats import Heartbeats
from agent_sdk.held import HeldWork
from agent_sdk.hold import Hold
from agent_sdk.lease import END_PATIENCE_SECONDS
from agent_sdk.outcome import NOTE_LIMIT_BYTES, clean
from agent_sdk.transport import PATIENCE_SECONDS, TIMEOUT_SECONDS


class ReviewHold(Hold):
    """The reviewer's side of a review's lease."""

    def __init__(self, reviews: Reviews, claim: ReviewClaim) -> None:
        super().__init__(claim.review.review_id, claim.lease)
        self._reviews = reviews

    def heartbeat(
        self, *, patience: float = PATIENCE_SECONDS, timeout: float = TIMEOUT_SECONDS
    ) -> None:
        """Prolong the lease."""
        self.raise_loss()
        sent = time.monotonic()
        with self.losing():
            self._reviews.heartbeat(self.id, self.token, patience=patience, timeout=timeout)
        self.prolonged(sent, self.seconds)

    def beat_alone(self) -> bool:
        """Send a heartbeat: those of reviews do not go together."""
        self.heartbeat(patience=0, timeout=self.beat_seconds)
        return True


class ReviewLease(HeldWork[ReviewClaim, ReviewHold]):
    """A claimed review. Handlers, sync and async ones, get it as `ctx` and return a Verdict.

    Every call raises LeaseLost once the review is no longer the holder's: it ran out, an operator
    judged, or it was canceled.
    """

    def __init__(self, api: Api, claim: ReviewClaim, heartbeats: Heartbeats) -> None:
        super().__init__(claim, ReviewHold(api.reviews, claim))
        self._reviews = api.reviews
        self._heartbeats = heartbeats

    def __repr__(self) -> str:
        return f"<ReviewLease review={self.review.review_id} run={self.run.id} fence={self.fence}>"

    @property
    def review(self) -> Review:
        """The review, as it was when it was claimed."""
        return self.claim.review

    @property
    def result(self) -> Any:
        """What the run handed in, whole; None of one that failed, whose `run.error` says why."""
        return self.claim.result

    @property
    def previous_reviews(self) -> Sequence[Review]:
        """Earlier judgements on the task, the newest five, newest first."""
        return self.claim.previous_reviews

    @property
    def missing_work(self) -> Sequence[str]:
        """What the rejection before this run asked it to do."""
        return self.run.missing_work or []

    def check(self) -> None:
        """Raise if the lease is lost."""
        self.hold.raise_loss()

    def judge(self, verdict: Verdict) -> Judged:
        """Give the verdict; a repeat after a lost answer is known by its id, and counts once."""
        with self.hold.ending():
            judged = self._reviews.verdict(
                self.review,
                verdict,
                delivery_id=f"{self.review.review_id}:{self.fence}",
                claim_token=self.hold.token,
                patience=END_PATIENCE_SECONDS,
            )
        self._heartbeats.remove(self.hold)
        return judged

    def release(self, note: str | None = None, *, patience: float = END_PATIENCE_SECONDS) -> None:
        """Give the review back, for this or another reviewer."""
        told = clean(note, NOTE_LIMIT_BYTES) if note else None
        with self.hold.ending():
            self._reviews.release(
                self.review.review_id, self.hold.token, note=told, patience=patience
            )
        self._heartbeats.remove(self.hold)
