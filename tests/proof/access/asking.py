"""How a caller asks: its headers, its call, and what came."""

from datetime import datetime, timedelta
from itertools import count
from secrets import token_hex, token_urlsafe
from typing import Any, Final

import httpx2
import msgspec

from server.rules.ids import new_id
from server.rules.tokens import new_api_key
from tests.client import RefusedError, checked
from tests.factories import Workspace
from tests.proof.access.callers import ANONYMOUS, INVALID, OK, Caller, Due
from tests.proof.access.stages import Stage
from tests.proof.access.table import Row
from tests.serving import ADMIN_KEY
from tests.world import World

ADDRESSES: Final = count(1)


class Keys:
    """The keys that callers show, of two workspaces and of none."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.here, self.there = world.workspace(), world.workspace()
        for own in (self.here, self.there):
            for role in ("viewer", "agent", "operator"):
                own.key(role)  # made now, not in the midst of calls that may change nothing
        self._admins = {w.id: self._made("admin", w) for w in (self.here, self.there)}
        self._bad = self._bad_ones()

    def authorization(self, caller: Caller) -> dict[str, str]:
        """The headers of the credential."""
        kind = caller.credential
        if kind in ANONYMOUS:
            return {}
        if kind in INVALID:
            # Failures are counted by address; nobody is to be slowed down here.
            n = next(ADDRESSES)
            address = f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}"
            return {"X-Forwarded-For": address, **self._bad[kind]}
        if caller.key_of == "all":
            return {"X-API-Key": ADMIN_KEY}
        own = self.place(caller.key_of)
        text = self._admins[own.id] if kind == "admin" else own.key(kind)
        return {"Authorization": f"Bearer {text}"}

    def place(self, name: str) -> Workspace:
        """The workspace of this name."""
        return self.here if name == "here" else self.there

    def named(self, caller: Caller) -> str:
        """The workspace that the request names."""
        words = {"here": self.here.id, "there": self.there.name, "nowhere": new_id("ws", 1)}
        return words.get(caller.names, caller.names)

    def _made(self, role: str, of: Workspace, **fields: Any) -> str:
        wish = {"name": token_hex(8), "role": role, "workspace": of.id, **fields}
        text: str = self.world.admin.post("/api/keys", **wish).key.secret
        return text

    def _bad_ones(self) -> dict[str, dict[str, str]]:
        good = self._made("admin", self.here)
        now = datetime.fromisoformat(self.world.admin.get("/api/whoami").whoami.server_time)
        soon = (now + timedelta(seconds=30)).isoformat()
        expired = self._made("admin", self.here, expires_at=soon)
        revoked = self.world.admin.post("/api/keys", name=token_hex(8), role="admin", workspace="*")
        self.world.admin.delete(f"/api/keys/{revoked.key.id}")
        self.world.advance(31)
        shown = {
            "wrong": good.rsplit("_", 1)[0] + "_" + token_urlsafe(32),
            "unknown": new_api_key(new_id("key", 3)), "expired": expired,
            "revoked": revoked.key.secret,
        }  # fmt: skip
        bad = {kind: {"Authorization": f"Bearer {text}"} for kind, text in shown.items()}
        bad["scheme"], bad["empty"] = (
            {"Authorization": f"Basic {good}"},
            {"Authorization": "Bearer"},
        )
        return bad | {"two": {"Authorization": f"Bearer {good}", "X-API-Key": ADMIN_KEY}}


def headers_of(keys: Keys, row: Row, caller: Caller, stage: Stage) -> dict[str, str]:
    """All that the caller says beside path and body."""
    told = keys.authorization(caller)
    name, session = stage.agent.headers["X-Agent-Name"], stage.agent.session
    if caller.stranger or caller.key_of == "there":
        name, session = "stranger", f"stranger-{stage.ids['nonce']}"
    as_agent = row.agents and caller.agent and caller.credential != "viewer"
    if caller.credential == "agent" or as_agent:
        told["X-Agent-Name"] = name
    if caller.session and "X-Agent-Name" in told:
        told["X-Session-ID"] = session
    if caller.names and caller.by == "header":
        told["X-Workspace"] = keys.named(caller)
    return told


def ask(
    http: httpx2.Client, row: Row, ids: dict[str, str], headers: dict[str, str],
    query: dict[str, str] | None = None, drop: frozenset[str] = frozenset(),
) -> tuple[Due, httpx2.Response]:  # fmt: skip
    """The call of a row with these ids; drop: fields of the body that are left out."""
    path = filled(row.path, ids)
    body = None if row.body is None else filled(row.body, ids)
    if body is not None:
        body = {name: value for name, value in body.items() if name not in drop}
        headers = {"Content-Type": "application/json", **headers}
    content = b"" if body is None else msgspec.json.encode(body)
    with http.stream(
        row.method, path, params=query, content=content, headers=headers
    ) as answer:  # fmt: skip
        if "stream" in row.marks and answer.status_code == 200:
            return Due(200), answer
        answer.read()
    return _outcome(row, path, answer), answer


def filled(told: Any, ids: dict[str, str]) -> Any:
    """A path or a body with ids in the places of their kinds."""
    if isinstance(told, str):
        return told.format(**ids) if "{" in told else told
    if isinstance(told, list):
        return [filled(item, ids) for item in told]
    if isinstance(told, dict):
        return {name: filled(value, ids) for name, value in told.items()}
    return told


def _outcome(row: Row, path: str, answer: httpx2.Response) -> Due:
    try:
        told = checked(row.method, path, answer)
    except RefusedError as refused:
        return Due(refused.status, refused.code)
    items = getattr(told, "results", None) if "bulk" in row.marks else None
    if items and items[0].error is not None:
        return Due(answer.status_code, items[0].error.diagnostic.code, in_item=True)
    return Due(answer.status_code, OK)
