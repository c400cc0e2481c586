"""Bad input: the status and code of the contract, nothing changed, nothing logged as an error."""

import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx2
import msgspec
import pytest

from server.rules.cursors import encode_cursor
from tests.factories import Held, Workspace, refused

DEEP = b'{"title":"t","payload":' + b"[" * 65 + b"]" * 65 + b"}"
ABYSS = b'{"title":"t","payload":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
LARGE = b'{"title":"t","description":"' + b"x" * 5 * 1024 * 1024 + b'"}'
BODIES: tuple[tuple[bytes, int, str], ...] = (
    (b"{", 400, "malformed_json"),
    (b'{"title":"t"}}', 400, "malformed_json"),
    (b'{"title":NaN}', 400, "malformed_json"),
    (b'{"title":"\xff"}', 400, "malformed_json"),
    (b'{"title":"\\ud800"}', 400, "malformed_json"),
    (b"\xef\xbb\xbf{}", 400, "malformed_json"),
    (b'{"payload":1e999,"title":[1,2}', 400, "malformed_json"),
    (b'{"payload":1e999,"title":"\xff"}', 400, "malformed_json"),
    (b"[]", 400, "malformed_json"),
    (b"null", 400, "malformed_json"),
    (b'"title"', 400, "malformed_json"),
    (b"", 422, "validation_failed"),
    (b"{}", 422, "validation_failed"),
    (b'{"title":" "}', 422, "validation_failed"),
    (b'{"title":7}', 422, "validation_failed"),
    (b'{"title":"a\\u0000b"}', 422, "validation_failed"),
    (b'{"title":"' + b"x" * 501 + b'"}', 422, "validation_failed"),
    (b'{"title":"t","description":"' + b"x" * 65537 + b'"}', 422, "validation_failed"),
    (b'{"title":"t","titel":"t"}', 422, "unknown_field"),
    (b'{"title":"t","retry":{"strategi":"none"}}', 422, "unknown_field"),
    (b'{"title":"t","status":"ready"}', 422, "immutable_field"),
    (b'{"title":"t","id":"a b"}', 422, "validation_failed"),
    (b'{"title":"t","id":"' + b"x" * 129 + b'"}', 422, "validation_failed"),
    (b'{"title":"t","priority":"huge"}', 422, "validation_failed"),
    (b'{"title":"t","priority":3}', 422, "validation_failed"),
    (b'{"title":"t","max_attempts":11}', 422, "validation_failed"),
    (b'{"title":"t","max_attempts":3.0}', 422, "validation_failed"),
    (b'{"title":"t","max_attempts":"3"}', 422, "validation_failed"),
    (b'{"title":"t","max_attempts":99999999999999999999}', 422, "validation_failed"),
    (b'{"title":"t","auto_enqueue_on_ready":1}', 422, "validation_failed"),
    (b'{"title":"t","available_at":"2030-01-01T00:00:00"}', 422, "validation_failed"),
    (b'{"title":"t","available_at":"tomorrow"}', 422, "validation_failed"),
    (b'{"title":"t","available_at":"9999-12-31T23:59:59-01:00"}', 422, "validation_failed"),
    (b'{"title":"t","available_at":"0001-01-01T00:00:00+01:00"}', 422, "validation_failed"),
    (b'{"title":"t","tags":"a"}', 422, "validation_failed"),
    (b'{"title":"t","tags":["' + b'","'.join(b"%d" % n for n in range(33)) + b'"]}',
     422, "validation_failed"),
    (b'{"title":"t","owner":{"kind":"pool"}}', 422, "validation_failed"),
    (b'{"title":"t","network_channel":"coord-x"}', 422, "validation_failed"),
    (b'{"title":"t","payload":1e999}', 422, "validation_failed"),
    (b'{"title":"t","payload":1' + b"0" * 400 + b"}", 422, "validation_failed"),
    (b'{"title":"t","payload":["a\\u0000"]}', 422, "validation_failed"),
    (b'{"title":"t","metadata":{"a":[{"Claim_Token":1}]}}', 422, "secret_in_json"),
    (b'{"title":"t","metadata":"' + b"x" * 16384 + b'"}', 413, "value_too_large"),
    (b'{"title":"t","payload":"' + b"x" * 262144 + b'"}', 413, "value_too_large"),
    (DEEP, 422, "validation_failed"),
    (ABYSS, 422, "validation_failed"),
    (LARGE, 413, "body_too_large"),
)  # fmt: skip


