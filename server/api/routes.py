"""The table of routes: hot rows first, then by noun."""

from typing import Final

from server import limits
from server.api import (
    approvals,
    bulk,
    dashboard,
    dependencies,
    docs,
    drafts,
    events,
    graphs,
    inbox,
    inspect,
    keys,
    leases,
    observe,
    operations,
    pauses,
    profiles,
    runs,
    sessions,
    streams,
    tasks,
    tickets,
    workspaces,
)
from server.api.bridge_routes import BRIDGES
from server.api.review_routes import REVIEWS
from server.api.route import Route
from server.api.run_routes import FORCE, LEASE_ERRORS, MANUAL, RUNS
from server.api.scheduler_routes import SCHEDULER

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
        "GET", "/api/agent/stream", streams.stream_session, "agent.stream", "AOM",
        media_type="text/event-stream",
    ),
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
        "POST", "/api/tasks/{id}/publish", drafts.publish_task, "tasks.publish", "AOM",
        keyed=True, errors=(
            "task_not_found", "task_not_draft", "task_canceled", "task_blocked", "lane_limit",
        ),
    ),
    Route(
        "POST", "/api/tasks/{id}/start", tasks.start_task, "tasks.start", "AOM", (201,),
        keyed=True, errors=(
            "task_not_found", "task_draft", "task_canceled", "open_run_exists", "review_open",
            "attempts_exhausted", "task_blocked", "lane_limit",
        ),
    ),
    Route(
        "POST", "/api/tasks/{id}/approve", approvals.approve_task, "tasks.approve", "OM", (201,),
        keyed=True, operator=True, errors=(
            "task_not_found", "approval_not_pending", "task_canceled", "lane_limit",
        ),
    ),
    Route(
        "POST", "/api/tasks/{id}/reject", approvals.reject_task, "tasks.reject", "OM",
        operator=True, errors=("task_not_found", "approval_not_pending", "task_canceled"),
    ),
    Route(
        "POST", "/api/tasks/{id}/cancel", tasks.cancel_task, "tasks.cancel", "AOM",
        errors=("task_not_found", "task_already_terminal"),
    ),
    Route(
        "POST", "/api/tasks/{id}/pause", pauses.pause_task, "tasks.pause_task", "OM",
        operator=True,
        errors=("task_not_found", "task_already_terminal", "force_op_requires_reason"),
    ),
    Route(
        "POST", "/api/tasks/{id}/resume", pauses.resume_task, "tasks.resume_task", "OM",
        operator=True, errors=("task_not_found",),
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
        "GET", "/api/tasks/{id}/execution-profile", profiles.get_profile, "tasks.get_profile",
        errors=("task_not_found",),
    ),
    Route(
        "PUT", "/api/tasks/{id}/execution-profile", profiles.put_profile, "tasks.set_profile",
        "OM", operator=True, errors=("task_not_found", "profile_locked", "lane_limit"),
    ),
    Route(
        "DELETE", "/api/tasks/{id}/execution-profile", profiles.delete_profile,
        "tasks.delete_profile", "OM", (204,), operator=True,
        errors=("task_not_found", "profile_not_found", "profile_locked", "lane_limit"),
    ),
    Route(
        "GET", "/api/tasks/{id}/runs", runs.list_runs, "tasks.list_runs",
        errors=("task_not_found",),
    ),
    Route(
        "POST", "/api/tasks/{id}/runs", tasks.enqueue_run, "tasks.enqueue_run", "AOM", (201,),
        keyed=True, errors=(
            "task_not_found", "task_draft", "task_canceled", "open_run_exists", "review_open",
            "attempts_exhausted", "lane_limit",
        ),
    ),
    Route(
        "GET", "/api/tasks/{id}/timeline", events.list_timeline, "tasks.timeline",
        errors=("task_not_found",),
    ),
    Route(
        "GET", "/api/tasks/{id}/stream", streams.stream_task, "tasks.stream",
        media_type="text/event-stream", errors=("task_not_found",),
    ),
    Route(
        "GET", "/api/tasks/{id}/tree", observe.get_tree, "tasks.tree", errors=("task_not_found",)
    ),
    Route(
        "GET", "/api/tasks/{id}/graph", observe.get_graph, "tasks.graph",
        errors=("task_not_found",),
    ),
    Route(
        "GET", "/api/tasks/{id}/explain", observe.explain_task, "tasks.explain",
        errors=("task_not_found",),
    ),
    Route(
        "GET", "/api/tasks/{id}/inspect", inspect.inspect_task, "tasks.inspect",
        errors=("task_not_found",),
    ),
    Route(
        "GET", "/tasks/{id}/stream", streams.stream_task, "tasks.stream",
        media_type="text/event-stream", errors=("task_not_found",),
    ),
)  # fmt: skip

OBSERVE: Final = (
    Route("GET", "/api/observe/tasks/dashboard", dashboard.get_dashboard, "tasks.dashboard"),
    Route("GET", "/api/observe/tasks/inbox", inbox.get_inbox, "tasks.inbox"),
    *(
        Route(
            "POST", f"/api/tasks/{{id}}/triage/{action}", handler, f"tasks.triage_{action}",
            "AOM", errors=("task_not_found",),
        )
        for action, handler in (
            ("read", inbox.triage_read), ("archive", inbox.triage_archive),
            ("unarchive", inbox.triage_unarchive), ("dismiss", inbox.triage_dismiss),
        )
    ),
    Route("GET", "/api/task-runs", runs.search_runs, "runs.list"),
    Route(
        "GET", "/api/runs/{id}/inspect", inspect.inspect_run, "tasks.inspect",
        errors=("run_not_found",),
    ),
    Route("GET", "/api/sessions", sessions.list_sessions, "sessions.list"),
    Route(
        "GET", "/api/observe/stream", streams.stream_workspace, "observe.stream",
        media_type="text/event-stream",
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
    Route("GET", "/api/events", events.list_events, "events.list"),
    Route("GET", "/api/whoami", operations.whoami, "whoami"),
    Route("POST", "/api/auth/stream-ticket", tickets.make_ticket, "auth.stream_ticket"),
    Route("GET", "/healthz", operations.healthz, "healthz", roles=""),
    Route("GET", "/readyz", operations.readyz, "readyz", roles="", ok=(200, 503)),
    Route("GET", "/version", operations.version, "version", roles=""),
    Route(
        "GET", "/metrics", operations.metrics, "metrics", roles="", media_type="text/plain",
        errors=("authentication_required", "invalid_credentials"),
    ),
    Route("GET", "/openapi.json", operations.openapi, "openapi", roles=""),
    Route("GET", "/docs/errors", docs.errors, "docs.errors", roles="", media_type="text/html"),
)  # fmt: skip

ROUTES: Final = (
    *HOT, *TASKS, *OBSERVE, *SCHEDULER, *RUNS, *MANUAL, *FORCE, *REVIEWS,
    *BRIDGES, *KEYS, *WORKSPACES,
    *OPERATIONS,
)  # fmt: skip
