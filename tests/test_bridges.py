"""Bridges: made, changed, their secrets, and where they may not lead."""

import base64
from collections.abc import Callable
from typing import Any

import pytest

from tests.factories import Workspace, refused
from tests.receiver import attempts, bridge, receiving, subscribe
from tests.world import World

SOMEWHERE = "https://receiver.invalid/hook"


def test_a_signing_secret_is_shown_once(workspace: Workspace) -> None:
    """P12: not in a repeat, not in a list, and encrypted in the database."""
    operator, body = workspace.operator, {"name": "hook", "url": SOMEWHERE}
    made = operator.post("/api/bridges", "once", **body).bridge
    assert len(base64.b64decode(made.signing_secret.removeprefix("whsec_"))) == 32
    again = operator.post("/api/bridges", "once", **body).bridge
    assert (again.id, again.signing_secret) == (made.id, None)
    assert operator.replayed
    for path in ("/api/bridges", f"/api/bridges/{made.id}"):
        operator.get(path)
        assert "secret" not in operator.last.text
    kept = workspace.world.db.execute(
        "select b::text from bridge b where bridge_id = %s", [made.id]
    )
    assert made.signing_secret not in str(kept.fetchall())
    assert made.signing_secret not in str(workspace.snapshot()["event"])


def test_a_rotated_secret_signs_beside_its_successor_for_a_day(
    world: World, workspace: Workspace
) -> None:
    with receiving() as receiver:
        to = bridge(workspace, receiver.url)
        path = f"/api/bridges/{to.id}"
        new = workspace.operator.patch(path, rotate_secret=True).bridge.signing_secret
        assert new != to.signing_secret
        subscribe(workspace, workspace.task().id, to, event_types=["task.created"])
        world.deliver()
        [got] = receiver.got
        assert got.signed_by(new)
        assert got.signed_by(to.signing_secret)
        world.advance(24 * 3600)
        subscribe(workspace, workspace.task().id, to, event_types=["task.created"])
        world.deliver()
        assert receiver.got[1].signed_by(new)
        assert not receiver.got[1].signed_by(to.signing_secret)


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("http://[fe80::1]/", "address"), ("https://10.0.0.1/", "address"),
        ("https://169.254.169.254/latest", "address"), ("https://[::ffff:10.0.0.1]/", "address"),
        ("https://2130706434.invalid@10.0.0.1/", "user_info"), ("https://0xa000001/", "address"),
        ("ftp://example.com/", "scheme"), ("https://example.com/#x", "fragment"),
        ("https://exa mple.com/", "characters"), ("https://example.com\\@10.0.0.1/", "characters"),
        ("https:///x", "host"), ("https://example.com:99999/", "form"),
    ],
)  # fmt: skip
def test_a_bridge_leads_into_no_network_of_the_servers(
    workspace: Workspace, url: str, rule: str
) -> None:
    with refused(422, "bridge_url_refused", rule=rule):
        bridge(workspace, url)
    to = bridge(workspace, SOMEWHERE)
    with refused(422, "bridge_url_refused", rule=rule):
        workspace.operator.patch(f"/api/bridges/{to.id}", url=url)


def test_changes_are_versions_and_events(workspace: Workspace) -> None:
    operator, to = workspace.operator, bridge(workspace, SOMEWHERE)
    bridge(workspace, SOMEWHERE, "other")
    path = f"/api/bridges/{to.id}"
    told = operator.patch(path, name="new", enabled=False, version=1).bridge
    assert (told.name, told.enabled, told.version) == ("new", False, 2)
    assert operator.last.headers["ETag"] == '"2"'
    with workspace.unchanged():
        assert operator.patch(path, name="new").bridge.version == 2
    with refused(412, "version_mismatch", version=2):
        operator.patch(path, name="x", version=1)
    with refused(409, "bridge_exists", name="other"):
        operator.patch(path, name="other")
    with refused(409, "bridge_exists", name="new"):
        bridge(workspace, SOMEWHERE, "new")
    assert workspace.told()[-3:] == ["bridge.created", "bridge.created", "bridge.updated"]
    assert workspace.events()[-1].payload["changed_fields"] == ["enabled", "name"]


def test_a_bridge_goes_with_its_subscriptions_and_leaves_its_attempts(
    world: World, workspace: Workspace
) -> None:
    task = workspace.task()
    with receiving() as receiver:
        to = bridge(workspace, receiver.url)
        subscribe(workspace, task.id, to, event_types=["task.created"], subscription_id="mine")
        world.deliver()
    workspace.operator.delete(f"/api/bridges/{to.id}")
    path = f"/api/tasks/{task.id}/notifications/bridges"
    assert workspace.operator.get(path).subscriptions == []
    assert workspace.told()[-2:] == ["task.subscription_deleted", "bridge.deleted"]
    fields = {"bridge_instance_id": to.id, "changed_fields": None, "reason": None}
    about = workspace.events(event_type="bridge.created,bridge.deleted")
    assert [event.payload for event in about] == [fields, fields]
    with refused(404, "bridge_not_found", id=to.id):
        attempts(workspace, to)
    assert [row["status"] for row in workspace.snapshot()["delivery"]] == ["delivered"]


def test_only_operators_deal_with_bridges(workspace: Workspace) -> None:
    agent = workspace.client("agent", X_Agent_Name="a")
    for client in (workspace.client("viewer"), agent):
        code = "forbidden_operator_action" if client is agent else "forbidden"
        with refused(403, code):
            client.get("/api/bridges")
        with refused(403, code):
            client.post("/api/tasks/t/notifications/bridges")


def test_a_bridge_is_known_in_its_workspace_only(world: World, workspace: Workspace) -> None:
    """P12: elsewhere it is as unknown as one that never was."""
    there = world.workspace()
    to, operator = bridge(there, SOMEWHERE), workspace.operator
    task = workspace.task()
    assert operator.get("/api/bridges").bridges == []
    calls: tuple[Callable[[], Any], ...] = (
        lambda: operator.get(f"/api/bridges/{to.id}"),
        lambda: operator.get(f"/api/bridges/{to.id}/deliveries"),
        lambda: operator.patch(f"/api/bridges/{to.id}", name="mine"),
        lambda: operator.delete(f"/api/bridges/{to.id}"),
        lambda: subscribe(workspace, task.id, to),
    )
    for call in calls:
        with refused(404, "bridge_not_found", id=to.id):
            call()
