"""Stream tickets: for a minute they open streams in the place of a key, and nothing else."""

from typing import Any

import pytest

from server.rules.tickets import Ticket, open_ticket, seal_ticket
from tests.client import Client
from tests.factories import Agent, Workspace, refused, seconds
from tests.streams import subscribed
from tests.world import World

TICKET = "/api/auth/stream-ticket"
LOG = "/api/observe/stream"


def _nobody(world: World) -> Client:
    return Client(world.http, "")


def _ticket(client: Client) -> str:
    ticket: str = client.post(TICKET).ticket
    return ticket


def test_a_ticket_opens_streams_as_its_maker_without_a_key(
    world: World, workspace: Workspace
) -> None:
    task = workspace.task()
    ticket = _ticket(workspace.client("viewer"))
    for path in (LOG, f"/api/tasks/{task.id}/stream", f"/tasks/{task.id}/stream"):
        with subscribed(_nobody(world), path, ticket=ticket) as stream:
            stream.until("ready")


def test_a_ticket_of_a_session_opens_its_stream(world: World, workspace: Workspace) -> None:
    agent = workspace.agent()
    with subscribed(_nobody(world), "/api/agent/stream", ticket=_ticket(agent)) as stream:
        frame = stream.next()
    assert frame is not None
    assert frame.data.session_id == agent.session
    operator = _ticket(workspace.operator)
    with (
        refused(401, "identity_required"),
        subscribed(_nobody(world), "/api/agent/stream", ticket=operator),
    ):
        pass


def test_a_ticket_lasts_a_minute(world: World, workspace: Workspace) -> None:
    told = workspace.operator.post(TICKET)
    assert 58 <= seconds(told.expires_at, workspace.events()[-1].timestamp) <= 61
    world.advance(61)
    with refused(401, "invalid_credentials"), subscribed(
        _nobody(world), LOG, ticket=told.ticket
    ):  # fmt: skip
        pass


def test_a_ticket_opens_nothing_but_streams(world: World, workspace: Workspace) -> None:
    ticket = _ticket(workspace.operator)
    with refused(401, "authentication_required"):
        _nobody(world).get("/api/tasks", ticket=ticket)
    with refused(400, "invalid_query", parameter="ticket"):
        workspace.operator.get("/api/tasks", ticket=ticket)
    with refused(401, "invalid_credentials"):
        Client(world.http, ticket).get("/api/tasks")


def test_a_ticket_is_worth_no_more_than_its_key(world: World, workspace: Workspace) -> None:
    key = world.admin.post("/api/keys", name="short", role="viewer", workspace=workspace.id).key
    ticket = _ticket(Client(world.http, str(key.secret)))
    world.admin.delete(f"/api/keys/{key.id}")
    with refused(401, "invalid_credentials"), subscribed(_nobody(world), LOG, ticket=ticket):
        pass


def test_a_ticket_is_of_one_workspace(world: World, workspace: Workspace) -> None:
    """P12."""
    other = world.workspace()
    ticket = _ticket(workspace.operator)
    with refused(404, "workspace_not_found"), subscribed(
        _nobody(world), LOG, ticket=ticket, workspace=other.id
    ):  # fmt: skip
        pass
    admin = world.admin.also(X_Workspace=workspace.id)
    task = workspace.task()
    with subscribed(_nobody(world), f"/api/tasks/{task.id}/stream", ticket=_ticket(admin)):
        pass


@pytest.mark.parametrize("spoil", [lambda t: t[:-2] + "AA", lambda t: "wls_x", lambda t: "é"])
def test_a_spoiled_ticket_is_refused(world: World, workspace: Workspace, spoil: Any) -> None:
    ticket = spoil(_ticket(workspace.operator))
    with refused(401, "invalid_credentials"), subscribed(_nobody(world), LOG, ticket=ticket):
        pass


def test_a_key_in_an_address_is_refused_and_not_logged(
    world: World, workspace: Workspace, agent: Agent
) -> None:
    """P12: neither a key nor a ticket is in the log of the server."""
    ticket = _ticket(workspace.operator)
    for shown in ({"ticket": agent.key}, {"api_key": agent.key}):
        with refused(401, "invalid_credentials"), subscribed(_nobody(world), LOG, **shown):
            pass
    with refused(401, "invalid_credentials"):
        workspace.operator.get("/api/tasks", query=agent.key)
    with subscribed(_nobody(world), LOG, ticket=ticket):
        pass
    log = world.server.log.read_text()
    assert agent.key not in log
    assert ticket not in log


def test_a_ticket_of_another_server_is_none() -> None:
    ticket = Ticket("key_1", "ws_1", "default", None, None, "http", 1.0)
    text = seal_ticket(b"present", ticket)
    assert open_ticket(text, (b"present",)) == ticket
    assert open_ticket(text, (b"new", b"present")) == ticket
    assert open_ticket(text, (b"another",)) is None
