"""Who may call: credentials, workspaces, agent names, sessions, keys."""

import asyncio
from contextlib import AsyncExitStack
from secrets import token_hex

import httpx2
import msgspec

from server.api.dispatch import Dispatcher
from server.contract.operations import ReadyResponse, VersionResponse
from server.contract.workspaces import WorkspaceListResponse
from server.db.pool import Database
from server.rules.ids import new_id
from server.rules.tokens import new_api_key
from server.store.first_start import first_start
from tests.asgi import client_of, code_of, evidence_of
from tests.identity import ADMIN, AGENT, OWN_ROUTES, Client, new_key, parts, whoami


async def test_without_or_with_a_bad_credential_nobody_comes_in(client_as: Client) -> None:
    answer = await (await client_as("")).get("/api/whoami")
    assert code_of(answer) == "401 authentication_required"
    assert answer.headers["www-authenticate"] == "Bearer"
    for bad in ("x", ADMIN + "x", new_api_key(new_id("key", 3))):
        assert code_of(await (await client_as(bad)).get("/api/whoami")) == "401 invalid_credentials"
    both = await (await client_as(ADMIN, X_API_Key=AGENT)).get("/api/whoami")
    assert code_of(both) == "401 invalid_credentials"
    assert (await whoami(await client_as("", X_API_Key=ADMIN))).whoami.role == "admin"


async def test_many_failures_are_slowed_down_but_a_valid_key_never(client_as: Client) -> None:
    bad = await client_as("wl_bad")
    codes = [code_of(await bad.get("/api/whoami")) for _ in range(22)]
    assert codes == ["401 invalid_credentials"] * 20 + ["429 rate_limited"] * 2
    assert (await whoami(await client_as())).whoami.key_name == "admin"


async def test_a_key_may_call_as_often_as_the_rate_limit_says(own_db: Database) -> None:
    await first_start(own_db, ADMIN, AGENT)
    services = parts(own_db, rate_limit=2)
    async with client_of(Dispatcher(OWN_ROUTES, services), Authorization=f"Bearer {ADMIN}") as http:
        answers = [await http.get("/api/whoami") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200] * 4 + [429]
    assert answers[-1].headers["retry-after"] == "1"


async def test_the_server_tells_a_caller_who_it_is(client_as: Client) -> None:
    told = (await whoami(await client_as(AGENT, X_Agent_Name="local", X_Session_ID="s-1"))).whoami
    assert (told.role, told.agent_name, told.session_id) == ("agent", "local", "s-1")
    assert (told.actor.kind, told.actor.ref) == ("agent_session", "s-1")
    assert (told.origin.kind, told.origin.ref) == ("http", "whoami")
    told = (await whoami(await client_as(ADMIN, X_Origin_Kind="CLI"))).whoami
    assert (told.actor.kind, told.actor.ref, told.origin.kind) == ("human", "admin", "cli")
    assert (told.workspace.name, told.all_workspaces) == ("default", True)


async def test_an_agent_key_speaks_for_its_own_names_only(client_as: Client) -> None:
    fleet = await new_key(client_as, "agent", agent_name="fleet-*")
    single = await new_key(client_as, "agent", agent_name="one")
    viewer = await new_key(client_as, "viewer")
    cases = (
        (fleet, "", "401 identity_required"), (fleet, "other", "403 identity_mismatch"),
        (single, "two", "403 identity_mismatch"), (viewer, "one", "403 identity_mismatch"),
    )  # fmt: skip
    for key, name, code in cases:
        http = await client_as(key, **({"X_Agent_Name": name} if name else {}))
        assert code_of(await http.get("/api/whoami")) == code
    for key, name in ((fleet, "fleet-7"), (single, "one"), (ADMIN, "any")):
        assert (await whoami(await client_as(key, X_Agent_Name=name))).whoami.agent_name == name
    assert (await whoami(await client_as(single))).whoami.agent_name == "one"


async def test_agent_routes_need_a_session_and_an_agent(client_as: Client) -> None:
    cases = (
        ({"key": AGENT, "X_Agent_Name": "local"}, "X-Session-ID"),
        ({"key": ADMIN, "X_Session_ID": "s-2"}, "X-Agent-Name"),
    )
    for who, header in cases:
        answer = await (await client_as(**who)).post("/api/agent/attend")
        assert code_of(answer) == "401 identity_required"
        assert evidence_of(answer) == {"header": header}
    odd = await client_as(AGENT, X_Agent_Name="local", X_Session_ID="a b")
    assert evidence_of(await odd.post("/api/agent/attend")) == {"parameter": "X-Session-ID"}


async def test_a_session_belongs_to_the_agent_name_that_used_it_first(client_as: Client) -> None:
    session = token_hex(8)
    first = await client_as(AGENT, X_Agent_Name="local-1", X_Session_ID=session)
    second = await client_as(AGENT, X_Agent_Name="local-2", X_Session_ID=session)
    assert (await second.get("/api/whoami")).status_code == 200
    assert (await first.post("/api/agent/attend")).status_code == 200
    answer = await second.post("/api/agent/attend")
    assert code_of(answer) == "403 identity_mismatch"
    assert evidence_of(answer) == {"session_id": session}
    assert (await first.post("/api/agent/attend")).status_code == 200


