"""Streams: how to open one, and what its frames carry."""

from server.contract.base import Answer, Query, Request, Time
from server.contract.events import EventType, LogEvent, Sequence, TimelineItem


class StreamEvent(Answer):
    """The data of a frame of a task's stream."""

    sequence: int
    type: str
    timeline: TimelineItem


class WorkspaceFrame(Answer):
    """The data of a frame of a workspace's stream."""

    sequence: int
    type: str
    event: LogEvent


class HeldLease(Answer):
    """A lease that a session holds when its stream begins."""

    run_id: str
    task_id: str
    fence: int
    lease_until: Time


class SessionReady(Answer):
    """The data of `ready` on a session's stream."""

    sequence: int
    session_id: str
    leases: list[HeldLease]
    scheduler_paused: bool


class LeaseGone(Answer):
    """The data of `run_canceled`: a lease of the session ended without its doing."""

    run_id: str
    task_id: str
    fence: int
    code: str
    reason: str | None


class Paused(Answer):
    """The data of `paused`: a task that the session holds, or its scheduler, stops or goes on."""

    task_id: str | None
    run_id: str | None
    paused: bool
    paused_by_task_id: str | None
    scope: str


class StreamQuery(Query):
    """From where to follow a stream, and who does where no header can say it."""

    after_sequence: Sequence | None = None
    ticket: str | None = None


class WorkspaceStreamQuery(StreamQuery):
    """Which events of the workspace to follow."""

    event_type: list[EventType] | None = None
    task_id: str | None = None


class StreamTicketRequest(Request):
    """Nothing: the headers of the call say whom the ticket stands for."""


class StreamTicketResponse(Answer):
    """What opens streams for a minute in the place of a key."""

    ticket: str
    expires_at: Time
