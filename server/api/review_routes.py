"""The routes of reviews."""

from typing import Final

from server.api import reviews
from server.api.route import Route

REVIEW_LEASE_ERRORS: Final = (
    "review_not_found", "invalid_claim_token", "foreign_run", "claim_token_required",
    "no_active_lease", "stale_fence", "review_closed", "review_already_recorded",
    "lease_released", "lease_expired",
)  # fmt: skip

REVIEWS: Final = (
    Route(
        "POST", "/api/agent/reviews/claim-next", reviews.claim_review, "agent.review.next", "AOM",
        (200, 204), keyed=True, errors=("claim_key_spent", "idempotency_in_progress"),
    ),
    Route(
        "POST", "/api/agent/reviews/{id}/heartbeat", reviews.heartbeat_review,
        "agent.review.heartbeat", "AOM", errors=REVIEW_LEASE_ERRORS,
    ),
    Route(
        "POST", "/api/agent/reviews/{id}/release", reviews.release_review,
        "agent.review.release", "AOM", errors=REVIEW_LEASE_ERRORS,
    ),
    Route(
        "GET", "/api/tasks/{id}/reviews", reviews.list_task_reviews, "tasks.list_reviews",
        errors=("task_not_found",),
    ),
    Route(
        "GET", "/api/task-runs/{id}/reviews", reviews.list_run_reviews, "tasks.list_reviews",
        errors=("run_not_found",),
    ),
    Route(
        "POST", "/api/task-runs/{id}/reviews", reviews.request_review, "tasks.request_review",
        "AOM", (201, 200), keyed=True, errors=(
            "run_not_found", "review_not_found", "run_not_terminal", "review_policy_mismatch",
        ),
    ),
    Route("GET", "/api/task-reviews", reviews.search_reviews, "reviews.list"),
    Route(
        "GET", "/api/task-reviews/{id}", reviews.get_review, "tasks.get_review",
        errors=("review_not_found",),
    ),
    Route(
        "POST", "/api/task-reviews/{id}/verdict", reviews.submit_review, "tasks.submit_review",
        "AOM", errors=(
            *REVIEW_LEASE_ERRORS, "identity_required", "own_work", "open_run_exists",
            "task_canceled", "review_open",
        ),
    ),
)  # fmt: skip
