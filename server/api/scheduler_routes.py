"""The routes of the scheduler."""

from typing import Final

from server.api import scheduler
from server.api.route import Route

SCHEDULER: Final = (
    Route(
        "GET", "/api/scheduler", scheduler.get_scheduler, "tasks.scheduler_status",
        every_workspace=True,
    ),
    Route(
        "GET", "/api/scheduler/backlog", scheduler.get_backlog, "tasks.scheduler_backlog",
        every_workspace=True,
    ),
    Route(
        "POST", "/api/scheduler/pause", scheduler.pause_scheduler, "tasks.scheduler_pause", "OM",
        operator=True, every_workspace=True,
    ),
    Route(
        "POST", "/api/scheduler/resume", scheduler.resume_scheduler, "tasks.scheduler_resume",
        "OM", operator=True, every_workspace=True,
    ),
    Route(
        "POST", "/api/scheduler/drain", scheduler.drain_scheduler, "tasks.scheduler_drain", "OM",
        operator=True, every_workspace=True,
    ),
)  # fmt: skip
