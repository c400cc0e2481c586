"""Ends reviews whose time is over, and takes them from reviewers that are not heard of any more."""

from collections.abc import Callable
from functools import partial

from server.db.pool import Asked, Fault
from server.loops.every import in_batches
from server.store import reviews
from server.telemetry import LoopFailed, ReviewRecorded, occur


async def run_once(
    db: Asked, limit: int, max_attempts: int, max_expiries: int, changed: Callable[[str, int], None]
) -> int:
    """Deals with the late reviews of one pass; how many."""

    async def expire(workspace_id: str, late: list[str]) -> int:
        done = await reviews.expire_reviews(db, workspace_id, late, max_attempts, max_expiries)
        for outcome in done.outcomes:
            occur(ReviewRecorded, outcome=outcome)
        ended = len(done.outcomes) + done.put_back
        if ended:
            changed(workspace_id, 0)
        return ended

    async def set_aside(workspace_id: str, review_id: str, error: Fault) -> None:
        occur(LoopFailed, loop="reviews", error=error, review_id=review_id)
        await reviews.set_review_aside(db, workspace_id, review_id)

    return await in_batches(partial(reviews.late_reviews, db, limit), expire, set_aside)
