"""Sessions: the running processes of agents."""

from datetime import datetime
from typing import Literal

from msgspec import Struct

from agent_sdk.transport import Transport


class Session(Struct, frozen=True, kw_only=True):
    """A running agent process, and how many leases it holds."""

    session_id: str
    agent_name: str
    state: str
    workspace_id: str = ""
    channel: str | None = None
    capabilities: list[str] = []
    created_at: datetime | None = None
    updated_at: datetime | None = None
    lease_count: int = 0


class SessionPage(Struct, frozen=True):
    """A page of sessions."""

    sessions: list[Session]
    next_cursor: str | None = None


class Sessions:
    """`client.sessions`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(
        self,
        *,
        state: Literal["active", "stopped"] | None = None,
        agent_name: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> SessionPage:
        """A page of sessions."""
        query = {"state": state, "agent_name": agent_name, "limit": limit, "cursor": cursor}
        return self._transport.call(SessionPage, "GET", "/api/sessions", query=query)
