"""The demo: what it takes for a proof, and that it leaves nothing behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent_sdk import Event
from agent_sdk.demo import audit
from agent_sdk.demo.story import Story

AT = datetime(2026, 1, 1, tzinfo=UTC)
Step = tuple[str, str, dict[str, Any]]


def _created(task: str, *depends_on: str) -> Step:
    return "task.created", task, {"title": task, "depends_on": depends_on, "task_status": "ready"}


def _claimed(task: str, fence: int, agent: str) -> Step:
    payload = {"fence": fence, "agent_name": agent, "session_id": agent}
    return "task.run_claimed", task, {**payload, "task_status": "in_progress"}


def _told(task: str, event: str, status: str) -> Step:
    return f"task.run_{event}", task, {"task_status": status}


DONE_A = [_claimed("a", 1, "x"), _told("a", "completed", "completed")]
DONE_B = [_claimed("b", 1, "x"), _told("b", "completed", "completed")]
MADE = [_created("a"), _created("b", "a")]


def _story(steps: list[Step], first: int = 1) -> Story:
    story = Story()
    story.read(
        Event(
            id=f"evt_{n}", event_type=kind, timestamp=AT, sequence=n, task_id=task,
            run_id=f"run_{task}", payload=payload,
        )
        for n, (kind, task, payload) in enumerate(steps, first)
    )  # fmt: skip
    return story


def test_a_log_of_tasks_done_once_and_in_order_is_a_proof() -> None:
    story = _story([*MADE, *DONE_A, *DONE_B])
    assert list(story.faults(expected=2)) == []
    assert (story.over, story.held, story.counts()["completed"]) == (True, {}, 2)


@pytest.mark.parametrize(
    ("steps", "fault"),
    [
        ([*MADE, *DONE_B, *DONE_A], "b was claimed before a was done"),
        ([*MADE, *DONE_A, *DONE_B, _told("b", "completed", "completed")], "completed 2 times"),
        ([*MADE, *DONE_A], "b: ready, completed 0 times"),
        ([*MADE, *DONE_A, *DONE_B, _claimed("b", 1, "y")], "its fences do not rise"),
        ([_created("a"), *DONE_A], "2 tasks were planned, the log has 1"),
    ],
)
def test_a_log_that_breaks_a_promise_is_no_proof(steps: list[Step], fault: str) -> None:
    assert any(fault in found for found in _story(steps).faults(expected=2))


def test_a_log_with_a_gap_is_no_proof() -> None:
    assert "gaps" in next(_story([*MADE, *DONE_A, *DONE_B], first=2).faults(expected=2))


def test_a_run_is_recovered_when_another_agent_completes_it_after_its_lease_expired() -> None:
    lost = [_created("a"), _claimed("a", 1, "x"), _told("a", "lease_expired", "ready")]
    again = [_claimed("a", 2, "y"), _told("a", "completed", "completed")]
    assert not _story(lost).recovered("a")
    assert _story([*lost, *again]).recovered("a")
    assert not _story([_created("a"), *DONE_A]).recovered("a")


def test_the_report_sums_up_every_folder(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/a.py").write_text("import os\n\ndef f():\n    pass  # TODO: more\n")
    (tmp_path / "b.md").write_text("text\n")
    assert audit.source_files(tmp_path) == ["b.md", "lib/a.py"]
    files = [audit.measure(tmp_path, path) for path in ("b.md", "lib/a.py")]
    lib = audit.summed_up("lib", files[1:])
    whole = audit.summed_up(".", [files[0], lib])
    assert (whole.files, whole.functions, whole.todos, whole.imports) == (2, 1, 1, ["os"])
    text = audit.report("tree", [lib, whole])
    assert "The longest function is `f` in `lib/a.py`: 2 lines." in text


def _environments() -> Iterator[bytes]:
    """Those of all processes; of none where there is no /proc."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            yield path.read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_neither_processes_nor_files(
    tmp_path: Path, number: signal.Signals
) -> None:
    command = [sys.executable, "-m", "agent_sdk.demo", "server"]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout
        line = next(line for line in demo.stdout if "agent processes" in line)
        demo.send_signal(number)
        assert demo.stdout.read().endswith("stopped: agents, server and database are gone\n")
    assert demo.returncode == 130
    assert list(tmp_path.iterdir()) == []
    url = line.split(",")[0]
    assert not any(f"WORKLEASE_URL={url}".encode() in found for found in _environments())
