"""The endpoint machinery, with handlers of its own and a caller that is known already."""

import gzip
from collections.abc import AsyncGenerator, AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import httpx2
import pytest

from server import limits
from server.api.context import Caller, Context, EventStream, RunId
from server.api.dispatch import Dispatcher
from server.api.route import Route
from server.api.services import Services
from server.contract.base import Encoded, PageQuery
from server.contract.leases import HeartbeatRequest
from server.contract.runs import StartRequest
from server.contract.workspaces import WorkspacePatchRequest
from server.errors import Problem
from tests.asgi import client_of, code_of, evidence_of

CALLER = Caller(
    "key_1", "k", "agent", "ws_1", "default", False, "a", "s", "agent_session", "s", "http"
)
seen: list[Context] = []


async def beat(ctx: Context, run_id: RunId, body: HeartbeatRequest) -> Encoded[Any]:
    """Takes a body and a path id."""
    return Encoded(f'{{"run":"{run_id}","token":"{body.claim_token}"}}'.encode(), version=3)


async def start(ctx: Context, body: StartRequest) -> Encoded[Any]:
    """Takes a key and a guard."""
    seen.append(ctx)
    return Encoded(b"{}", replayed=True)


async def change(ctx: Context, body: WorkspacePatchRequest) -> Encoded[Any]:
    """Takes a version."""
    return Encoded(f'{{"if_match":{ctx.if_match or 0}}}'.encode())


async def large(ctx: Context, query: PageQuery) -> Encoded[Any]:
    """Answers much."""
    return Encoded(b'"' + b"x" * limits.GZIP_FROM_BYTES + b'"')


async def nothing(ctx: Context) -> None:
    """Answers nothing."""


async def broken(ctx: Context) -> Encoded[Any]:
    """Fails."""
    raise KeyError("wl_key_secret")


async def torn(ctx: Context) -> EventStream:
    """Streams, and fails."""

    async def frames() -> AsyncGenerator[bytes, None]:
        yield b"event: a\n\n"
        raise Problem("database_unavailable")

    return EventStream(frames())


async def stream(ctx: Context) -> EventStream:
    """Streams."""

    async def frames() -> AsyncGenerator[bytes, None]:
        yield b"event: a\ndata: 1\n\n"
        yield b"event: b\ndata: 2\n\n"

    return EventStream(frames())


ROUTES = (
    Route("POST", "/api/agent/tasks/{run_id}/heartbeat", beat, "beat"),
    Route("GET", "/api/agent/large", large, "large"),
    Route("GET", "/api/large", large, "large"),
    Route("POST", "/api/start", start, "start", ok=(201,), keyed=True, guarded=True),
    Route("POST", "/api/forbidden", start, "approve", "OM", operator=True),
    Route("PATCH", "/api/change", change, "change"),
    Route("DELETE", "/api/nothing", nothing, "nothing"),
    Route("GET", "/api/broken", broken, "broken"),
    Route("GET", "/api/stream", stream, "stream"),
    Route("GET", "/api/torn", torn, "torn"),
)


@pytest.fixture
async def http() -> AsyncIterator[httpx2.AsyncClient]:
    """A client of these routes."""
    identity = SimpleNamespace(recall=lambda *_: CALLER)
    config = SimpleNamespace(url="https://worklease.test")
    services = cast("Services", SimpleNamespace(identity=identity, config=config))
    async with client_of(Dispatcher(ROUTES, services)) as client:
        yield client


BEAT = "/api/agent/tasks/run_1/heartbeat"


async def test_an_answer_carries_its_version_and_the_callers_request_id(
    http: httpx2.AsyncClient,
) -> None:
    answer = await http.post(BEAT, json={}, headers={"X-Request-ID": "mine"})
    assert (answer.status_code, answer.headers["etag"]) == (200, '"3"')
    assert answer.headers["x-request-id"] == "mine"
    answer = await http.post(BEAT, headers={"X-Request-ID": "x" * 129})
    assert len(answer.headers["x-request-id"]) == 36


