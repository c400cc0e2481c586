"""The part of the table of routes that is about runs."""

from typing import Final

from server.api import force, force_bulk, manual, runs
from server.api.route import Route

RUNS: Final = (
    Route(
        "GET", "/api/task-runs/{id}", runs.get_run, "tasks.get_run", errors=("run_not_found",)
    ),
    Route(
        "POST", "/api/task-runs/{id}/cancel", runs.cancel_run, "tasks.cancel_run", "OM",
        operator=True, errors=("run_not_found", "task_run_already_terminal"),
    ),
)  # fmt: skip

LEASE_ERRORS: Final = (
    "run_not_found", "invalid_claim_token", "foreign_run", "claim_token_required",
    "no_active_lease", "stale_fence", "run_canceled", "task_run_already_terminal",
    "lease_released", "lease_revoked", "lease_expired",
)  # fmt: skip
BY_HAND: Final = (*LEASE_ERRORS, "identity_required", "lease_held", "run_not_claimed")

MANUAL: Final = (
    Route(
        "POST", "/api/task-runs/{id}/claim", manual.claim_run, "tasks.claim_run", "OM",
        keyed=True, operator=True,
        errors=("run_not_found", "run_not_queued", "run_not_claimable", "identity_required"),
    ),
    Route(
        "POST", "/api/task-runs/{id}/attach-session", manual.attach_session,
        "tasks.attach_run_session", "OM", operator=True, errors=(
            "run_not_found", "session_already_bound", "run_not_claimed", "identity_required",
        ),
    ),
    Route(
        "POST", "/api/task-runs/{id}/start", manual.start_run, "tasks.start_run", "AOM",
        errors=BY_HAND,
    ),
    Route(
        "POST", "/api/task-runs/{id}/complete", manual.complete_run, "tasks.complete_run", "AOM",
        errors=BY_HAND,
    ),
    Route(
        "POST", "/api/task-runs/{id}/fail", manual.fail_run, "tasks.fail_run", "AOM",
        errors=BY_HAND,
    ),
)  # fmt: skip

RETRY_ERRORS: Final = (
    "run_not_found", "task_run_still_active", "task_run_already_terminal", "run_superseded",
    "run_already_retried", "open_run_exists", "task_canceled", "retry_chain_too_deep",
    "lane_limit",
)  # fmt: skip

FORCE: Final = (
    Route(
        "POST", "/api/runs/{id}/release", force.force_release, "tasks.force_release_run", "OM",
        operator=True, errors=("run_not_found", "task_run_not_releasable"),
    ),
    Route(
        "POST", "/api/runs/{id}/fail", force.force_fail, "tasks.force_fail_run", "OM",
        operator=True,
        errors=("run_not_found", "force_op_requires_reason", "task_run_already_terminal"),
    ),
    Route(
        "POST", "/api/runs/{id}/retry", force.retry_run, "tasks.retry_run", "OM", (201,),
        keyed=True, operator=True, errors=RETRY_ERRORS,
    ),
    Route(
        "POST", "/api/runs/{id}/recover", force.recover_run, "tasks.recover_run", "OM", (201,),
        keyed=True, operator=True, errors=(
            "run_not_found", "task_run_not_recoverable", "task_canceled", "retry_chain_too_deep",
            "lane_limit",
        ),
    ),
    Route(
        "POST", "/api/runs/bulk/release", force_bulk.bulk_release, "tasks.bulk_release_runs",
        "OM", operator=True, errors=("bulk_too_large",),
    ),
    Route(
        "POST", "/api/runs/bulk/fail", force_bulk.bulk_fail, "tasks.bulk_fail_runs", "OM",
        operator=True, errors=("bulk_too_large", "force_op_requires_reason"),
    ),
    Route(
        "POST", "/api/runs/bulk/retry", force_bulk.bulk_retry, "tasks.bulk_retry_runs", "OM",
        keyed=True, operator=True, errors=("bulk_too_large",),
    ),
    Route(
        "POST", "/api/runs/bulk/recover", force_bulk.bulk_recover, "tasks.bulk_recover_runs",
        "OM", keyed=True, operator=True, errors=("bulk_too_large",),
    ),
)  # fmt: skip
