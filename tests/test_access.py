"""P12: nothing a key may not see leaves the server, and roles do what they may."""

from collections.abc import Callable
from typing import Any

import pytest

from server.api.routes import ROUTES
from tests.client import Client, RefusedError
from tests.factories import Agent, Workspace, refused
from tests.world import World

# Each route about one object, with the bodies that it wants; {task}, {run}: ids.
ABOUT: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("GET", "/api/tasks/{task}", {}),
    ("PATCH", "/api/tasks/{task}", {"title": "x"}),
    ("DELETE", "/api/tasks/{task}", {}),
    ("POST", "/api/tasks/{task}/children", {"title": "x"}),
    ("POST", "/api/tasks/{task}/publish", {}),
    ("POST", "/api/tasks/{task}/approve", {}),
    ("POST", "/api/tasks/{task}/reject", {}),
    ("POST", "/api/tasks/{task}/pause", {"reason": "x"}),
    ("POST", "/api/tasks/{task}/resume", {}),
    ("POST", "/api/tasks/{task}/start", {}),
    ("POST", "/api/tasks/{task}/runs", {}),
    ("POST", "/api/tasks/{task}/cancel", {}),
    ("GET", "/api/tasks/{task}/dependencies", {}),
    ("POST", "/api/tasks/{task}/dependencies", {"depends_on_task_id": "other"}),
    ("DELETE", "/api/tasks/{task}/dependencies/other", {}),
    ("GET", "/api/tasks/{task}/execution-profile", {}),
    ("PUT", "/api/tasks/{task}/execution-profile", {"worker": {"mode": "inherit"}}),
    ("DELETE", "/api/tasks/{task}/execution-profile", {}),
    ("GET", "/api/tasks/{task}/runs", {}),
    ("GET", "/api/tasks/{task}/timeline", {}),
    ("GET", "/api/tasks/{task}/notifications/bridges", {}),
    ("GET", "/api/tasks/{task}/notifications/bridges/any", {}),
    ("DELETE", "/api/tasks/{task}/notifications/bridges/any", {}),
    (
        "POST",
        "/api/tasks/{task}/notifications/bridges",
        {"bridge_instance_id": "any", "delivery_mode": "reply"},
    ),
    ("GET", "/api/tasks/{task}/stream", {}),
    ("GET", "/tasks/{task}/stream", {}),
    ("GET", "/api/task-runs/{run}", {}),
    ("POST", "/api/task-runs/{run}/claim", {}),
    ("POST", "/api/task-runs/{run}/attach-session", {"session_id": "s"}),
    ("POST", "/api/task-runs/{run}/start", {}),
    ("POST", "/api/task-runs/{run}/complete", {}),
    ("POST", "/api/task-runs/{run}/fail", {"error": "no"}),
    ("POST", "/api/task-runs/{run}/cancel", {}),
    ("POST", "/api/runs/{run}/release", {}),
    ("POST", "/api/runs/{run}/fail", {"reason": "enough"}),
    ("POST", "/api/runs/{run}/retry", {}),
    ("POST", "/api/runs/{run}/recover", {}),
    ("POST", "/api/leases/verify", {"run_id": "{run}", "fence": 1}),
)


def _answer(client: Client, method: str, path: str, body: dict[str, Any]) -> str:
    """The body of a refusal, without the request id and without the id that was asked for."""
    with pytest.raises(RefusedError) as caught:
        client.send(method, path, **({} if method in ("GET", "DELETE") else {"json": body}))
    error = caught.value
    assert error.status == 404
    request_id = error.answer.headers["X-Request-ID"]
    return error.answer.text.replace(request_id, "-").replace(error.evidence["id"], "-")


@pytest.mark.parametrize("row", ABOUT, ids=lambda row: " ".join(row[:2]))
def test_another_workspaces_object_is_as_unknown_as_one_that_never_was(
    world: World, workspace: Workspace, row: tuple[str, str, dict[str, Any]]
) -> None:
    """P12: the same to the byte, but for the request id and the id that was asked for."""
    method, path, body = row
    there = world.workspace()
    task, gone = there.task(), workspace.task(auto_enqueue_on_ready=False)
    run = there.operator.get(f"/api/tasks/{task.id}/runs").runs[0]
    workspace.operator.delete(f"/api/tasks/{gone.id}")
    before = there.snapshot()
    answers = set()
    never = {"task": "never-was", "run": "never-was"}
    for names in (never, {"task": task.id, "run": run.id}, never | {"task": gone.id}):
        told = {k: v.format(**names) if isinstance(v, str) else v for k, v in body.items()}
        answers.add(_answer(workspace.operator, method, path.format(**names), told))
    assert len(answers) == 1
    assert there.snapshot() == before


