"""Keys and workspaces: made, listed, changed, rotated, revoked."""

from secrets import token_hex

import msgspec

from server.api.dispatch import Dispatcher
from server.contract.keys import KeyListResponse, KeyResponse
from server.contract.workspaces import WorkspaceResponse
from server.db.pool import Database
from tests.asgi import client_of, code_of, evidence_of
from tests.identity import ADMIN, OWN_ROUTES, Client, new_key, parts, whoami


async def test_a_key_is_shown_once_and_replayed_without_its_secret(client_as: Client) -> None:
    admin = await client_as()
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


async def test_a_rotated_key_and_its_successor_overlap(client_as: Client) -> None:
    old = await new_key(client_as, "viewer")
    admin = await client_as()
    key_id = (await whoami(await client_as(old))).whoami.key_id
    answer = await admin.post(f"/api/keys/{key_id}/rotate", json={"overlap_seconds": 60})
    new = msgspec.json.decode(answer.content, type=KeyResponse).key
    assert isinstance(new.secret, str)
    for secret in (old, new.secret):
        assert (await whoami(await client_as(secret))).whoami.key_name == new.name
    again = await admin.post(f"/api/keys/{key_id}/rotate")
    assert code_of(again) == "409 key_revoked"
    for _ in range(2):
        assert (await admin.delete(f"/api/keys/{key_id}")).status_code == 204
    unknown = await admin.post("/api/keys/key_0/rotate")
    assert code_of(unknown) == "404 key_not_found"


async def test_a_revoked_key_is_refused_once_the_server_has_forgotten_it(
    client_as: Client, own_db: Database
) -> None:
    secret = await new_key(client_as, "viewer")
    key_id = (await whoami(await client_as(secret))).whoami.key_id
    assert (await (await client_as()).delete(f"/api/keys/{key_id}")).status_code == 204
    async with client_of(
        Dispatcher(OWN_ROUTES, parts(own_db)), Authorization=f"Bearer {secret}"
    ) as http:
        assert code_of(await http.get("/api/whoami")) == "401 invalid_credentials"


async def test_the_last_admin_key_stays(client_as: Client) -> None:
    admin = await client_as()
    key_id = (await whoami(admin)).whoami.key_id
    assert code_of(await admin.delete(f"/api/keys/{key_id}")) == "409 last_admin_key"


async def test_lists_go_on_behind_their_cursor_and_only_there(client_as: Client) -> None:
    admin = await client_as()
    for _ in range(2):
        await new_key(client_as, "viewer")
    pages: list[KeyListResponse] = []
    while not pages or pages[-1].next_cursor:
        cursor = pages[-1].next_cursor if pages else ""
        answer = await admin.get(f"/api/keys?limit=1&include_revoked=1&cursor={cursor}")
        pages.append(msgspec.json.decode(answer.content, type=KeyListResponse))
    seen = [key.id for page in pages for key in page.keys]
    assert len(seen) == len(set(seen)) == 4
    elsewhere = await admin.get(f"/api/keys?cursor={pages[0].next_cursor}")
    assert code_of(elsewhere) == "400 invalid_cursor"


async def test_settings_are_kept_and_a_stale_version_is_refused(client_as: Client) -> None:
    admin = await client_as()
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


async def test_every_workspace_may_be_named_for_keys_only(client_as: Client) -> None:
    admin = await client_as(ADMIN, X_Workspace="*")
    assert (await admin.get("/api/keys")).status_code == 200
    assert code_of(await admin.get("/api/whoami")) == "404 workspace_not_found"
    assert (await (await client_as()).get("/api/keys?workspace=*")).status_code == 200
