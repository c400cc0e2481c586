"""Who may call: credentials, workspaces, agent names, sessions, keys."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from secrets import token_hex

import httpx
import msgspec
import pytest

from server.api.context import Context
from server.api.dispatch import Dispatcher
from server.api.identity import Identity
from server.api.route import Route
from server.api.routes import ROUTES
from server.api.services import Services
from server.config import Config
from server.contract.base import Encoded
from server.contract.keys import KeyListResponse, KeyResponse
from server.contract.operations import ReadyResponse, VersionResponse, WhoamiResponse
from server.contract.workspaces import WorkspaceListResponse, WorkspaceResponse
from server.db.pool import Database, open_pool
from server.rules.ids import new_id
from server.rules.tokens import new_api_key
from server.store.first_start import first_start
from tests.asgi import client_of, code_of, evidence_of

ADMIN = new_api_key(new_id("key", 1))
AGENT = new_api_key(new_id("key", 2))
Client = Callable[..., Awaitable[httpx.AsyncClient]]


async def attend(ctx: Context) -> Encoded[WhoamiResponse]:
    """Registers the session, as a claim does."""
    await ctx.services.identity.register(ctx.caller, None, ["b", "a"])
    return Encoded(msgspec.json.encode(ctx.caller.session_id))


AGENT_ROUTE = Route("POST", "/api/agent/attend", attend, "agent.attend", "AOM")


@pytest.fixture
async def db(fresh_database: str) -> AsyncIterator[Database]:
    """A database in which nothing has happened."""
    async with open_pool(fresh_database, 4, 5, 30, prepared=True) as pool:
        yield pool


@pytest.fixture
async def services(db: Database) -> Services:
    """The parts of a server whose memory is empty."""
    await first_start(db, ADMIN, AGENT)
    return Services(Config.from_env({"WORKLEASE_DATA_DIR": "/nowhere"}), db, Identity(db))


@pytest.fixture
async def client(services: Services) -> AsyncIterator[Client]:
    """Makes clients of one server; the first argument is the key, the others are headers."""
    app = Dispatcher((AGENT_ROUTE, *ROUTES), services)
    async with AsyncExitStack() as stack:

        async def make(key: str = ADMIN, **headers: str) -> httpx.AsyncClient:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            signed = {"Authorization": f"Bearer {key}"} if key else {}
            return await stack.enter_async_context(client_of(app, **signed, **named))

        yield make


async def new_key(client: Client, role: str, **fields: object) -> str:
    """Makes a key and tells its text."""
    body = {"name": token_hex(8), "role": role, **fields}
    answer = await (await client()).post("/api/keys", json=body)
    assert answer.status_code == 201, answer.text
    secret = msgspec.json.decode(answer.content, type=KeyResponse).key.secret
    assert isinstance(secret, str)
    return secret


async def whoami(http: httpx.AsyncClient, path: str = "/api/whoami") -> WhoamiResponse:
    answer = await http.get(path)
    assert answer.status_code == 200, answer.text
    return msgspec.json.decode(answer.content, type=WhoamiResponse)


async def test_without_or_with_a_bad_credential_nobody_comes_in(client: Client) -> None:
    answer = await (await client("")).get("/api/whoami")
    assert code_of(answer) == "401 authentication_required"
    assert answer.headers["www-authenticate"] == "Bearer"
    for bad in ("x", ADMIN + "x", new_api_key(new_id("key", 3))):
        assert code_of(await (await client(bad)).get("/api/whoami")) == "401 invalid_credentials"
    both = await (await client(ADMIN, X_API_Key=AGENT)).get("/api/whoami")
    assert code_of(both) == "401 invalid_credentials"
    assert (await whoami(await client("", X_API_Key=ADMIN))).whoami.role == "admin"


async def test_many_failures_are_slowed_down_but_a_valid_key_never(client: Client) -> None:
    bad = await client("wl_bad")
    codes = [code_of(await bad.get("/api/whoami")) for _ in range(22)]
    assert codes == ["401 invalid_credentials"] * 20 + ["429 rate_limited"] * 2
    assert (await whoami(await client())).whoami.key_name == "admin"


async def test_a_key_may_call_as_often_as_the_rate_limit_says(db: Database) -> None:
    await first_start(db, ADMIN, AGENT)
    services = Services(Config.from_env({}), db, Identity(db, rate_limit=2))
    async with client_of(Dispatcher(ROUTES, services), Authorization=f"Bearer {ADMIN}") as http:
        answers = [await http.get("/api/whoami") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200] * 4 + [429]
    assert answers[-1].headers["retry-after"] == "1"


async def test_the_server_tells_a_caller_who_it_is(client: Client) -> None:
    told = (await whoami(await client(AGENT, X_Agent_Name="local", X_Session_ID="s-1"))).whoami
    assert (told.role, told.agent_name, told.session_id) == ("agent", "local", "s-1")
    assert (told.actor.kind, told.actor.ref) == ("agent_session", "s-1")
    assert (told.origin.kind, told.origin.ref) == ("http", "whoami")
    told = (await whoami(await client(ADMIN, X_Origin_Kind="CLI"))).whoami
    assert (told.actor.kind, told.actor.ref, told.origin.kind) == ("human", "admin", "cli")
    assert (told.workspace.name, told.all_workspaces) == ("default", True)


async def test_an_agent_key_speaks_for_its_own_names_only(client: Client) -> None:
    fleet = await new_key(client, "agent", agent_name="fleet-*")
    single = await new_key(client, "agent", agent_name="one")
    viewer = await new_key(client, "viewer")
    cases = (
        (fleet, "", "401 identity_required"), (fleet, "other", "403 identity_mismatch"),
        (single, "two", "403 identity_mismatch"), (viewer, "one", "403 identity_mismatch"),
    )  # fmt: skip
    for key, name, code in cases:
        http = await client(key, **({"X_Agent_Name": name} if name else {}))
        assert code_of(await http.get("/api/whoami")) == code
    for key, name in ((fleet, "fleet-7"), (single, "one"), (ADMIN, "any")):
        assert (await whoami(await client(key, X_Agent_Name=name))).whoami.agent_name == name
    assert (await whoami(await client(single))).whoami.agent_name == "one"


async def test_agent_routes_need_a_session_and_an_agent(client: Client) -> None:
    cases = (
        ({"key": AGENT, "X_Agent_Name": "local"}, "X-Session-ID"),
        ({"key": ADMIN, "X_Session_ID": "s-2"}, "X-Agent-Name"),
    )
    for who, header in cases:
        answer = await (await client(**who)).post("/api/agent/attend")
        assert code_of(answer) == "401 identity_required"
        assert evidence_of(answer) == {"header": header}
    odd = await client(AGENT, X_Agent_Name="local", X_Session_ID="a b")
    assert evidence_of(await odd.post("/api/agent/attend")) == {"parameter": "X-Session-ID"}


async def test_a_session_belongs_to_the_agent_name_that_used_it_first(
    client: Client, services: Services
) -> None:
    session = token_hex(8)
    first = await client(AGENT, X_Agent_Name="local-1", X_Session_ID=session)
    second = await client(AGENT, X_Agent_Name="local-2", X_Session_ID=session)
    assert (await second.get("/api/whoami")).status_code == 200
    assert (await first.post("/api/agent/attend")).status_code == 200
    services.identity = Identity(services.db)
    answer = await second.post("/api/agent/attend")
    assert code_of(answer) == "403 identity_mismatch"
    assert evidence_of(answer) == {"session_id": session}
    assert (await first.post("/api/agent/attend")).status_code == 200


async def test_a_key_of_one_workspace_sees_no_other(client: Client) -> None:
    admin = await client()
    name = "w" + token_hex(6)
    assert (await admin.post("/api/workspaces", json={"name": name})).status_code == 201
    operator = await client(await new_key(client, "operator"))
    for path in ("/api/whoami?workspace=" + name, "/api/whoami?workspace=nowhere"):
        answer = await operator.get(path)
        assert code_of(answer) == "404 workspace_not_found"
        assert evidence_of(answer) == {"id": path.partition("=")[2]}
    assert code_of(await operator.get(f"/api/workspaces/{name}")) == "404 workspace_not_found"
    listed = msgspec.json.decode(
        (await operator.get("/api/workspaces")).content, type=WorkspaceListResponse
    )
    assert [workspace.name for workspace in listed.workspaces] == ["default"]
    assert (await whoami(admin, "/api/whoami?workspace=" + name)).whoami.workspace.name == name
    there = await client(ADMIN, X_Workspace=name)
    assert (await whoami(there)).whoami.workspace.name == name
    assert code_of(await there.get("/api/whoami?workspace=default")) == "422 validation_failed"


async def test_roles_are_kept_from_what_is_not_theirs(client: Client) -> None:
    agent = await client(await new_key(client, "agent"))
    viewer = await client(await new_key(client, "viewer"))
    operator = await client(await new_key(client, "operator"))
    assert code_of(await agent.get("/api/keys")) == "403 forbidden_operator_action"
    assert code_of(await operator.get("/api/keys")) == "403 forbidden"
    assert code_of(await viewer.get("/api/workspaces")) == "403 forbidden"
    changed = await agent.patch("/api/workspaces/default", json={"display_name": "x"})
    assert code_of(changed) == "403 forbidden_operator_action"


async def test_a_key_is_shown_once_and_replayed_without_its_secret(client: Client) -> None:
    admin = await client()
    body = {"name": token_hex(8), "role": "agent"}
    headers = {"Idempotency-Key": token_hex(8)}
    answers = [await admin.post("/api/keys", json=body, headers=headers) for _ in range(2)]
    first, second = (msgspec.json.decode(a.content, type=KeyResponse).key for a in answers)
    assert isinstance(first.secret, str)
    assert first.secret.startswith(first.prefix)
    assert (second.id, second.secret) == (first.id, None)
    assert answers[1].headers["idempotent-replayed"] == "true"
    other = await admin.post("/api/keys", json=body | {"role": "viewer"}, headers=headers)
    assert code_of(other) == "422 idempotency_key_reused"
    assert code_of(await admin.post("/api/keys", json=body)) == "409 key_exists"
    listed = await admin.get("/api/keys")
    assert "secret" not in listed.text
    assert first.id in {
        k.id for k in msgspec.json.decode(listed.content, type=KeyListResponse).keys
    }


async def test_a_rotated_key_and_its_successor_overlap(client: Client, services: Services) -> None:
    old = await new_key(client, "viewer")
    admin = await client()
    key_id = (await whoami(await client(old))).whoami.key_id
    answer = await admin.post(f"/api/keys/{key_id}/rotate", json={"overlap_seconds": 60})
    new = msgspec.json.decode(answer.content, type=KeyResponse).key
    assert isinstance(new.secret, str)
    for secret in (old, new.secret):
        assert (await whoami(await client(secret))).whoami.key_name == new.name
    again = await admin.post(f"/api/keys/{key_id}/rotate")
    assert code_of(again) == "409 key_revoked"
    for _ in range(2):
        assert (await admin.delete(f"/api/keys/{key_id}")).status_code == 204
    services.identity = Identity(services.db)
    unknown = await admin.post("/api/keys/key_0/rotate")
    assert code_of(unknown) == "404 key_not_found"


async def test_a_revoked_key_is_refused_once_the_server_has_forgotten_it(
    client: Client, db: Database
) -> None:
    secret = await new_key(client, "viewer")
    key_id = (await whoami(await client(secret))).whoami.key_id
    assert (await (await client()).delete(f"/api/keys/{key_id}")).status_code == 204
    services = Services(Config.from_env({}), db, Identity(db))
    async with client_of(Dispatcher(ROUTES, services), Authorization=f"Bearer {secret}") as http:
        assert code_of(await http.get("/api/whoami")) == "401 invalid_credentials"


async def test_the_last_admin_key_stays(client: Client) -> None:
    admin = await client()
    key_id = (await whoami(admin)).whoami.key_id
    assert code_of(await admin.delete(f"/api/keys/{key_id}")) == "409 last_admin_key"


async def test_settings_are_kept_and_a_stale_version_is_refused(client: Client) -> None:
    admin = await client()
    name = "w" + token_hex(6)
    made = await admin.post("/api/workspaces", json={"name": name, "settings": {"max_streams": 5}})
    assert made.headers["etag"] == '"1"'
    changes = {"settings": {"head_start_seconds": {"low": 5}}, "version": 1}
    answer = await admin.patch(f"/api/workspaces/{name}", json=changes)
    told = msgspec.json.decode(answer.content, type=WorkspaceResponse).workspace
    assert (told.settings.max_streams, told.settings.head_start_seconds.low) == (5, 5)
    assert (told.settings.head_start_seconds.high, told.version) == (3600, 2)
    stale = await admin.patch(f"/api/workspaces/{name}", json=changes)
    assert (code_of(stale), evidence_of(stale)) == ("412 version_mismatch", {"version": 2})
    falling = {"settings": {"head_start_seconds": {"low": 999}}}
    answer = await admin.patch(f"/api/workspaces/{name}", json=falling)
    assert code_of(answer) == "422 validation_failed"
    assert code_of(await admin.post("/api/workspaces", json={"name": name})) == (
        "409 workspace_exists"
    )


async def test_lists_go_on_behind_their_cursor_and_only_there(client: Client) -> None:
    admin = await client()
    for _ in range(2):
        await new_key(client, "viewer")
    pages: list[KeyListResponse] = []
    while not pages or pages[-1].next_cursor:
        cursor = pages[-1].next_cursor if pages else ""
        answer = await admin.get(f"/api/keys?limit=1&include_revoked=1&cursor={cursor}")
        pages.append(msgspec.json.decode(answer.content, type=KeyListResponse))
    seen = [key.id for page in pages for key in page.keys]
    assert len(seen) == len(set(seen)) == 4
    elsewhere = await admin.get(f"/api/keys?cursor={pages[0].next_cursor}")
    assert code_of(elsewhere) == "400 invalid_cursor"


async def test_the_public_routes_need_no_key(client: Client) -> None:
    http = await client("")
    assert (await http.get("/healthz")).json() == {"status": "ok"}
    ready = msgspec.json.decode((await http.get("/readyz")).content, type=ReadyResponse)
    assert (ready.ready, ready.checks.database.ok, ready.checks.schema.ok) == (True, True, True)
    version = msgspec.json.decode((await http.get("/version")).content, type=VersionResponse)
    assert (version.name, version.api_version) == ("worklease", 1)
    assert "worklease_http_requests_total" in (await http.get("/metrics")).text
