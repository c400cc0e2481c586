"""A server with its database, workspaces in it, and the nouns that tests are about."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from secrets import token_hex
from typing import Any

import psycopg
import pytest

from server.contract.base import Diagnostic
from server.contract.leases import Claim
from server.contract.tasks import Task
from server.db import schema
from server.db.pool import Database, open_pool
from server.loops import expiry, promotion
from tests import books
from tests.client import Client, RefusedError
from tests.serving import ADMIN_KEY, Server

SWEPT_NOW = """
insert into beat values ('sweep', clock_timestamp())
on conflict (name) do update set at = excluded.at
"""
PASS_ROWS = 100_000


class World:
    """One server without loops of its own: time passes, and loops run, when a test says so."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.admin = Client(server.url, ADMIN_KEY)
        self.db: books.Connection = psycopg.connect(server.conninfo, autocommit=True)
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self._pool = self._runner.run(
            self._stack.enter_async_context(open_pool(server.conninfo, 2, 5, 60, prepared=True))
        )

    def close(self) -> None:
        """Ends the connections; the server goes on."""
        self.admin.close()
        self.db.close()
        self._runner.run(self._stack.aclose())
        self._runner.close()

    def workspace(self, **settings: Any) -> "Workspace":
        """A new workspace, whose tests meet no others."""
        return Workspace(self, settings)

    def advance(self, seconds: float) -> None:
        """Moves the database's clock forward; it never goes back."""
        schema.move_clock(self.server.conninfo, seconds)

    def sweep(self, after_outage: bool = False) -> int:
        """One pass of the sweep; how many leases it ended."""
        if not after_outage:
            self.db.execute(SWEPT_NOW)
        return self.run(lambda db: expiry.run_once(db, PASS_ROWS, self._changed))

    def promote(self) -> int:
        """One pass of the promotion of due runs; how many came into the queue."""
        return self.run(lambda db: promotion.run_once(db, PASS_ROWS, self._changed))

    def run(self, service: Callable[[Database], Any]) -> Any:
        """What a service of the server does on this database."""
        return self._runner.run(service(self._pool))

    def until_waiting(self, count: int = 1) -> None:
        """Returns when so many other calls are under way at the server."""
        name = "worklease_http_requests_in_flight "
        while f"{name}{count + 1}.0" not in self.admin.get("/metrics"):
            pass

    def _changed(self, workspace_id: str, offers: int) -> None:
        # As another server's hub tells it.
        self.db.execute("select pg_notify('worklease', %s)", [f"tests {workspace_id} {offers}"])


