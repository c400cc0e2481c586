"""Bodies and queries: what is neatened, what is refused, and how it is told."""

from typing import Any

import msgspec
import pytest
from msgspec import UNSET

from server.api.decode import BodyDecoder
from server.api.query import QueryDecoder
from server.contract.base import to_json
from server.contract.bulk import BulkHeartbeatRequest, TaskBulkRequest
from server.contract.leases import ClaimNextRequest, HeartbeatRequest, LeaseFailRequest
from server.contract.tasks import TaskCreateRequest, TaskListQuery, TaskPatchRequest
from server.errors import Problem

create = BodyDecoder(TaskCreateRequest)
patch = BodyDecoder(TaskPatchRequest)


def refused(read: Any, raw: bytes | dict[str, Any]) -> Problem:
    with pytest.raises(Problem) as caught:
        read(raw if isinstance(raw, bytes) else msgspec.json.encode(raw))
    return caught.value


def faults(read: Any, raw: bytes | dict[str, Any]) -> list[str]:
    problem = refused(read, raw)
    assert problem.code == "validation_failed"
    return [f"{fault['field']} {fault['rule']}" for fault in problem.evidence["errors"]]


def test_texts_are_trimmed_enums_folded_and_blanks_absent() -> None:
    task = create(b'{"title":"  a ","priority":" HIGH","description":"  ","tags":[" b","a","b "]}')
    assert (task.title, task.priority, task.description) == ("a", "high", UNSET)
    assert task.tags == ["a", "b"]


def test_null_is_absent_when_creating_and_clears_when_patching() -> None:
    assert create(b'{"title":"a","metadata":null,"owner":null}').metadata is UNSET
    changes = patch(b'{"metadata":null,"description":" ","network_channel":""}')
    assert to_json(changes) == '{"network_channel":null,"metadata":null}'


def test_free_json_goes_on_in_its_compact_form() -> None:
    task = create(b'{"title":"a","payload":{ "b" : [1, 2] }}')
    assert to_json(task) == '{"payload":{"b":[1,2]},"title":"a"}'


def test_every_fault_is_told_at_once() -> None:
    body = {"title": "", "max_attempts": 11, "priority": "x", "metadata": "\0", "tags": [""]}
    assert sorted(faults(create, body)) == [
        "max_attempts range", "metadata characters", "priority enum", "tags length",
        "title required",
    ]  # fmt: skip


def test_limits_in_bytes_count_bytes_and_limits_in_characters_characters() -> None:
    assert create(msgspec.json.encode({"title": "é" * 500})).title == "é" * 500
    assert faults(create, {"title": "é" * 501}) == ["title length"]
    assert faults(create, {"title": "a", "description": "é" * 40_000}) == ["description length"]


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [("status", "ready", "immutable_field"), ("approval_state", "pending", "immutable_field"),
     ("zip", 1, "unknown_field")],
)  # fmt: skip
def test_a_field_that_may_not_be_set_is_named(field: str, value: object, code: str) -> None:
    problem = refused(create, {"title": "a", field: value})
    assert (problem.code, problem.evidence) == (code, {"field": field})


def test_a_fault_inside_is_told_by_its_path() -> None:
    assert refused(create, {"title": "a", "retry": {"zip": 1}}).evidence == {"field": "retry.zip"}
    body = {"title": "a", "retry": {"base_seconds": 9, "max_seconds": 3}}
    assert faults(create, body) == ["retry.base_seconds range"]
    items = {"tasks": [{"ref": "a", "title": "x"}, {"ref": "b", "title": 5}]}
    problem = refused(BodyDecoder(TaskBulkRequest), items)
    assert problem.evidence["errors"][0]["field"] == "tasks.1.title"
    assert (problem.evidence["index"], problem.evidence["ref"]) == (1, "b")