def test_what_is_no_choice_is_told_the_choices(workspace: Workspace) -> None:
    with refused(422, "validation_failed") as told:
        workspace.operator.post("/api/tasks", title="t", priority="asap")
    assert told[0].message == "priority: must be one of high, low, medium, urgent"
    with refused(400, "invalid_query") as told:
        workspace.operator.get("/api/tasks", sort="size")
    assert told[0].message == "sort: must be one of activity, created"


@pytest.mark.parametrize("offset", ["+18:46", "-23:59", "+00:00"])
def test_a_time_may_have_any_offset(workspace: Workspace, offset: str) -> None:
    """Also one that PostgreSQL does not know: it is the same moment in UTC."""
    at = f"2031-01-27T12:00:00{offset}"
    utc = f"{datetime.fromisoformat(at).astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
    operator = workspace.operator
    task = operator.post("/api/tasks", title="t", available_at=at).task
    assert task.available_at == utc
    task = operator.patch(f"/api/tasks/{task.id}", available_at=at, version=task.version).task
    assert task.available_at == utc
    key = workspace.world.admin.post(
        "/api/keys", name=workspace.id, role="agent", expires_at=at
    ).key
    assert key.expires_at == utc
    assert operator.get("/api/events", since=at).events == []
    assert operator.get("/api/events", until=at).events


@pytest.fixture
def calm(workspace: Workspace) -> Iterator[Workspace]:
    """A workspace with something in it that must not change, and a server that stays calm."""
    workspace.graph({"a": [], "b": ["a"]})
    log = workspace.world.server.log.stat().st_size
    with workspace.unchanged():
        yield workspace
    assert workspace.world.server.errors(since=log) == []


@pytest.mark.parametrize("row", BODIES, ids=lambda row: f"{row[0][:40]!r}")
def test_a_bad_body_is_refused(calm: Workspace, row: tuple[bytes, int, str]) -> None:
    body, status, code = row
    with refused(status, code):
        calm.operator.send("POST", "/api/tasks", content=body)


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Content-Type": "text/plain"}, 415, "unsupported_media_type"),
        ({"Content-Encoding": "gzip"}, 415, "unsupported_media_type"),
        ({"Idempotency-Key": "k" * 256}, 400, "invalid_query"),
        ({"Idempotency-Key": "a key"}, 400, "invalid_query"),
        ({"X-Origin-Kind": "pigeon"}, 400, "invalid_query"),
        ({"X-Workspace": "no-such-workspace"}, 404, "workspace_not_found"),
    ],
)
def test_a_bad_header_is_refused(
    calm: Workspace, headers: dict[str, str], status: int, code: str
) -> None:
    with refused(status, code):
        calm.operator.send("POST", "/api/tasks", content=b'{"title":"t"}', headers=headers)


@pytest.mark.parametrize(
    ("path", "parameter"),
    [
        ("/api/tasks?limit=0", "limit"), ("/api/tasks?limit=501", "limit"),
        ("/api/tasks?limit=x", "limit"), ("/api/tasks?colour=red", "colour"),
        ("/api/tasks?status=done", "status"), ("/api/tasks?include_drafts=maybe", "include_drafts"),
        ("/api/events?after_sequence=-1", "after_sequence"),
        ("/api/events?event_type=task.made", "event_type"),
        ("/api/observe/stream?event_type=task.made", "event_type"),
        ("/api/events?since=1767225600", "since"), ("/api/events?until=2026-01-01", "until"),
        ("/api/events?since=0001-01-01T00:00:00%2B23:59", "since"),
        ("/api/events?until=9999-12-31T23:59:59-00:01", "until"),
        ("/api/tasks/x?limit=5", "limit"),
    ],
)  # fmt: skip
def test_a_bad_parameter_is_refused(calm: Workspace, path: str, parameter: str) -> None:
    with refused(400, "invalid_query", parameter=parameter):
        calm.operator.send("GET", path)


@pytest.mark.parametrize("version", ['"0x1"', '"99999999999"', f'"{"9" * 5000}"', '"²"'])
def test_a_version_that_no_task_can_have_is_refused(calm: Workspace, version: str) -> None:
    task_id = calm.operator.get("/api/tasks").tasks[0].id
    with refused(400, "invalid_query", parameter="If-Match"):
        calm.operator.send(
            "PATCH", f"/api/tasks/{task_id}", content=b'{"title":"t"}',
            headers={"If-Match": version.encode()},
        )  # fmt: skip


