"""The Python SDK of Worklease: claim tasks, work on them under a lease, hand in results."""

from agent_sdk.api.keys import Key
from agent_sdk.api.reviews import Review, Verdict
from agent_sdk.api.tasks import StreamEvent
from agent_sdk.api.workspaces import Workspace
from agent_sdk.async_lease import AsyncLease
from agent_sdk.client import Client
from agent_sdk.errors import (
    ApiError,
    BudgetExhausted,
    Cancelled,
    ConfigError,
    Conflict,
    ConnectionFailed,
    Denied,
    Fail,
    Invalid,
    LeaseLost,
    NotFound,
    Release,
    Retry,
    Unavailable,
    WaitFor,
    WorkleaseError,
)
from agent_sdk.graph import Graph, TaskSpec
from agent_sdk.lease import Lease, Previous
from agent_sdk.outcome import NotJson
from agent_sdk.review_lease import ReviewLease
from agent_sdk.types import Claim, Dependency, Event, Run, Task, TaskDetail, TaskSummary, Usage
from agent_sdk.worker import Worker

__all__ = [
    "ApiError",
    "AsyncLease",
    "BudgetExhausted",
    "Cancelled",
    "Claim",
    "Client",
    "ConfigError",
    "Conflict",
    "ConnectionFailed",
    "Denied",
    "Dependency",
    "Event",
    "Fail",
    "Graph",
    "Invalid",
    "Key",
    "Lease",
    "LeaseLost",
    "NotFound",
    "NotJson",
    "Previous",
    "Release",
    "Retry",
    "Review",
    "ReviewLease",
    "Run",
    "StreamEvent",
    "Task",
    "TaskDetail",
    "TaskSpec",
    "TaskSummary",
    "Unavailable",
    "Usage",
    "Verdict",
    "WaitFor",
    "Worker",
    "WorkleaseError",
    "Workspace",
]
