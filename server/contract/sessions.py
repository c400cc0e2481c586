"""A session: one running agent process."""

from typing import Literal

from server.contract.base import Answer, PageQuery, Time

SessionState = Literal["active", "stopped"]


class SessionInfo(Answer):
    """The session that works on a run."""

    session_id: str
    workspace_id: str
    agent_name: str
    name: str
    channel: str | None
    state: SessionState
    created_at: Time
    updated_at: Time


class SessionEntry(SessionInfo):
    """A session in a list, with what it asked for last and how many leases it holds."""

    capabilities: list[str]
    lease_count: int


class SessionListResponse(Answer):
    """A page of sessions."""

    sessions: list[SessionEntry]
    next_cursor: str | None


class SessionListQuery(PageQuery):
    """Which sessions to list."""

    state: SessionState | None = None
    agent_name: str | None = None
