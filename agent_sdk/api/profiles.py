"""Execution profiles: what a task demands of its worker, reviewer and sandbox."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypedDict, Unpack

from msgspec import Struct

from agent_sdk.transport import Transport, segment

Block = Mapping[str, Any]


class ProfileFields(TypedDict, total=False):
    """The blocks of a profile; one that is left out has its defaults."""

    coordinator: Block
    worker: Block
    review: Block
    participants: Block
    sandbox: Block
    runtime: Block


class ExecutionProfile(Struct, frozen=True, kw_only=True):
    """All demands of one task; without times, none are stored and these are the defaults."""

    task_id: str
    coordinator: dict[str, Any] = {}
    worker: dict[str, Any] = {}
    review: dict[str, Any] = {}
    participants: dict[str, Any] = {}
    sandbox: dict[str, Any] = {}
    runtime: dict[str, Any] = {}
    created_at: datetime | None = None
    updated_at: datetime | None = None


class _Profile(Struct, frozen=True):
    profile: ExecutionProfile


class Profiles:
    """`client.profiles`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self, task_id: str) -> ExecutionProfile:
        """What a task demands."""
        return self._transport.call(_Profile, "GET", _path(task_id)).profile

    def put(self, task_id: str, /, **blocks: Unpack[ProfileFields]) -> ExecutionProfile:
        """Replace what a task demands; not while a run of it is worked on."""
        return self._transport.call(_Profile, "PUT", _path(task_id), body=blocks).profile

    def delete(self, task_id: str) -> None:
        """Take a task's own profile away."""
        self._transport.send("DELETE", _path(task_id))


def _path(task_id: str) -> str:
    return f"/api/tasks/{segment(task_id)}/execution-profile"
