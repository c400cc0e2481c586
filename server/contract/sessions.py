"""A session: one running agent process."""

from typing import Literal

from server.contract.base import Answer, Time

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