async def test_an_empty_body_is_an_empty_object(http: httpx2.AsyncClient) -> None:
    assert (await http.post(BEAT)).json() == {"run": "run_1", "token": "None"}


async def test_a_token_may_come_as_header_or_field_but_not_as_two(http: httpx2.AsyncClient) -> None:
    header = {"X-Claim-Token": "a"}
    assert (await http.post(BEAT, headers=header)).json()["token"] == "a"
    assert (await http.post(BEAT, headers=header, json={"claim_token": "a"})).status_code == 200
    answer = await http.post(BEAT, headers=header, json={"claim_token": "b"})
    assert code_of(answer) == "422 validation_failed"


async def test_an_unfit_path_id_answers_as_an_unknown_one(http: httpx2.AsyncClient) -> None:
    answer = await http.post("/api/agent/tasks/run%20_1/heartbeat")
    assert code_of(answer) == "404 run_not_found"
    assert evidence_of(answer) == {"id": "run _1"}


async def test_paths_and_methods_that_are_not_there(http: httpx2.AsyncClient) -> None:
    assert code_of(await http.get("/api/nowhere")) == "404 route_not_found"
    assert code_of(await http.get("/api/large/")) == "404 route_not_found"
    answer = await http.post("/api/large")
    assert code_of(answer) == "405 method_not_allowed"
    assert answer.headers["allow"] == "GET, HEAD"


async def test_head_answers_like_get_without_a_body(http: httpx2.AsyncClient) -> None:
    answer = await http.head("/api/large", headers={"Accept-Encoding": "identity"})
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) == limits.GZIP_FROM_BYTES + 2


@pytest.mark.parametrize("headers", [{"Content-Type": "text/plain"}, {"Content-Encoding": "gzip"}])
async def test_a_body_must_be_plain_json(http: httpx2.AsyncClient, headers: dict[str, str]) -> None:
    answer = await http.post(BEAT, content=gzip.compress(b"{}"), headers=headers)
    assert code_of(answer) == "415 unsupported_media_type"
    fine = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert (await http.post(BEAT, content=b"{}", headers=fine)).status_code == 200


async def test_a_body_is_read_no_further_than_its_limit(http: httpx2.AsyncClient) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += limits.MIB
            yield b" " * limits.MIB

    answer = await http.post(BEAT, content=endless())
    assert code_of(answer) == "413 body_too_large"
    assert sent <= limits.BODY_LIMIT_BYTES + 2 * limits.MIB
    answer = await http.post(BEAT, content=b" " * (limits.BODY_LIMIT_BYTES + 1))
    assert evidence_of(answer) == {"limit_bytes": limits.BODY_LIMIT_BYTES}


async def test_long_answers_are_packed_but_not_those_to_agents(http: httpx2.AsyncClient) -> None:
    packs = {"Accept-Encoding": "br, gzip;q=0.5"}
    answer = await http.get("/api/large", headers=packs)
    assert answer.headers["content-encoding"] == "gzip"
    assert len(answer.content) == limits.GZIP_FROM_BYTES + 2
    for path, accepts in (("/api/agent/large", "gzip"), ("/api/large", "gzip;q=0")):
        answer = await http.get(path, headers={"Accept-Encoding": accepts})
        assert "content-encoding" not in answer.headers


async def test_a_key_may_come_as_header_or_field(http: httpx2.AsyncClient) -> None:
    answer = await http.post("/api/start", headers={"Idempotency-Key": "k"})
    assert (answer.status_code, answer.headers["idempotent-replayed"]) == (201, "true")
    first = seen.pop()
    await http.post("/api/start", json={"idempotency_key": "k"})
    second = seen.pop()
    assert first.idempotency_key == second.idempotency_key == "k"
    assert first.request_hash == second.request_hash
    header, field = {"Idempotency-Key": "k"}, {"idempotency_key": "l"}
    answer = await http.post("/api/start", headers=header, json=field)
    assert code_of(answer) == "422 validation_failed"
    answer = await http.post("/api/start", headers={"Idempotency-Key": "a b"})
    assert evidence_of(answer) == {"parameter": "Idempotency-Key"}


