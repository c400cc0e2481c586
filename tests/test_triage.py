"""Triage: what an actor did to a task, until something happens to it."""

from typing import Any

import pytest

from tests.factories import Agent, Workspace, refused
from tests.test_inbox import failed, inbox, lanes, triage

ACTIONS = ["read", "archive", "unarchive", "dismiss"]


def flags(state: Any) -> tuple[bool, bool, bool]:
    return state.read, state.archived, state.dismissed


@pytest.mark.parametrize(
    ("actions", "wanted"),
    [
        (["read"], (True, False, False)),
        (["archive"], (True, True, False)),
        (["dismiss"], (True, False, True)),
        (["dismiss", "read"], (True, False, False)),
        (["dismiss", "archive"], (True, True, False)),
        (["archive", "read"], (True, True, False)),
        (["archive", "dismiss"], (True, True, False)),
        (["archive", "unarchive"], (True, False, False)),
        (["archive", "dismiss", "unarchive"], (True, False, False)),
        (["unarchive"], (False, False, False)),
        (["dismiss", "unarchive"], (True, False, True)),
    ],
)
def test_each_action_leaves_what_it_says(
    workspace: Workspace, actions: list[str], wanted: tuple[bool, bool, bool]
) -> None:
    task = workspace.task()
    for action in actions:
        state = triage(workspace, task.id, action)
    assert flags(state) == wanted


def test_triage_notes_the_activity_that_was_seen(workspace: Workspace, agent: Agent) -> None:
    task_id = failed(workspace, agent)
    state = triage(workspace, task_id, "read")
    assert state.last_seen_activity_at == workspace.events(task_id=task_id)[-1].timestamp
    workspace.world.keep_digests()
    again = triage(workspace, task_id, "read")
    assert again.last_seen_activity_at == state.last_seen_activity_at
    assert again.updated_at > state.updated_at


def test_what_was_not_archived_is_not_changed_by_unarchive(workspace: Workspace) -> None:
    task = workspace.task()
    with workspace.unchanged():
        state = triage(workspace, task.id, "unarchive")
    assert (state.updated_at, state.last_seen_activity_at) == (None, None)


def test_triage_is_no_event_and_changes_no_task(workspace: Workspace) -> None:
    task = workspace.task()
    with workspace.unchanged("triage"):
        for action in ACTIONS:
            triage(workspace, task.id, action)


def test_activity_brings_back_what_was_read_or_dismissed(
    workspace: Workspace, agent: Agent
) -> None:
    task_id = failed(workspace, agent)
    for action in ("read", "dismiss"):
        triage(workspace, task_id, action)
        workspace.operator.patch(f"/api/tasks/{task_id}", title=f"again, {action}")
        [group] = inbox(workspace, lane="failed_runs").groups
        assert [flags(item.triage) for item in group.items] == [(False, False, False)]


def test_what_is_dismissed_is_hidden_and_not_counted(workspace: Workspace, agent: Agent) -> None:
    triage(workspace, failed(workspace, agent), "dismiss")
    told = inbox(workspace)
    assert (lanes(told), told.total) == ({}, 0)


def test_what_is_archived_stays_so_whatever_happens(workspace: Workspace, agent: Agent) -> None:
    task_id = failed(workspace, agent)
    triage(workspace, task_id, "archive")
    workspace.operator.patch(f"/api/tasks/{task_id}", title="again")
    told = inbox(workspace)
    assert lanes(told) == {"archived": [(task_id, "latest_run_failed")]}
    assert (told.total, told.unread_total, told.archived_total) == (1, 0, 1)
    assert inbox(workspace, lane="failed_runs").archived_total == 1


def test_progress_is_no_activity(workspace: Workspace, agent: Agent) -> None:
    me = workspace.operator.get("/api/whoami").whoami.actor
    task = workspace.task(owner={"kind": me.kind, "ref": me.ref})
    workspace.operator.patch(f"/api/tasks/{task.id}", clear_owner=True)
    held = agent.claim()
    held.heartbeat()
    workspace.operator.patch(f"/api/tasks/{task.id}", owner={"kind": me.kind, "ref": me.ref})
    triage(workspace, task.id, "read")
    held.heartbeat(progress={"percent": 50})
    [group] = inbox(workspace, lane="my_work").groups
    assert [item.triage.read for item in group.items] == [True]


def test_each_actor_has_an_inbox_of_its_own(workspace: Workspace, agent: Agent) -> None:
    task_id = failed(workspace, agent)
    agent.post(f"/api/tasks/{task_id}/triage/archive")
    assert set(lanes(inbox(workspace))) == {"failed_runs"}
    assert set(lanes(inbox(workspace, agent))) == {"archived"}


@pytest.mark.parametrize("action", ACTIONS)
def test_a_task_that_is_not_there_has_no_triage(workspace: Workspace, action: str) -> None:
    with refused(404, "task_not_found", id="nothing"):
        triage(workspace, "nothing", action)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize(
    ("body", "status", "code"),
    [(b"[]", 400, "malformed_json"), (b"{", 400, "malformed_json"),
     (b'{"until":"noon"}', 422, "unknown_field")],
)  # fmt: skip
def test_triage_takes_nothing_in_its_body(
    workspace: Workspace, action: str, body: bytes, status: int, code: str
) -> None:
    task = workspace.task()
    with workspace.unchanged(), refused(status, code):
        workspace.operator.send("POST", f"/api/tasks/{task.id}/triage/{action}", content=body)


def test_a_viewer_may_look_but_not_triage(workspace: Workspace) -> None:
    viewer, task = workspace.client("viewer"), workspace.task()
    assert viewer.get("/api/observe/tasks/inbox").inbox.total == 0
    with refused(403, "forbidden"):
        viewer.post(f"/api/tasks/{task.id}/triage/read")


def test_triage_goes_with_its_task(workspace: Workspace) -> None:
    task = workspace.task(draft=True)
    triage(workspace, task.id, "archive")
    workspace.operator.delete(f"/api/tasks/{task.id}")
    assert inbox(workspace).archived_total == 0