def test_lists_hold_nothing_of_other_workspaces(world: World, workspace: Workspace) -> None:
    """P12: neither tasks nor events, nor leases of a session with the same name."""
    there = world.workspace()
    task = there.task()
    there.agent("worker", "same-session").claim()
    agent = workspace.agent("worker", "same-session")
    assert agent.leases() == []
    for path in ("/api/tasks", "/api/events"):
        workspace.operator.get(path)
        assert task.id not in workspace.operator.last.text
    assert workspace.operator.get("/api/events", task_id=task.id).events == []
    for by in (workspace.operator, agent):
        with refused(404, "workspace_not_found"):
            by.also(X_Workspace=there.id).get("/api/tasks")


FORBIDDEN: dict[str, str] = {"viewer": "VAOM", "agent": "AOM", "operator": "OM"}
LETTER = {"viewer": "V", "agent": "A", "operator": "O", "admin": "M"}


@pytest.mark.parametrize("role", ["viewer", "agent", "operator"])
def test_a_role_calls_its_own_routes_and_no_others(workspace: Workspace, role: str) -> None:
    """Every route of the table, also with an id that nobody has: the role is looked at first."""
    by = workspace.agent() if role == "agent" else workspace.client(role)
    if role == "operator":
        by = by.also(X_Agent_Name="ann", X_Session_ID="s-1")
    for route in ROUTES:
        if not route.roles or LETTER[role] in route.roles:
            continue
        path = route.path.replace("{", "").replace("}", "")
        operators = route.operator and role == "agent"
        with workspace.unchanged("agent_session"):
            code = "forbidden_operator_action" if operators else "forbidden"
            with refused(403, code, role=role, action=route.action):
                by.send(route.method, path)


def test_without_a_key_nothing_is_told(workspace: Workspace, world: World) -> None:
    for route in ROUTES:
        if route.roles:
            with refused(401, "authentication_required"):
                path = route.path.replace("{", "").replace("}", "")
                Client(world.http, "").send(route.method, path)
    with refused(401, "invalid_credentials"):
        Client(world.http, "wl_key_0_of-nobody").get("/api/tasks")


OWN: dict[str, Callable[[Client, str], Any]] = {
    "start": lambda by, task: by.post(f"/api/tasks/{task}/start"),
    "runs": lambda by, task: by.post(f"/api/tasks/{task}/runs"),
    "depend": lambda by, task: by.post(
        f"/api/tasks/{task}/dependencies", depends_on_task_id="other"
    ),
    "cancel": lambda by, task: by.post(f"/api/tasks/{task}/cancel"),
}


@pytest.mark.parametrize("name", OWN)
def test_an_agent_drives_its_own_tasks_only(workspace: Workspace, name: str) -> None:
    workspace.task(id="other")
    ann, bob = workspace.agent("ann"), workspace.agent("bob")
    task = ann.post("/api/tasks", title="t").task
    assert task.created_by_agent == "ann"
    with workspace.unchanged(), refused(403, "forbidden", role="agent"):
        OWN[name](bob, task.id)
    OWN[name](workspace.agent("ann"), task.id)


def test_an_agent_may_not_do_what_operators_do(workspace: Workspace, agent: Agent) -> None:
    task = agent.post("/api/tasks", title="t").task
    with refused(403, "forbidden_operator_action", action="tasks.update"):
        agent.patch(f"/api/tasks/{task.id}", title="mine")
    with refused(403, "forbidden_operator_action", action="keys.create"):
        agent.post("/api/keys", name="more", role="admin")


def test_a_viewer_reads_whatever_may_be_read(workspace: Workspace) -> None:
    viewer = workspace.client("viewer")
    for route in ROUTES:
        opened = route.media_type == "text/event-stream" and "{" not in route.path
        if route.method == "GET" and "V" in route.roles and not opened:
            path = route.path.replace("{", "").replace("}", "")
            answer = viewer.http.get(path, headers=viewer.sent())
            assert answer.status_code in (200, 404), route.path


def test_a_key_that_was_rotated_ends_with_the_overlap(world: World) -> None:
    own, admin = world.workspace(), world.admin
    old = admin.post("/api/keys", name="old", role="viewer", workspace=own.id).key
    new = admin.post(f"/api/keys/{old.id}/rotate", overlap_seconds=60).key
    world.advance(61)
    with refused(401, "invalid_credentials"):
        Client(world.http, old.secret).get("/api/whoami")
    assert Client(world.http, new.secret).get("/api/whoami").whoami.key_name == "old"
