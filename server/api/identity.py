"""Who makes a request: credential, workspace, agent name, session."""

import asyncio
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

from starlette.types import Scope

from server import limits
from server.api import headers as read
from server.api.batch import Batcher
from server.api.context import EVERY_WORKSPACE, Caller, make_caller
from server.api.headers import Headers
from server.api.query import query_pairs
from server.api.rates import Buckets, Failures, make_room
from server.api.route import Route
from server.db.pool import Database
from server.errors import Problem
from server.rules.ids import is_id
from server.rules.tickets import open_ticket
from server.rules.tokens import api_key_hash
from server.store.keys import KeyRow, find_key, find_key_by_id, touch_key
from server.store.sessions import attend_session, register_session, see_sessions
from server.store.workspaces import WorkspaceRow, find_workspace

DEFAULT_WORKSPACE: Final = "default"
# A stream looks at its key every four seconds, so that five pass at most until it ends.
LIVING_SECONDS: Final = 1.0


class HeldKey(NamedTuple):
    """A key, and until when this process may go on without asking for it again."""

    row: KeyRow
    until: float


class Visit(NamedTuple):
    """A request whose credential and workspace are known, but not yet its agent and session."""

    key: HeldKey
    workspace: WorkspaceRow
    every: bool = False
    # The headers alone do not tell this caller: the query, the body or the route had a say.
    once: bool = False


class Session(NamedTuple):
    """What this process knows of a session, and since when."""

    agent_name: str
    seen_at: float
    offer: tuple[str | None, tuple[str, ...]] | None = None


class Seen(NamedTuple):
    """A session that is alive."""

    one: str