async def test_equal_requests_have_equal_hashes_and_others_have_not(
    http: httpx2.AsyncClient,
) -> None:
    bodies = (b'{"network_channel":"a","metadata":{"b":1,"a":2}}',
              b' {"metadata": {"a":2, "b":1}, "network_channel":"a"}',
              b'{"network_channel":"b","metadata":{"b":1,"a":2}}')  # fmt: skip
    for body in bodies:
        await http.post("/api/start", content=body)
    hashes = [seen.pop().request_hash for _ in bodies]
    assert hashes[2] == hashes[1] != hashes[0]


async def test_a_guard_is_both_headers_or_neither(http: httpx2.AsyncClient) -> None:
    await http.post("/api/start", headers={"X-Run-ID": "run_1", "X-Claim-Token": "t"})
    assert seen.pop().guard == ("run_1", "t")
    answer = await http.post("/api/start", headers={"X-Run-ID": "run_1"})
    assert code_of(answer) == "400 invalid_query"
    assert evidence_of(answer) == {"parameter": "X-Claim-Token"}


async def test_a_role_that_may_not_is_told_so_before_its_body_is_looked_at(
    http: httpx2.AsyncClient,
) -> None:
    answer = await http.post("/api/forbidden", content=b"{")
    assert code_of(answer) == "403 forbidden_operator_action"
    told = {"role": "agent", "action": "approve", "retryable": False}
    assert evidence_of(answer).items() >= told.items()


async def test_a_version_may_come_as_header_or_field(http: httpx2.AsyncClient) -> None:
    named = {"display_name": "a"}
    answer = await http.patch("/api/change", json=named, headers={"If-Match": '"7"'})
    assert answer.json() == {"if_match": 7}
    assert (await http.patch("/api/change", json=named | {"version": 8})).json() == {"if_match": 8}
    free = await http.patch("/api/change", json=named, headers={"If-Match": "*"})
    assert free.json() == {"if_match": 0}
    both = await http.patch("/api/change", json=named | {"version": 8}, headers={"If-Match": '"7"'})
    assert code_of(both) == "422 validation_failed"
    odd = await http.patch("/api/change", json=named, headers={"If-Match": "7"})
    assert evidence_of(odd) == {"parameter": "If-Match"}
    assert code_of(await http.patch("/api/change", json={"version": 8})) == "422 empty_patch"


async def test_nothing_to_say_is_204(http: httpx2.AsyncClient) -> None:
    answer = await http.delete("/api/nothing")
    assert (answer.status_code, answer.content) == (204, b"")
    assert "content-length" not in answer.headers
    assert code_of(await http.delete("/api/nothing?zip=1")) == "400 invalid_query"


async def test_a_fault_of_the_server_says_nothing_but_its_request_id(
    http: httpx2.AsyncClient,
) -> None:
    answer = await http.get("/api/broken")
    assert code_of(answer) == "500 internal_error"
    assert evidence_of(answer) == {}
    assert "secret" not in answer.text


async def test_a_stream_begins_with_its_retry_and_ends_with_its_frames(
    http: httpx2.AsyncClient,
) -> None:
    answer = await http.get("/api/stream")
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.text == "retry: 3000\n\nevent: a\ndata: 1\n\nevent: b\ndata: 2\n\n"
    assert (await http.head("/api/stream")).content == b""


async def test_a_stream_that_fails_just_ends(http: httpx2.AsyncClient) -> None:
    assert (await http.get("/api/torn")).text == "retry: 3000\n\nevent: a\n\n"