def test_a_cursor_is_good_for_its_own_list_only(calm: Workspace) -> None:
    read = calm.operator.get
    tasks = read("/api/tasks", limit=1).next_cursor
    events = read("/api/events", limit=1).next_cursor
    for path, query in (
        ("/api/tasks", {"cursor": events}), ("/api/events", {"cursor": tasks}),
        ("/api/tasks", {"cursor": tasks, "sort": "created"}),
        ("/api/tasks", {"cursor": tasks[:-2]}), ("/api/tasks", {"cursor": "é"}),
        ("/api/tasks", {"cursor": "A" * 5000}),
    ):  # fmt: skip
        with refused(400, "invalid_cursor"):
            read(path, **query)
    assert read("/api/tasks", limit=5, cursor=tasks).tasks


UPGRADE = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AA"}


def test_a_body_that_an_upgrade_makes_unreadable_is_not_taken_for_an_empty_one(
    calm: Workspace,
) -> None:
    """As clients send it that would rather speak HTTP/2."""
    url = httpx2.URL(calm.world.server.url)
    headers = calm.operator.sent() | UPGRADE | {"Host": "here", "Content-Length": "13"}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    with socket.create_connection((url.host, url.port)) as connection:
        connection.sendall(f'POST /api/tasks HTTP/1.1\r\n{head}\r\n{{"title":"t"}}'.encode())
        told = b"".join(iter(lambda: connection.recv(65536), b""))
    assert told.startswith(b"HTTP/1.1 400 ")
    assert b"malformed_json" in told


def test_an_upgrade_of_a_request_without_a_body_is_not_minded(calm: Workspace) -> None:
    assert calm.operator.send("GET", "/api/tasks", headers=UPGRADE).tasks


def test_a_cursor_that_the_server_did_not_make_is_refused(calm: Workspace) -> None:
    task_id = calm.operator.get("/api/tasks").tasks[0].id
    path = f"/api/tasks/{task_id}/timeline"
    scope = msgspec.json.encode([path, calm.id, False, {"after_sequence": 0}])
    with refused(400, "invalid_cursor"):
        calm.operator.get(path, cursor=encode_cursor(scope, ["no number"]))


@pytest.mark.parametrize("task_id", ["a%20b", "%00", "é", "x" * 129, "%ff"])
def test_an_id_that_no_task_can_have_is_unknown(calm: Workspace, task_id: str) -> None:
    with refused(404, "task_not_found"):
        calm.operator.send("GET", f"/api/tasks/{task_id}")


BULK: tuple[tuple[list[dict[str, Any]], int, str, dict[str, Any]], ...] = (
    ([], 422, "validation_failed", {}),
    ([{"title": "t"}], 422, "validation_failed", {"index": 0}),
    ([{"ref": "a", "title": "t"}] * 2, 422, "duplicate_ref", {"index": 1, "ref": "a"}),
    ([{"ref": "a"}], 422, "validation_failed", {"index": 0, "ref": "a", "field": "title"}),
    ([{"ref": "a", "title": "t", "depends_on_refs": ["b"]}], 422, "ref_unknown",
     {"index": 0, "ref": "b"}),
    ([{"ref": "a", "title": "t", "parent_ref": "b"}], 422, "ref_unknown", {"index": 0}),
    ([{"ref": "a", "title": "t", "depends_on_refs": ["a"]}], 422, "dependency_self", {"index": 0}),
    ([{"ref": "a", "title": "t", "depends_on_refs": ["b"]},
      {"ref": "b", "title": "t", "depends_on_refs": ["a"]}], 409, "dependency_cycle",
     {"path": ["a", "b", "a"]}),
    ([{"ref": "a", "title": "t", "depends_on": ["nobody"]}], 404, "task_not_found",
     {"index": 0, "ref": "a", "id": "nobody"}),
    ([{"ref": "a", "title": "t", "id": "x"}, {"ref": "b", "title": "t", "id": "x"}],
     409, "task_exists", {"index": 1, "ref": "b"}),
    ([{"ref": "ok", "title": "t"}, {"ref": "a", "title": "t", "max_attempts": 0}],
     422, "validation_failed", {"index": 1, "ref": "a", "field": "max_attempts"}),
    ([{"ref": "ok", "title": "t"}, {"ref": "a", "title": "t", "retry": {"x": 1}}],
     422, "unknown_field", {"field": "tasks.1.retry.x", "index": 1, "ref": "a"}),
    ([{"ref": f"{n}", "title": "t"} for n in range(10_001)], 422, "bulk_too_large",
     {"limit": 10_000, "count": 10_001}),
    ([{}] * 10_001, 422, "bulk_too_large", {"limit": 10_000, "count": 10_001}),
)  # fmt: skip


