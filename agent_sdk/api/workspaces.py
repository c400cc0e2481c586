"""Workspaces."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct

from agent_sdk.transport import Transport, new_key, segment


class Workspace(Struct, frozen=True, kw_only=True):
    """A tenant."""

    id: str
    name: str
    display_name: str | None = None
    settings: dict[str, Any] = {}
    created_at: datetime | None = None
    updated_at: datetime | None = None
    version: int = 1


class WorkspacePage(Struct, frozen=True):
    """A page of workspaces."""

    workspaces: list[Workspace]
    next_cursor: str | None = None


class _Workspace(Struct, frozen=True):
    workspace: Workspace


class Workspaces:
    """`client.workspaces`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, *, limit: int = 50, cursor: str | None = None) -> WorkspacePage:
        """The workspaces that the key may see."""
        query = {"limit": limit, "cursor": cursor}
        return self._transport.call(WorkspacePage, "GET", "/api/workspaces", query=query)

    def create(
        self,
        name: str,
        *,
        display_name: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Workspace:
        """Make a workspace."""
        body = {"name": name, "display_name": display_name, "settings": settings}
        return self._transport.call(
            _Workspace, "POST", "/api/workspaces", body=body, key=new_key()
        ).workspace

    def get(self, workspace: str) -> Workspace:
        """A workspace by id or name."""
        path = f"/api/workspaces/{segment(workspace)}"
        return self._transport.call(_Workspace, "GET", path).workspace

    def update(
        self,
        workspace: str,
        *,
        display_name: str | None = None,
        settings: Mapping[str, Any] | None = None,
        version: int | None = None,
    ) -> Workspace:
        """Change what is given; of `settings` only the given keys."""
        changes = {"display_name": display_name, "settings": settings, "version": version}
        body = {name: value for name, value in changes.items() if value is not None}
        path = f"/api/workspaces/{segment(workspace)}"
        return self._transport.call(_Workspace, "PATCH", path, body=body).workspace
