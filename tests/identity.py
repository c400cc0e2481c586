"""A server without loops and batchers: identity, keys and workspaces on a database of its own."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from secrets import token_hex
from types import SimpleNamespace
from typing import cast

import httpx2
import msgspec
import pytest

from server.api.context import Context
from server.api.dispatch import Dispatcher
from server.api.identity import Identity
from server.api.route import Route
from server.api.routes import KEYS, OPERATIONS, WORKSPACES
from server.api.services import Services
from server.config import Config
from server.contract.base import Encoded
from server.contract.keys import KeyResponse
from server.contract.operations import WhoamiResponse
from server.db.pool import Database, open_pool
from server.rules.ids import new_id
from server.rules.tokens import new_api_key
from server.store.first_start import first_start
from tests.asgi import client_of

ADMIN = new_api_key(new_id("key", 1))
AGENT = new_api_key(new_id("key", 2))
Client = Callable[..., Awaitable[httpx2.AsyncClient]]


async def attend(ctx: Context) -> Encoded[WhoamiResponse]:
    """Registers the session, as a claim does."""
    await ctx.services.identity.register(ctx.caller, None, ["b", "a"])
    return Encoded(msgspec.json.encode(ctx.caller.session_id))


AGENT_ROUTE = Route("POST", "/api/agent/attend", attend, "agent.attend", "AOM")
OWN_ROUTES = (AGENT_ROUTE, *KEYS, *WORKSPACES, *OPERATIONS)


@pytest.fixture
async def own_db(fresh_database: str) -> AsyncIterator[Database]:
    """A database in which nothing has happened."""
    async with open_pool(fresh_database, 4, 5, 30) as pool:
        yield pool


def parts(db: Database, rate_limit: float = 0) -> Services:
    """What the routes of these tests need of a server."""
    made = SimpleNamespace(
        secrets=(b"s" * 32,),
        config=Config.from_env({}), db=db, identity=Identity(db, rate_limit), draining=False,
        notify_age_seconds=lambda: None,
    )  # fmt: skip
    return cast("Services", made)


@pytest.fixture
async def client_as(own_db: Database) -> AsyncIterator[Client]:
    """Makes clients of one server; the first argument is the key, the others are headers."""
    await first_start(own_db, ADMIN, AGENT)
    app = Dispatcher(OWN_ROUTES, parts(own_db))
    async with AsyncExitStack() as stack:

        async def make(key: str = ADMIN, **headers: str) -> httpx2.AsyncClient:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            signed = {"Authorization": f"Bearer {key}"} if key else {}
            return await stack.enter_async_context(client_of(app, **signed, **named))

        yield make


async def new_key(client_as: Client, role: str, **fields: object) -> str:
    """Makes a key and tells its text."""
    body = {"name": token_hex(8), "role": role, **fields}
    answer = await (await client_as()).post("/api/keys", json=body)
    assert answer.status_code == 201, answer.text
    secret = msgspec.json.decode(answer.content, type=KeyResponse).key.secret
    assert isinstance(secret, str)
    return secret


async def whoami(http: httpx2.AsyncClient, path: str = "/api/whoami") -> WhoamiResponse:
    answer = await http.get(path)
    assert answer.status_code == 200, answer.text
    return msgspec.json.decode(answer.content, type=WhoamiResponse)
