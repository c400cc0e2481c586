"""The SDK's pure parts: endings, errors, settings, graphs, the stream parser."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import agent_sdk
from agent_sdk import config, errors, sse
from agent_sdk.graph import Graph, as_request
from agent_sdk.lease import child_id_of
from agent_sdk.outcome import ERROR_LIMIT_BYTES, NotJson, as_json, clean, ending_of, refused_result
from agent_sdk.transport import BACKOFF_MAX_SECONDS, backoff
from agent_sdk.types import Claim, Task


def _envelope(code: str, **evidence: object) -> bytes:
    return msgspec.json.encode(
        {"error": "text", "diagnostic": {"id": f"{code}.req-1", "code": code, "evidence": evidence}}
    )


def test_the_names_of_the_package_are_sorted_and_all_there() -> None:
    assert agent_sdk.__all__ == sorted(agent_sdk.__all__)
    assert all(hasattr(agent_sdk, name) for name in agent_sdk.__all__)


def test_importing_the_sdk_imports_neither_server_nor_pytest() -> None:
    code = "import agent_sdk, sys; print([m for m in ('server', 'pytest') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, check=True)
    assert done.stdout == b"[]\n"


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("stale_fence", 409, errors.LeaseLost),
        ("foreign_run", 403, errors.LeaseLost),
        ("run_canceled", 409, errors.Cancelled),
        ("task_not_found", 404, errors.NotFound),
        ("open_run_exists", 409, errors.Conflict),
        ("forbidden", 403, errors.Denied),
        ("value_too_large", 413, errors.Invalid),
        ("rate_limited", 429, errors.Unavailable),
        ("internal_error", 500, errors.ApiError),
    ],
)
def test_an_error_is_the_exception_of_its_code(
    code: str, status: int, kind: type[errors.ApiError]
) -> None:
    error = errors.from_answer(status, {"Retry-After": "7"}, _envelope(code, fence=1))
    assert type(error) is kind
    assert (error.code, error.status, error.request_id) == (code, status, "req-1")
    assert (error.evidence, error.retry_after) == ({"fence": 1}, 7)


def test_the_text_of_an_error_says_what_is_missing_and_what_to_do_about_it() -> None:
    error = errors.from_answer(401, {}, _envelope("identity_required", header="X-Agent-Name"))
    assert str(error) == (
        "text (identity_required, header: X-Agent-Name, request req-1)"
        ": set WORKLEASE_AGENT_NAME (or agent_name=...)"
    )
    other = errors.from_answer(409, {}, _envelope("stale_fence", fence=1))
    assert str(other) == "text (stale_fence, fence: 1, request req-1)"


def test_an_answer_of_a_proxy_is_an_error_too() -> None:
    error = errors.from_answer(502, {}, b"<html>bad gateway</html>")
    assert isinstance(error, errors.Unavailable)
    assert error.code == "unexpected_answer"


def test_an_ended_run_means_that_the_lease_is_lost() -> None:
    ended = errors.from_answer(409, {}, _envelope("task_run_already_terminal"))
    loss = errors.as_lost(ended)
    assert loss is not None
    assert loss.code == "task_run_already_terminal"
    assert errors.as_lost(errors.from_answer(422, {}, _envelope("unknown_field"))) is None


def test_outcomes_end_a_run_as_they_say() -> None:
    retry = ending_of(errors.Retry(after=30, error="overloaded"))
    assert (retry.verb, retry.body["retryable"], retry.body["retry_after_seconds"]) == (
        "fail", True, 30,
    )  # fmt: skip
    fail = ending_of(errors.Fail("no such file", kind="bad_input"))
    assert (fail.verb, fail.body["retryable"], fail.body["failure_kind"]) == (
        "fail", False, "bad_input",
    )  # fmt: skip
    release = ending_of(errors.Release("half done", delay=5))
    assert (release.verb, release.body) == ("release", {"note": "half done", "delay_seconds": 5})
    wait = ending_of(errors.WaitFor(["task_a", "task_b"], checkpoint={"step": 1}))
    assert (wait.verb, list(wait.wait_for)) == ("release", ["task_a", "task_b"])
    assert wait.body == {"checkpoint": msgspec.Raw(b'{"step":1}')}


def test_any_other_exception_fails_the_run_and_may_be_retried() -> None:
    try:
        raise LookupError("the page is gone")
    except LookupError as error:
        ending = ending_of(error)
    assert ending.body["retryable"] is True
    assert ending.body["error"].startswith("LookupError: the page is gone\n")
    assert "test_sdk_rules.py" in ending.body["error"]


def test_a_refused_result_fails_the_run_for_good() -> None:
    too_large = errors.from_answer(413, {}, _envelope("value_too_large", field="result"))
    assert isinstance(too_large, errors.Invalid)
    ending = refused_result(too_large)
    assert (ending.body["failure_kind"], ending.body["retryable"]) == ("result_too_large", False)


NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(
    "value", [object(), {1: {2, object()}}, "\ud800", NAN, [{"a": (INFINITE,)}], {"b": -INFINITE}]
)
def test_what_has_no_json_form_is_refused_before_it_is_sent(value: object) -> None:
    with pytest.raises(NotJson):
        as_json(value)


def test_null_is_sent_where_null_was_meant() -> None:
    checkpoint = as_json({"found": None})
    assert bytes(as_json({"checkpoint": checkpoint, "note": None})) == (
        b'{"checkpoint":{"found":null},"note":null}'
    )


def test_a_long_error_keeps_its_first_line_and_its_end() -> None:
    text = clean("head\0" + "é" * ERROR_LIMIT_BYTES + "\ud800tail", ERROR_LIMIT_BYTES)
    assert text.startswith("head")
    assert text.endswith("?tail")
    assert len(text.encode()) <= ERROR_LIMIT_BYTES


def test_the_key_of_the_local_server_comes_with_the_name_local(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("WORKLEASE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WORKLEASE_DATA_DIR", str(tmp_path))
    (tmp_path / "admin.key").write_text("wl_admin")
    with pytest.raises(agent_sdk.ConfigError, match=r"agent\.key"):
        config.load()
    (tmp_path / "agent.key").write_text("wl_agent\n")
    local = config.load()
    assert (local.url, local.api_key, local.agent_name) == (
        "http://127.0.0.1:8000", "wl_agent", "local",
    )  # fmt: skip
    monkeypatch.setenv("WORKLEASE_API_KEY", "wl_own")
    monkeypatch.setenv("WORKLEASE_URL", "https://work.example/")
    own = config.load()
    assert (own.url, own.api_key, own.agent_name) == ("https://work.example", "wl_own", None)
    assert own.session_id != local.session_id
    assert "wl_own" not in repr(own)


def test_a_graph_becomes_one_bulk_request() -> None:
    graph = Graph(tags=["nightly"])
    parse = graph.task("parse", payload={"file": "a.py"})
    graph.task("report", title="The report", after=[parse, "lint"], parent=parse)
    graph.task("lint", depends_on=["task_of_yesterday"])
    items, defaults = as_request(graph)
    assert defaults == {"tags": ["nightly"]}
    assert [item["ref"] for item in items] == ["parse", "report", "lint"]
    assert items[1] == {
        "ref": "report", "title": "The report", "parent_ref": "parse",
        "depends_on_refs": ["parse", "lint"],
    }  # fmt: skip
    with pytest.raises(ValueError, match="parse"):
        graph.task("parse")


def test_tasks_without_a_ref_are_called_by_their_index() -> None:
    items, defaults = as_request([{"title": "a"}, {"title": "b", "ref": "own"}])
    assert ([item["ref"] for item in items], defaults) == (["0", "own"], {})


def test_a_spawned_child_has_the_same_id_in_every_attempt() -> None:
    assert child_id_of("task_1", "a") == child_id_of("task_1", "a")
    names = {child_id_of(task, name) for task in ("task_1", "task_2") for name in ("a", "b")}
    assert len(names) == 4


def test_the_pause_between_repeats_grows_to_a_limit() -> None:
    assert backoff(0) <= 0.1
    assert BACKOFF_MAX_SECONDS / 2 <= backoff(10_000) <= BACKOFF_MAX_SECONDS


def test_a_stream_is_parsed_into_frames_and_signs_of_life() -> None:
    lines = [
        "retry: 3000", "", ": ", "id: 7", "event: task.created", 'data: {"a":', "data: 1}", "",
        "event: ready", 'data: {"sequence": 9}', "", "event: cut off",
    ]  # fmt: skip
    assert list(sse.parse(lines)) == [
        None,
        sse.Frame("task.created", '{"a":\n1}', 7),
        sse.Frame("ready", '{"sequence": 9}', None),
    ]


def test_answers_with_more_fields_than_known_are_read() -> None:
    task = {"id": "task_1", "title": "t", "status": "ready", "invented_later": {"x": 1}}
    assert msgspec.convert(task, Task).status == "ready"
    claim = {
        "task": task,
        "run": {"id": "run_1", "task_id": "task_1", "status": "claimed", "new": 1},
        "lease": {"task_id": "task_1", "run_id": "run_1", "status": "claimed", "fence": 3},
    }
    assert msgspec.convert(claim, Claim).lease.fence == 3


class Wordless(BaseException):
    """An exception whose text cannot be made."""

    def __str__(self) -> str:
        raise ValueError("no words")


@pytest.mark.parametrize(
    "error",
    [
        Wordless(),
        errors.Retry(after=float("nan")),
        errors.Retry(after=float("inf")),
        errors.WaitFor([object()]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_handler_raises_ends_its_run(error: BaseException) -> None:
    ending = ending_of(error)
    assert ending.verb == "fail"
    assert ending.body["error"]


MARKS = "\u2028 \u2029 \x85 \x0b \x0c \x1c \x1d \x1e"


def test_a_line_of_a_stream_ends_where_the_server_ended_it() -> None:
    sent = f"id: 7\r\ndata: {MARKS}é\n\n".encode()
    bytewise = [sent[n : n + 1] for n in range(len(sent))]
    assert list(sse.lines_of(bytewise)) == ["id: 7", f"data: {MARKS}é", ""]
    assert list(sse.parse(sse.lines_of([sent]))) == [sse.Frame("message", f"{MARKS}é", 7)]


class UnshowableError(Exception):
    """An exception of which no traceback can be made."""

    @property
    def __notes__(self) -> list[str]:  # type: ignore[override]  # hostile
        raise ValueError("no notes")


def test_an_exception_that_cannot_be_shown_ends_its_run_too() -> None:
    assert "UnshowableError" in ending_of(UnshowableError()).body["error"]
