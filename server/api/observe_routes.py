"""The part of the table of routes that is looked at."""

from typing import Final

from server.api import dashboard, inbox, inspect, runs, sessions, streams
from server.api.route import Route

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