@pytest.mark.parametrize("row", BULK, ids=lambda row: f"{row[2]}-{len(row[0])}-{row[3]}")
def test_a_bulk_with_one_bad_item_makes_nothing(
    calm: Workspace, row: tuple[list[dict[str, Any]], int, str, dict[str, Any]]
) -> None:
    items, status, code, evidence = row
    with refused(status, code, **evidence):
        calm.operator.post("/api/tasks/bulk", tasks=items)


LEASE: tuple[tuple[str, dict[str, Any], int, str], ...] = (
    ("heartbeat", {"lease_seconds": 4}, 422, "validation_failed"),
    ("heartbeat", {"lease_seconds": 86401}, 422, "validation_failed"),
    ("heartbeat", {"progress": {"percent": 101}}, 422, "validation_failed"),
    ("heartbeat", {"progress": {"message": "x" * 1025}}, 422, "validation_failed"),
    ("heartbeat", {"usage": {"input_tokens": -1}}, 422, "validation_failed"),
    ("heartbeat", {"usage": {"input_tokens": 10**15 + 1}}, 422, "validation_failed"),
    ("heartbeat", {"usage": {"total_cost": 1e12}}, 422, "validation_failed"),
    ("heartbeat", {"usage": {"total_cost": 999999999999.9999999}}, 422, "validation_failed"),
    ("heartbeat", {"usage": {"cost_currency": "euro"}}, 422, "validation_failed"),
    ("heartbeat", {"result": 1}, 422, "unknown_field"),
    ("heartbeat", {"claim_token": 7}, 422, "validation_failed"),
    ("heartbeat", {"claim_token": "wlt_1_" + "\N{SNOWMAN}" * 43}, 409, "invalid_claim_token"),
    ("heartbeat", {"claim_token": f"wlt_{2**63}_{'A' * 43}"}, 409, "invalid_claim_token"),
    ("heartbeat", {"claim_token": "x" * 100_000}, 409, "invalid_claim_token"),
    ("complete", {"claim_next": {"max_runs": 101}}, 422, "validation_failed"),
    ("complete", {"claim_next": {"workspace_id": "x"}}, 422, "unknown_field"),
    ("fail", {"error": " "}, 422, "validation_failed"),
    ("fail", {"error": "e", "failure_kind": "operator_forced"}, 422, "validation_failed"),
    ("fail", {"error": "e", "failure_kind": "No!"}, 422, "validation_failed"),
    ("fail", {"error": "e", "metadata": "x" * 65536}, 413, "value_too_large"),
    ("release", {"note": "x" * 8193}, 422, "validation_failed"),
    ("release", {"delay_seconds": 604801}, 422, "validation_failed"),
)


@pytest.mark.parametrize("row", LEASE, ids=lambda row: f"{row[0]}-{str(row[1])[:40]}")
def test_a_bad_call_under_a_lease_is_refused(
    workspace: Workspace, row: tuple[str, dict[str, Any], int, str]
) -> None:
    operation, body, status, code = row
    workspace.task()
    held = workspace.agent().claim()
    with workspace.unchanged(), refused(status, code):
        held.call(operation, **body)


def test_every_fault_of_a_body_is_told_at_once(calm: Workspace) -> None:
    body = {"title": "", "priority": "huge", "retry": {"base_seconds": -1}, "tags": [1]}
    with refused(422, "validation_failed") as told:
        calm.operator.post("/api/tasks", **body)
    fields = {fault["field"] for fault in told[0].evidence["errors"]}
    assert fields == {"title", "priority", "retry.base_seconds", "tags"}


def test_a_long_error_is_cut_and_not_refused(workspace: Workspace) -> None:
    workspace.task()
    held: Held = workspace.agent().claim()
    held.fail("é" * 20_000, retryable=False)
    error = workspace.run(held.run_id).error
    assert error == "é" * 8192 + "…[cut]"
