"""P12: keys, tokens and the server's secret are told to their owners, and kept nowhere."""

from typing import Any

from psycopg import sql

from tests.client import Client, RefusedError
from tests.factories import Agent
from tests.serving import ADMIN_KEY, SECRET
from tests.world import Servers, World

TABLES = (
    "select relname from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace"
)


def stored(world: World) -> str:
    """Every row of every table."""
    rows = []
    for [name] in world.db.execute(TABLES).fetchall():
        every = sql.SQL("select x::text from {} x").format(sql.Identifier(name))
        rows += [row for [row] in world.db.execute(every)]
    return "\n".join(rows)


def _secret(key: str) -> str:
    """The part of a key that proves it; the rest is its public id."""
    return key.split("_", 3)[3]


def _told(client: Client, method: str, path: str, **how: Any) -> str:
    """The text of an answer that must be a refusal."""
    try:
        client.send(method, path, **how)
    except RefusedError as refused:
        return refused.answer.text
    raise AssertionError("the call was not refused")


def test_no_secret_is_stored_logged_or_part_of_an_error(alone: Servers) -> None:
    """P12: neither where calls go well nor where they are refused."""
    world = World(alone.start(WORKLEASE_LOG_LEVEL="debug").server)
    workspace = world.workspace()
    workspace.task()
    workspace.task()
    held, other = workspace.agent().claims(max_runs=2)
    secrets = [SECRET, held.token, other.token, *map(_secret, (ADMIN_KEY, workspace.key("agent")))]
    held.complete(result=1)
    path = f"/api/agent/tasks/{held.run_id}/complete"
    refused = [
        _told(held.agent, "POST", path, content=f'{{"claim_token": "{held.token}", "result": 2}}'),
        _told(held.agent, "POST", path, content=f'{{"claim_token": "{held.token}", broken'),
        _told(held.agent, "POST", path, content=f'{{"claim_token": ["{other.token}"]}}'),
        _told(held.agent, "GET", "/api/tasks", params={"api_key": workspace.key("agent")}),
        _told(Agent(world.http, workspace.key("agent") + "x"), "GET", "/api/tasks"),
    ]
    seen = "\n".join([*refused, stored(world), world.server.log.read_text()])
    world.close()
    assert held.run_id in seen
    assert [secret for secret in secrets if secret in seen] == []
