"""The part of the table of routes that is about runs."""

from typing import Final

from server.api import runs
from server.api.route import Route

RUNS: Final = (
    Route(
        "GET", "/api/task-runs/{id}", runs.get_run, "tasks.get_run", errors=("run_not_found",)
    ),
    Route(
        "POST", "/api/task-runs/{id}/cancel", runs.cancel_run, "tasks.cancel_run", "OM",
        operator=True, errors=("run_not_found", "task_run_already_terminal"),
    ),
    Route(
        "POST", "/api/runs/{id}/retry", runs.retry_run, "tasks.retry_run", "OM", (201,),
        keyed=True, operator=True, errors=(
            "run_not_found", "task_run_still_active", "task_run_already_terminal",
            "run_superseded", "run_already_retried", "open_run_exists", "task_canceled",
            "retry_chain_too_deep", "lane_limit",
        ),
    ),
    Route(
        "POST", "/api/runs/{id}/recover", runs.recover_run, "tasks.recover_run", "OM", (201,),
        keyed=True, operator=True, errors=(
            "run_not_found", "task_run_not_recoverable", "task_canceled", "retry_chain_too_deep",
            "lane_limit",
        ),
    ),
)  # fmt: skip
