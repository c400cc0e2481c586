"""The table of routes: hot rows first, then by noun."""

from typing import Final

from server import limits
from server.api import (
    bridges,
    bulk,
    dependencies,
    events,
    graphs,
    keys,
    leases,
    operations,
    runs,
    subscriptions,
    tasks,
    workspaces,
)
from server.api.route import Route

LEASE_ERRORS: Final = (
    "run_not_found", "invalid_claim_token", "foreign_run", "claim_token_required",
    "no_active_lease", "stale_fence", "run_canceled", "task_run_already_terminal",
    "lease_released", "lease_revoked", "lease_expired",
)  # fmt: skip

HOT: Final = (
    Route(
        "POST", "/api/agent/tasks/claim-next", leases.claim_next, "agent.task.next", "AOM",
        (200, 204), keyed=True, errors=("claim_key_spent", "idempotency_in_progress"),
    ),
    Route(
        "POST", "/api/agent/tasks/{run_id}/heartbeat", leases.heartbeat, "agent.task.heartbeat",
        "AOM", errors=(*LEASE_ERRORS, "currency_mismatch"),
    ),
    Route(
        "POST", "/api/agent/tasks/{run_id}/complete", leases.complete, "agent.task.complete",
        "AOM", errors=(*LEASE_ERRORS, "currency_mismatch"),
    ),
    Route(
        "POST", "/api/agent/tasks/{run_id}/fail", leases.fail, "agent.task.fail", "AOM",
        errors=(*LEASE_ERRORS, "currency_mismatch"),
    ),
    Route(
        "POST", "/api/agent/tasks/{run_id}/release", leases.release, "agent.task.release", "AOM",
        errors=(*LEASE_ERRORS, "currency_mismatch"),
    ),
    Route(
        "POST", "/api/agent/tasks/bulk/heartbeat", bulk.bulk_heartbeat, "agent.task.heartbeat",
        "AOM", body_limit_bytes=limits.BULK_BODY_LIMIT_BYTES,
        errors=("bulk_too_large", "duplicate_item"),
    ),
    Route(
        "POST", "/api/agent/tasks/bulk/complete", bulk.bulk_complete, "agent.task.complete",
        "AOM", body_limit_bytes=limits.BULK_BODY_LIMIT_BYTES,
        errors=("bulk_too_large", "duplicate_item"),
    ),
    Route("GET", "/api/agent/leases", leases.list_leases, "agent.leases", "AOM"),
    Route(
        "POST", "/api/leases/verify", leases.verify, "leases.verify", errors=("run_not_found",)
    ),
)  # fmt: skip

CREATE_ERRORS: Final = (
    "task_exists", "task_not_found", "dependency_self", "dependency_exists", "dependency_limit",
    "depth_limit", "children_limit", "subtree_limit", "task_canceled", "quota_exceeded",
    "lane_limit", *LEASE_ERRORS,
)  # fmt: skip

TASKS: Final = (
    Route("GET", "/api/tasks", tasks.list_tasks, "tasks.list"),
    Route(
        "POST", "/api/tasks", tasks.create_task, "tasks.create", "AOM", (201,), keyed=True,
        guarded=True, errors=CREATE_ERRORS,
    ),
    Route(
        "POST", "/api/tasks/bulk", graphs.create_tasks, "tasks.create_bulk", "AOM", (201,),
        keyed=True, guarded=True, body_limit_bytes=limits.BULK_BODY_LIMIT_BYTES,
        errors=(
            *CREATE_ERRORS, "ref_unknown", "duplicate_ref", "bulk_too_large", "dependency_cycle",
        ),
    ),
    Route("GET", "/api/tasks/{id}", tasks.get_task, "tasks.get", errors=("task_not_found",)),
    Route(
        "PATCH", "/api/tasks/{id}", tasks.patch_task, "tasks.update", "OM", operator=True,
        errors=("task_not_found",),
    ),
    Route(
        "DELETE", "/api/tasks/{id}", tasks.delete_task, "tasks.delete", "OM", (204,),
        operator=True, errors=("task_not_found", "task_has_children", "open_run_exists"),
    ),
    Route(
        "POST", "/api/tasks/{id}/children", tasks.create_child, "tasks.create_child", "AOM",
        (201,), keyed=True, guarded=True, errors=CREATE_ERRORS,
    ),
    Route(
        "POST", "/api/tasks/{id}/start", tasks.start_task, "tasks.start", "AOM", (201,),
        keyed=True, errors=(
            "task_not_found", "task_canceled", "open_run_exists", "attempts_exhausted",
            "task_blocked", "lane_limit",
        ),
    ),
    Route(
        "POST", "/api/tasks/{id}/cancel", tasks.cancel_task, "tasks.cancel", "AOM",
        errors=("task_not_found", "task_already_terminal"),
    ),
    Route(
        "GET", "/api/tasks/{id}/dependencies", dependencies.list_dependencies,
        "tasks.list_dependencies", errors=("task_not_found",),
    ),
    Route(
        "POST", "/api/tasks/{id}/dependencies", dependencies.add_dependency,
        "tasks.add_dependency", "AOM", guarded=True, errors=(
            "task_not_found", "dependency_self", "dependency_exists", "dependency_limit",
            "dependency_cycle", *LEASE_ERRORS,
        ),
    ),
    Route(
        "DELETE", "/api/tasks/{id}/dependencies/{depends_on_id}",
        dependencies.remove_dependency, "tasks.remove_dependency", "AOM",
        errors=("task_not_found", "dependency_not_found"),
    ),
    Route(
        "GET", "/api/tasks/{id}/runs", runs.list_runs, "tasks.list_runs",
        errors=("task_not_found",),
    ),
    Route(
        "POST", "/api/tasks/{id}/runs", tasks.enqueue_run, "tasks.enqueue_run", "AOM", (201,),
        keyed=True, errors=(
            "task_not_found", "task_canceled", "open_run_exists", "attempts_exhausted",
            "lane_limit",
        ),
    ),
    Route(
        "GET", "/api/tasks/{id}/timeline", events.list_timeline, "tasks.timeline",
        errors=("task_not_found",),
    ),
    Route(
        "GET", "/api/tasks/{id}/stream", events.stream_task, "tasks.stream",
        media_type="text/event-stream", errors=("task_not_found",),
    ),
    Route(
        "GET", "/tasks/{id}/stream", events.stream_task, "tasks.stream",
        media_type="text/event-stream", errors=("task_not_found",),
    ),
)  # fmt: skip

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
    Route("GET", "/api/events", events.list_events, "events.list"),
)  # fmt: skip