def test_a_list_that_is_too_short_is_told_by_its_name() -> None:
    for struct, name in ((TaskBulkRequest, "tasks"), (BulkHeartbeatRequest, "items")):
        assert faults(BodyDecoder(struct), {name: []}) == [f"{name} length"]


@pytest.mark.parametrize(
    "raw", [b"{", b"[]", b"1", b'{"title":"a"} x', b'{"title":"\xff"}', b'{"title":"\\ud800"}']
)
def test_what_is_no_json_object_is_malformed(raw: bytes) -> None:
    assert refused(create, raw).code == "malformed_json"


def test_a_value_too_large_or_secret_has_its_own_code() -> None:
    assert refused(create, {"title": "a", "metadata": "x" * 20_000}).code == "value_too_large"
    secret = {"title": "a", "metadata": {"in": [{"Claim_Token": 1}]}}
    assert refused(create, secret).code == "secret_in_json"
    assert create(b'{"title":"a","payload":{"claim_token":1}}').payload is not UNSET


@pytest.mark.parametrize("number", [b"1e999", b"-1e999", b"[1e400]"])
def test_a_number_that_is_not_finite_is_a_fault_of_its_field(number: bytes) -> None:
    assert faults(create, b'{"title":"a","payload":' + number + b"}") == ["payload range"]


def test_an_integer_is_no_float_and_no_boolean() -> None:
    for value in (3.0, True, "3"):
        assert faults(create, {"title": "a", "max_attempts": value}) == ["max_attempts type"]


def test_a_claim_wish_is_folded_to_what_it_means() -> None:
    wish = BodyDecoder(ClaimNextRequest)(
        b'{"capabilities":["a"],"required_capabilities":["b "],"wait":true,"priority_min":"HIGH"}'
    )
    assert (wish.capabilities, wish.wait_seconds, wish.least_weight) == (["a", "b"], 30, 30)
    assert faults(BodyDecoder(ClaimNextRequest), {"lease_seconds": 3}) == ["lease_seconds range"]
    assert faults(BodyDecoder(HeartbeatRequest), {"lease_seconds": 4}) == ["lease_seconds range"]


def test_bulk_requests_are_counted_and_may_not_repeat_a_run() -> None:
    read = BodyDecoder(BulkHeartbeatRequest)
    twice = {"items": [{"run_id": "a"}, {"run_id": "a"}]}
    assert refused(read, twice).code == "duplicate_item"
    many = {"items": [{"run_id": str(n)} for n in range(101)]}
    assert refused(read, many).evidence == {"limit": 100, "count": 101}


def test_an_error_text_is_cut_and_reserved_kinds_are_refused() -> None:
    read = BodyDecoder(LeaseFailRequest)
    error = read(msgspec.json.encode({"error": "é" * 10_000})).error
    assert error.endswith("é…[cut]")
    assert len(error.removesuffix("…[cut]").encode()) == 16 * 1024
    assert faults(read, {"error": "x", "failure_kind": "deadline_exceeded"}) == [
        "failure_kind reserved"
    ]


def test_a_query_reads_lists_flags_and_folded_enums() -> None:
    read = QueryDecoder(TaskListQuery)
    query = read(b"status=READY,%20blocked&limit=10&include_drafts=1&workspace=x&tag=")
    assert (query.status, query.limit, query.include_drafts) == (["ready", "blocked"], 10, True)
    assert query.tag is None


@pytest.mark.parametrize(
    ("raw", "parameter"),
    [(b"zip=1", "zip"), (b"limit=0", "limit"), (b"limit=501", "limit"), (b"limit=x", "limit"),
     (b"status=odd", "status"), (b"limit=1&limit=2", "limit"), (b"query=%00", "query")],
)  # fmt: skip
def test_a_wrong_parameter_is_named(raw: bytes, parameter: str) -> None:
    problem = refused(QueryDecoder(TaskListQuery), raw)
    assert (problem.code, problem.evidence) == ("invalid_query", {"parameter": parameter})