class Identity:
    """Knows callers; what it remembers is at most 5 s old and may be forgotten at any time."""

    def __init__(
        self, db: Database, rate_limit: float = 0, secrets: tuple[bytes, ...] = ()
    ) -> None:
        self._db = db
        # Tickets were made with one of them.
        self._secrets = secrets
        self._callers: dict[tuple[bytes | None, ...], tuple[Caller, float]] = {}
        self._keys: dict[bytes, HeldKey] = {}
        self._living: dict[str, float] = {}
        self._finding: dict[bytes, asyncio.Future[KeyRow | None]] = {}
        self._workspaces: dict[str, WorkspaceRow] = {}
        self._sessions: dict[tuple[str, str], Session] = {}
        # One a workspace: thousands of agents show themselves in the same quarter of a minute,
        # and no workspace waits for another.
        self._seeing: dict[str, Batcher[Seen, str | None]] = {}
        self._failures = Failures()
        self._buckets = Buckets(rate_limit) if rate_limit else None

    def recall(self, scope: Scope, headers: Headers, agent: bool) -> Caller | None:
        """The caller if the same headers came a moment ago, else None."""
        held = self._callers.get(read.telling(headers, agent))
        if held is None or held[1] < time.monotonic() or _may_name(scope["query_string"]):
            return None
        if self._buckets:
            self._buckets.take(held[0].key_id, time.monotonic())
        return held[0]

    async def visit(self, scope: Scope, headers: Headers, route: Route) -> Visit:
        """Checks credential, rate, role and workspace."""
        key = await self._key(scope, headers)
        if self._buckets:
            self._buckets.take(key.row.key_id, time.monotonic())
        route.admit(key.row.role)
        visit = await self._visit(key, _named(scope, headers), route)
        return visit._replace(once=visit.once or _may_name(scope["query_string"]))

    async def select(self, scope: Scope, headers: Headers, route: Route, named: str) -> Visit:
        """The visit of a request whose body names its workspace."""
        key = await self._key(scope, headers)
        chosen = await self._visit(key, [named], route)
        for name in _named(scope, headers):
            other = await self._visit(key, [name], route)
            # All workspaces stand at the default one, and are not it.
            if (other.workspace, other.every) != (chosen.workspace, chosen.every):
                raise _differing()
        return chosen._replace(once=True)

    async def caller(self, visit: Visit, headers: Headers, agent: bool) -> Caller:
        """Checks agent name and session, and remembers the caller."""
        key = visit.key.row
        agent_name = read.agent_name(headers, key.role, key.agent_name or key.name, agent)
        session_id = read.session_id(headers, agent)
        if session_id is not None and agent_name is not None:
            await self._see(visit.workspace.workspace_id, session_id, agent_name)
        origin = read.origin_kind(headers, agent)
        caller = make_caller(key, visit.workspace, agent_name, session_id, origin, visit.every)
        if not visit.once:
            make_room(self._callers)
            self._callers[read.telling(headers, agent)] = (caller, visit.key.until)
        return caller

    async def register(self, caller: Caller, channel: str | None, capabilities: list[str]) -> None:
        """Makes the caller's session, or renews it with what it last asked for."""
        session_id, agent_name = caller.needed_session()
        place = (caller.workspace_id, session_id)
        offer = (channel, tuple(sorted(set(capabilities))))
        known = self._sessions.get(place)
        now = time.monotonic()
        if known and known.offer == offer and _fresh(known, now):
            return
        if not await register_session(self._db, *place, agent_name, channel, [*offer[1]]):
            raise Problem("identity_mismatch", session_id=session_id)
        make_room(self._sessions)
        self._sessions[place] = Session(agent_name, now, offer)

    async def attend(self, caller: Caller) -> None:
        """Makes the caller's session, or renews it, whatever it last asked for."""
        session_id, agent_name = caller.needed_session()
        if not await attend_session(self._db, caller.workspace_id, session_id, agent_name):
            raise Problem("identity_mismatch", session_id=session_id)

    async def ticket(self, scope: Scope, route: Route, shown: str) -> Caller:
        """Checks a ticket, and knows the caller it stands for."""
        ticket = open_ticket(shown, self._secrets)
        key = None
        if ticket is not None:
            key = await find_key_by_id(self._db, ticket.key_id, ticket.expires_at)
        if ticket is None or key is None:
            raise self._unknown(scope)
        route.admit(key.role)
        for name in _named(scope, {}):
            if name not in (ticket.workspace_id, ticket.workspace_name):
                raise Problem("workspace_not_found", id=name)
        workspace = WorkspaceRow(ticket.workspace_id, ticket.workspace_name)
        caller = make_caller(
            key, workspace, ticket.agent_name, ticket.session_id, ticket.origin_kind, False
        )
        if route.agent:
            caller.needed_session()
        return caller

    async def still_valid(self, caller: Caller) -> bool:
        """Whether the key behind an open stream still is one; asked once for all its streams."""
        now = time.monotonic()
        if self._living.get(caller.key_id, 0) > now:
            return True
        try:
            key = await find_key_by_id(self._db, caller.key_id, None)
        except Problem as problem:
            # While the database is away, nobody knows.
            return problem.status == 503
        if key is not None:
            make_room(self._living)
            self._living[caller.key_id] = now + LIVING_SECONDS
        return key is not None

    async def _key(self, scope: Scope, headers: Headers) -> HeldKey:
        shown = read.credential(headers)
        if shown is None:
            raise Problem("authentication_required")
        secret_hash = api_key_hash(shown)
        held = self._keys.get(secret_hash)
        now = time.monotonic()
        if held is not None and now < held.until:
            return held
        row = await self._find(secret_hash)
        if row is None:
            self._keys.pop(secret_hash, None)
            raise self._unknown(scope)
        lasts = min(limits.KEY_CACHE_SECONDS, row.expires_in_seconds or limits.KEY_CACHE_SECONDS)
        held = HeldKey(row, now + lasts)
        make_room(self._keys)
        self._keys[secret_hash] = held
        return held

    def _unknown(self, scope: Scope) -> Problem:
        """What to say of a credential that is none; too many of them are slowed down."""
        client = scope.get("client")
        self._failures.note(client[0] if client else "", time.monotonic())
        return Problem("invalid_credentials")

    async def _find(self, secret_hash: bytes) -> KeyRow | None:
        """Asks the database once, however many requests want to know."""
        finding = self._finding.get(secret_hash)
        if finding is None:
            finding = asyncio.ensure_future(find_key(self._db, secret_hash))
            self._finding[secret_hash] = finding
            finding.add_done_callback(lambda _: self._finding.pop(secret_hash, None))
            row = await asyncio.shield(finding)
            if row is not None and row.unused_lately:
                await touch_key(self._db, row.key_id)
            return row
        return await asyncio.shield(finding)

    async def _visit(self, key: HeldKey, named: list[str], route: Route) -> Visit:
        own = key.row.workspace_id
        if own is not None:
            workspace = WorkspaceRow(own, key.row.workspace_name or own)
            for name in named:
                if name not in workspace:
                    raise Problem("workspace_not_found", id=name)
            return Visit(key, workspace)
        every = EVERY_WORKSPACE in named and route.every_workspace
        chosen = {name for name in named if not (every and name == EVERY_WORKSPACE)}
        if every and chosen:
            raise _differing()
        found = {await self.workspace(name) for name in chosen or {DEFAULT_WORKSPACE}}
        if len(found) > 1:
            raise _differing()
        return Visit(key, found.pop(), every, once=every)

    async def workspace(self, named: str) -> WorkspaceRow:
        """The workspace with this id or name; remembered, for neither ever changes."""
        known = self._workspaces.get(named)
        if known is None:
            known = await find_workspace(self._db, named) if is_id(named) else None
            if known is None:
                raise Problem("workspace_not_found", id=named)
            make_room(self._workspaces)
            self._workspaces[named] = known
        return known

    async def _see(self, workspace_id: str, session_id: str, agent_name: str) -> None:
        place = (workspace_id, session_id)
        known = self._sessions.get(place)
        now = time.monotonic()
        if known is None or not _fresh(known, now):
            owner = await self._seers(workspace_id).submit(workspace_id, Seen(session_id))
            if owner is None:
                return
            offer = known.offer if known else None
            make_room(self._sessions)
            known = self._sessions[place] = Session(owner, now, offer)
        if known.agent_name != agent_name:
            raise Problem("identity_mismatch", session_id=session_id)

    def _seers(self, workspace_id: str) -> Batcher[Seen, str | None]:
        if workspace_id not in self._seeing:
            make_room(self._seeing)
            most = limits.SESSIONS_SEEN_TOGETHER_COUNT
            self._seeing[workspace_id] = Batcher("session", self._owners, most, 0, lambda _: True)
        return self._seeing[workspace_id]

    async def _owners(self, workspace_id: str, seen: Sequence[Seen]) -> list[str | None]:
        owners = await see_sessions(self._db, workspace_id, [session.one for session in seen])
        return [owners.get(session.one) for session in seen]


def _fresh(session: Session, now: float) -> bool:
    return now - session.seen_at < limits.SESSION_SEEN_EVERY_SECONDS


def _named(scope: Scope, headers: Headers) -> list[str]:
    """The workspaces that query and header name."""
    named = []
    if _may_name(scope["query_string"]):
        named.append(query_pairs(scope["query_string"]).get("workspace", "").strip())
    if b"x-workspace" in headers:
        named.append(headers[b"x-workspace"].decode("latin-1").strip())
    return [name for name in named if name]


def _may_name(query: bytes) -> bool:
    """Whether a query is worth parsing for a workspace; its name may be written with escapes."""
    return b"workspace=" in query or b"%" in query


def _differing() -> Problem:
    fault = {"field": "workspace", "rule": "exclusive", "message": "two workspaces are named"}
    return Problem("validation_failed", "Two workspaces are named.", errors=[fault])
