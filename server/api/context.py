"""What a handler knows of its request: the caller, and what the endpoint has read."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from starlette.types import Receive, Scope

from server.contract.base import PageQuery
from server.errors import Problem
from server.rules.cursors import decode_cursor, encode_cursor
from server.store.keys import KeyRow
from server.store.workspaces import WorkspaceRow

if TYPE_CHECKING:
    from server.api.services import Services

# What a path id names; a text that no such object can have answers as an unknown one.
TaskId = Annotated[str, "task_not_found"]
RunId = Annotated[str, "run_not_found"]
ReviewId = Annotated[str, "review_not_found"]
BridgeId = Annotated[str, "bridge_not_found"]
SubscriptionId = Annotated[str, "subscription_not_found"]
KeyId = Annotated[str, "key_not_found"]
WorkspaceId = Annotated[str, "workspace_not_found"]

# As an admin names all workspaces at once.
EVERY_WORKSPACE: Final = "*"
NO_BODY: Final[dict[str, Any]] = {}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a request, and where."""

    key_id: str
    key_name: str
    role: str
    workspace_id: str
    workspace_name: str
    all_workspaces: bool
    agent_name: str | None
    session_id: str | None
    actor_kind: str
    actor_ref: str
    origin_kind: str
    # The admin named the workspace `*`.
    every_workspace: bool = False
    causes: dict[str, str] = field(default_factory=dict, compare=False, repr=False)

    def needed_session(self) -> tuple[str, str]:
        """The session and its agent's name; refused where the caller has none."""
        if self.agent_name is None:
            raise Problem("identity_required", header="X-Agent-Name")
        if self.session_id is None:
            raise Problem("identity_required", header="X-Session-ID")
        return self.session_id, self.agent_name

    def cause(self, action: str) -> str:
        """Who does what through what, as JSON for the database."""
        known = self.causes.get(action)
        if known is None:
            known = self.causes[action] = msgspec.json.encode(
                {
                    "actor_kind": self.actor_kind,
                    "actor_ref": self.actor_ref,
                    "origin_kind": self.origin_kind,
                    "origin_ref": action,
                    "agent_name": self.agent_name,
                    "session_id": self.session_id,
                    "key_id": self.key_id,
                }
            ).decode()
        return known


def make_caller(
    key: KeyRow, workspace: WorkspaceRow, agent_name: str | None, session_id: str | None,
    origin_kind: str, every: bool,
) -> Caller:  # fmt: skip
    """The caller that acts with this key in this workspace."""
    kind, ref = "agent_session", session_id or agent_name or ""
    if agent_name is None:
        kind, ref = key.actor_kind or "human", key.name
    return Caller(
        key_id=key.key_id,
        key_name=key.name,
        role=key.role,
        workspace_id=workspace.workspace_id,
        workspace_name=workspace.name,
        all_workspaces=key.workspace_id is None,
        agent_name=agent_name,
        session_id=session_id,
        actor_kind=kind,
        actor_ref=ref,
        origin_kind=origin_kind,
        every_workspace=every,
    )


class EventStream:
    """A Server-Sent Events answer; frames are sent as they come until the client leaves."""

    __slots__ = ("frames",)

    def __init__(self, frames: AsyncGenerator[bytes, None]) -> None:
        self.frames = frames


class Context:
    """One request, decoded."""

    __slots__ = (
        "action",
        "body",
        "caller",
        "guard",
        "headers",
        "idempotency_key",
        "if_match",
        "receive",
        "request_id",
        "scope",
        "services",
    )

    def __init__(
        self,
        services: "Services",
        action: str,
        request_id: str,
        scope: Scope,
        headers: Mapping[bytes, bytes],
        receive: Receive,
        caller: Caller,
    ) -> None:
        self.services = services
        self.action = action
        self.request_id = request_id
        self.scope = scope
        self.headers = headers
        self.receive = receive
        self.caller = caller
        self.body = b""
        self.idempotency_key: str | None = None
        self.if_match: int | None = None
        self.guard: tuple[str, str] | None = None

    @property
    def workspace_id(self) -> str:
        return self.caller.workspace_id

    @property
    def cause(self) -> str:
        """Who does this, as JSON for the database."""
        return self.caller.cause(self.action)

    @property
    def key_hash(self) -> str | None:
        """What a repeat under the request's key must have in common with it; None without a key."""
        return self.request_hash if self.idempotency_key else None

    @property
    def request_hash(self) -> str:
        """SHA-256, in hex, of method, path, query and parsed body."""
        parsed = msgspec.json.decode(self.body) if self.body else NO_BODY
        # The key is the same whether it came as header or as field.
        told = {name: value for name, value in parsed.items() if name != "idempotency_key"}
        parts = (
            self.scope["method"].encode(),
            self.scope["path"].encode(),
            self.scope["query_string"],
            msgspec.json.encode(told, order="deterministic"),
        )
        return hashlib.sha256(b"\x00".join(parts)).hexdigest()

    def after(self, query: PageQuery) -> list[Any] | None:
        """The sort values behind which the wanted page begins; None for the first page."""
        return decode_cursor(self._list(query), query.cursor) if query.cursor else None

    def cursor(self, query: PageQuery, *values: Any) -> str:
        """The cursor of the page behind the row with these sort values."""
        return encode_cursor(self._list(query), values)

    def _list(self, query: PageQuery) -> bytes:
        filters = msgspec.to_builtins(query)
        del filters["limit"], filters["cursor"]
        every = self.caller.every_workspace
        scope = msgspec.json.encode([self.scope["path"], self.workspace_id, every, filters])
        # With the secret nobody but a server can make one that would not fit its statement.
        return self.services.secrets[0] + scope

    async def disconnected(self) -> None:
        """Returns when the client has gone, or when its answer is complete."""
        while (await self.receive())["type"] != "http.disconnect":
            pass

    def has_left(self) -> bool:
        """Whether the client has gone already; looks, and does not wait."""
        told = self.receive().__await__()
        try:
            next(told)
        except StopIteration as done:
            return bool(done.value["type"] == "http.disconnect")
        finally:
            told.close()
        return False


@asynccontextmanager
async def leaving(ctx: Context) -> AsyncGenerator["asyncio.Task[None]"]:
    """A task that ends when the client leaves."""
    gone = asyncio.create_task(ctx.disconnected())
    try:
        yield gone
    finally:
        gone.cancel()
