"""Pause: nobody begins work on a task, nor on any below it."""

from server.contract.base import Metadata, Reason, Request
from server.errors import Problem


class ResumeRequest(Request):
    """Why a task goes on."""

    reason: Reason | None = None
    metadata: Metadata | None = None


class PauseRequest(ResumeRequest):
    """Why a task is paused; the reason is required."""

    def __post_init__(self) -> None:
        if self.reason is None:
            raise Problem("force_op_requires_reason")