async def test_a_crowd_of_sessions_is_seen_whoever_holds_their_rows(
    client_as: Client, own_db: Database
) -> None:
    agents = [await client_as(ADMIN, X_Agent_Name=f"a{n}", X_Session_ID=f"s{n}") for n in range(40)]
    for agent in agents:
        assert (await agent.post("/api/agent/attend")).status_code == 200
    fresh, began = Dispatcher(OWN_ROUTES, parts(own_db)), await own_db.one("select lease_now()")
    async with AsyncExitStack() as stack:
        again = [
            await stack.enter_async_context(client_of(fresh, **dict(agent.headers)))
            for agent in agents
        ]
        again[7].headers["X-Agent-Name"] = "another"
        async with own_db.transaction() as other:
            await other.run("select from agent_session where session_id < 's2' for update")
            answers = await asyncio.gather(*(agent.get("/api/whoami") for agent in again))
    assert began is not None
    later = "select from agent_session where updated_at > %(began)s"
    assert len(await own_db.many(later, began=began[0])) == 28
    assert [n for n, answer in enumerate(answers) if answer.status_code != 200] == [7]
    assert code_of(answers[7]) == "403 identity_mismatch"


async def test_a_key_of_one_workspace_sees_no_other(client_as: Client) -> None:
    admin = await client_as()
    name = "w" + token_hex(6)
    assert (await admin.post("/api/workspaces", json={"name": name})).status_code == 201
    operator = await client_as(await new_key(client_as, "operator"))
    for path in ("/api/whoami?workspace=" + name, "/api/whoami?workspace=nowhere"):
        answer = await operator.get(path)
        assert code_of(answer) == "404 workspace_not_found"
        assert evidence_of(answer) == {"id": path.partition("=")[2]}
    assert code_of(await operator.get(f"/api/workspaces/{name}")) == "404 workspace_not_found"
    listed = msgspec.json.decode(
        (await operator.get("/api/workspaces")).content, type=WorkspaceListResponse
    )
    assert [workspace.name for workspace in listed.workspaces] == ["default"]
    for parameter in ("workspace", "work%73pace"):
        told = await whoami(admin, f"/api/whoami?{parameter}={name}")
        assert told.whoami.workspace.name == name
        assert (await whoami(admin)).whoami.workspace.name == "default"
    there = await client_as(ADMIN, X_Workspace=name)
    assert (await whoami(there)).whoami.workspace.name == name
    assert code_of(await there.get("/api/whoami?workspace=default")) == "422 validation_failed"


async def test_roles_are_kept_from_what_is_not_theirs(client_as: Client) -> None:
    agent = await client_as(await new_key(client_as, "agent"))
    viewer = await client_as(await new_key(client_as, "viewer"))
    operator = await client_as(await new_key(client_as, "operator"))
    assert code_of(await agent.get("/api/keys")) == "403 forbidden_operator_action"
    assert code_of(await operator.get("/api/keys")) == "403 forbidden"
    assert code_of(await viewer.get("/api/workspaces")) == "403 forbidden"
    changed = await agent.patch("/api/workspaces/default", json={"display_name": "x"})
    assert code_of(changed) == "403 forbidden_operator_action"


async def test_the_public_routes_need_no_key(client_as: Client) -> None:
    http = await client_as("")
    assert (await http.get("/healthz")).json() == {"status": "ok"}
    ready = msgspec.json.decode((await http.get("/readyz")).content, type=ReadyResponse)
    assert (ready.ready, ready.checks.database.ok, ready.checks.schema.ok) == (True, True, True)
    version = msgspec.json.decode((await http.get("/version")).content, type=VersionResponse)
    assert (version.name, version.api_version) == ("worklease", 1)
    assert "worklease_http_requests_total" in (await http.get("/metrics")).text


async def test_refused_callers_and_calls_that_no_route_takes_are_counted(client_as: Client) -> None:
    http = await client_as("")
    failures = "worklease_auth_failures_total{reason="
    astray = 'worklease_http_requests_total{method="",route="",status='
    kept = (f'{failures}"authentication_required"}}', f'{failures}"invalid_credentials"}}')
    counted = (*kept, f'{astray}"404"}}', f'{astray}"405"}}')
    before = await _counts(http, counted)
    await http.get("/api/whoami")
    await (await client_as(ADMIN, X_API_Key=AGENT)).get("/api/whoami")
    assert code_of(await http.get("/api/nothing")) == "404 route_not_found"
    assert code_of(await http.put("/api/whoami")) == "405 method_not_allowed"
    after = await _counts(http, counted)
    assert [now - then for now, then in zip(after, before, strict=True)] == [1, 1, 1, 1]


async def _counts(http: httpx2.AsyncClient, counted: tuple[str, ...]) -> list[float]:
    lines = (await http.get("/metrics")).text.splitlines()
    told = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return [float(told.get(name, 0)) for name in counted]