class Workspace:
    """A tenant of its own, with a client for each role."""

    def __init__(self, world: World, settings: dict[str, Any]) -> None:
        self.world, self.name = world, f"w-{token_hex(8)}"
        made = world.admin.post("/api/workspaces", name=self.name, settings=settings)
        self.id: str = made.workspace.id
        self._keys: dict[str, str] = {}
        self._clients: list[Client] = []
        self.operator = self.client("operator")

    def close(self) -> None:
        """Ends the connections of its clients."""
        for client in self._clients:
            client.close()

    def key(self, role: str, **fields: Any) -> str:
        """The text of a key of this role, made when it is first needed."""
        if role not in self._keys or fields:
            if role == "agent":
                fields.setdefault("agent_name", "*")
            made = self.world.admin.post(
                "/api/keys", name=token_hex(8), role=role, workspace=self.id, **fields
            )
            self._keys[role] = made.key.secret
        return self._keys[role]

    def client(self, role: str, **headers: str) -> Client:
        """A caller with a key of this role."""
        client = Client(self.world.server.url, self.key(role), **headers)
        self._clients.append(client)
        return client

    def agent(self, name: str = "worker", session: str | None = None) -> "Agent":
        """An agent's process."""
        session = session or f"{name}-{token_hex(4)}"
        headers = {"X_Agent_Name": name, "X_Session_ID": session}
        agent = Agent(self.world.server.url, self.key("agent"), **headers)
        self._clients.append(agent)
        return agent

    def task(self, title: str = "a task", /, **fields: Any) -> Task:
        """A task that queues its run as soon as it may."""
        body = {"title": title, "auto_enqueue_on_ready": True, **fields}
        task: Task = self.operator.post("/api/tasks", **body).task
        return task

    def get(self, task_id: str) -> Task:
        """A task as it is now."""
        task: Task = self.operator.get(f"/api/tasks/{task_id}").task.task
        return task

    def run(self, run_id: str) -> Any:
        """A run as it is now."""
        return self.operator.get(f"/api/task-runs/{run_id}").run.run

    def events(self, **query: Any) -> list[Any]:
        """The log, whole or filtered."""
        events: list[Any] = self.operator.get("/api/events", limit=500, **query).events
        return events

    def told(self, **query: Any) -> list[str]:
        """The types of events in the log, in order."""
        return [event.event_type for event in self.events(**query)]

    def snapshot(self) -> dict[str, list[Any]]:
        """Every row that belongs to it."""
        return books.snapshot(self.world.db, self.id)

    def faults(self) -> dict[str, list[Any]]:
        """The rules that its rows break."""
        return books.faults(self.world.db, self.id)

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Fails if anything changes meanwhile."""
        before = self.snapshot()
        yield
        assert self.snapshot() == before


class Agent(Client):
    """A client that is an agent's session."""

    @property
    def session(self) -> str:
        return self.headers["X_Session_ID"]

    def claims(self, key: str | None = None, /, **wish: Any) -> list["Held"]:
        """What a claim gets; nothing is an empty list."""
        told = self.post("/api/agent/tasks/claim-next", key, **wish)
        if told is None:
            return []
        claims = [told.claim] if wish.get("max_runs", 1) == 1 else told.claims
        return [Held(self, claim) for claim in claims]

    def claim(self, key: str | None = None, /, **wish: Any) -> "Held":
        """One claim, which must find something."""
        [held] = self.claims(key, **wish)
        return held

    def leases(self) -> list[str]:
        """The runs that this session holds."""
        return [lease.run_id for lease in self.get("/api/agent/leases").leases]


class Held:
    """A claimed run in its agent's hands; each call shows the token unless told otherwise."""

    def __init__(self, agent: Agent, claim: Claim) -> None:
        assert isinstance(claim.lease.claim_token, str)
        assert claim.lease.fence is not None
        self.agent, self.claim = agent, claim
        self.run_id, self.task_id = claim.run.id, claim.task.id
        self.token, self.fence = claim.lease.claim_token, claim.lease.fence

    def heartbeat(self, **body: Any) -> Any:
        return self.call("heartbeat", **body)

    def complete(self, **body: Any) -> Any:
        return self.call("complete", **body)

    def fail(self, error: str = "it broke", **body: Any) -> Any:
        return self.call("fail", error=error, **body)

    def release(self, **body: Any) -> Any:
        return self.call("release", **body)

    def call(self, operation: str, **body: Any) -> Any:
        """Calls as the holder."""
        return self.by(self.agent, operation, **body)

    def by(self, agent: Client, operation: str, **body: Any) -> Any:
        """Calls as somebody else; claim_token None leaves it out."""
        body = {"claim_token": self.token, **body}
        told = {name: value for name, value in body.items() if (name, value) != ("claim_token", None)}
        return agent.post(f"/api/agent/tasks/{self.run_id}/{operation}", **told)


@contextmanager
def refused(status: int, code: str, **evidence: Any) -> Iterator[list[Diagnostic]]:
    """The call inside is refused with this status and code, and at least this evidence."""
    told: list[Diagnostic] = []
    with pytest.raises(RefusedError) as caught:
        yield told
    told.append(caught.value.envelope.diagnostic)
    assert (caught.value.status, caught.value.code) == (status, code), caught.value
    assert caught.value.evidence.items() >= evidence.items(), caught.value.evidence