BRIDGES: Final = (
    Route(
        "GET", "/api/tasks/{id}/notifications/bridges", subscriptions.list_subscriptions,
        "tasks.list_subscriptions", errors=("task_not_found",),
    ),
    Route(
        "POST", "/api/tasks/{id}/notifications/bridges", subscriptions.create_subscription,
        "tasks.create_subscription", "OM", (201, 200), keyed=True, operator=True,
        errors=(
            "task_not_found", "bridge_not_found", "subscription_exists", "subscription_not_found",
        ),
    ),
    Route(
        "GET", "/api/tasks/{id}/notifications/bridges/{subscription_id}",
        subscriptions.get_subscription, "tasks.get_subscription",
        errors=("task_not_found", "subscription_not_found"),
    ),
    Route(
        "DELETE", "/api/tasks/{id}/notifications/bridges/{subscription_id}",
        subscriptions.delete_subscription, "tasks.delete_subscription", "OM", (204,),
        operator=True, errors=("task_not_found", "subscription_not_found"),
    ),
    Route("GET", "/api/bridges", bridges.list_bridges, "bridges.list", "OM", operator=True),
    Route(
        "POST", "/api/bridges", bridges.create_bridge, "bridges.create", "OM", (201,),
        keyed=True, operator=True,
        errors=("bridge_exists", "bridge_url_refused", "bridge_not_found"),
    ),
    Route(
        "GET", "/api/bridges/{id}", bridges.get_bridge, "bridges.get", "OM", operator=True,
        errors=("bridge_not_found",),
    ),
    Route(
        "PATCH", "/api/bridges/{id}", bridges.patch_bridge, "bridges.update", "OM",
        operator=True, errors=("bridge_not_found", "bridge_exists", "bridge_url_refused"),
    ),
    Route(
        "DELETE", "/api/bridges/{id}", bridges.delete_bridge, "bridges.delete", "OM", (204,),
        operator=True, errors=("bridge_not_found",),
    ),
    Route(
        "GET", "/api/bridges/{id}/deliveries", bridges.list_deliveries, "bridges.deliveries",
        "OM", operator=True, errors=("bridge_not_found",),
    ),
)  # fmt: skip

KEYS: Final = (
    Route(
        "GET", "/api/keys", keys.list_keys, "keys.list", "M", operator=True, every_workspace=True
    ),
    Route(
        "POST", "/api/keys", keys.create_key, "keys.create", "M", (201,), keyed=True,
        operator=True, every_workspace=True, errors=("key_exists", "workspace_not_found"),
    ),
    Route(
        "POST", "/api/keys/{id}/rotate", keys.rotate_key, "keys.rotate", "M", (201,), keyed=True,
        operator=True, every_workspace=True, errors=("key_not_found", "key_revoked"),
    ),
    Route(
        "DELETE", "/api/keys/{id}", keys.revoke_key, "keys.revoke", "M", (204,),
        operator=True, every_workspace=True, errors=("key_not_found", "last_admin_key"),
    ),
)  # fmt: skip

WORKSPACES: Final = (
    Route("GET", "/api/workspaces", workspaces.list_workspaces, "workspaces.list", "AOM"),
    Route(
        "POST", "/api/workspaces", workspaces.create_workspace, "workspaces.create", "M", (201,),
        keyed=True, operator=True, errors=("workspace_exists",),
    ),
    Route("GET", "/api/workspaces/{id}", workspaces.get_workspace, "workspaces.get", "AOM"),
    Route(
        "PATCH", "/api/workspaces/{id}", workspaces.patch_workspace, "workspaces.update", "OM",
        operator=True,
    ),
)  # fmt: skip

OPERATIONS: Final = (
    Route("GET", "/api/whoami", operations.whoami, "whoami"),
    Route("GET", "/healthz", operations.healthz, "healthz", roles=""),
    Route("GET", "/readyz", operations.readyz, "readyz", roles="", ok=(200, 503)),
    Route("GET", "/version", operations.version, "version", roles=""),
    Route(
        "GET", "/metrics", operations.metrics, "metrics", roles="", media_type="text/plain",
        errors=("authentication_required", "invalid_credentials"),
    ),
    Route("GET", "/openapi.json", operations.openapi, "openapi", roles=""),
)  # fmt: skip

ROUTES: Final = (*HOT, *TASKS, *RUNS, *BRIDGES, *KEYS, *WORKSPACES, *OPERATIONS)
