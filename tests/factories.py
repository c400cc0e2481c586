"""Workspaces, and the nouns that tests are about."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from server.contract.base import Diagnostic
from server.contract.leases import Claim
from server.contract.tasks import Task
from tests import books, recount
from tests.client import Client, RefusedError
from tests.serving import until

if TYPE_CHECKING:
    from tests.world import World

LIVE_LEASES = "select count(*) from lease where workspace_id = %s and ended_at is null"
LOCK = "select from workspace_lock where workspace_id = %s and name = %s for update"
HOLD = "select from task where workspace_id = %s and task_id = %s for update"


class Workspace:
    """A tenant of its own, with a client for each role."""

    def __init__(self, world: "World", settings: dict[str, Any]) -> None:
        self.world, self.name = world, f"w-{token_hex(8)}"
        made = world.admin.post("/api/workspaces", name=self.name, settings=settings)
        self.id: str = made.workspace.id
        self._keys: dict[str, str] = {}
        self.operator = self.client("operator")
        self.key("agent")

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
        return Client(self.world.http, self.key(role), **headers)

    def agent(self, name: str = "worker", session: str | None = None) -> "Agent":
        """An agent's process."""
        session = session or f"{name}-{token_hex(4)}"
        headers = {"X_Agent_Name": name, "X_Session_ID": session}
        return Agent(self.world.http, self.key("agent"), **headers)

    def task(self, title: str = "a task", /, **fields: Any) -> Task:
        """A task that queues its run as soon as it may."""
        body = {"title": title, "auto_enqueue_on_ready": True, **fields}
        task: Task = self.operator.post("/api/tasks", **body).task
        return task

    def graph(self, edges: dict[str, list[str]], **fields: Any) -> dict[str, str]:
        """Tasks by ref, each with the refs it waits for; their ids."""
        items = [{"ref": ref, "title": ref, "depends_on_refs": on} for ref, on in edges.items()]
        told = self.operator.post("/api/tasks/bulk", tasks=items, defaults=fields)
        ids: dict[str, str] = told.ids
        return ids

    def statuses(self, ids: dict[str, str]) -> dict[str, str]:
        """The status of each task, by the same names."""
        return {name: self.get(task_id).status for name, task_id in ids.items()}

    def depend(self, task_id: str, on: str) -> Task:
        """Makes a task wait for another."""
        body = {"depends_on_task_id": on}
        detail = self.operator.post(f"/api/tasks/{task_id}/dependencies", **body).task
        task: Task = detail.task
        return task

    def cancel(self, task_id: str, **why: Any) -> Task:
        """Cancels a task with all below it."""
        task: Task = self.operator.post(f"/api/tasks/{task_id}/cancel", **why).task
        return task

    def get(self, task_id: str) -> Task:
        """A task as it is now."""
        task: Task = self.operator.get(f"/api/tasks/{task_id}").task.task
        return task

    def sweep(self) -> int:
        """One pass of the sweep; how many leases of this workspace it ended."""
        before = self._live_leases()
        self.world.sweep()
        return before - self._live_leases()

    def until_swept(self) -> None:
        """Returns when no lease of this workspace is left; some server must sweep."""
        until(lambda: not self._live_leases())

    def _live_leases(self) -> int:
        [[count]] = self.world.db.execute(LIVE_LEASES, [self.id])
        return int(count)

    def run(self, run_id: str) -> Any:
        """A run as it is now."""
        return self.operator.get(f"/api/task-runs/{run_id}").run.run

    def events(self, **query: Any) -> list[Any]:
        """The log, whole or filtered."""
        events: list[Any] = self.operator.get("/api/events", limit=500, **query).events
        return events

    def log(self) -> list[Any]:
        """The whole log, however long."""
        events: list[Any] = []
        while more := self.events(after_sequence=events[-1].sequence if events else 0):
            events += more
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

    def miscounts(self) -> dict[str, list[Any]]:
        """What its dashboard and inbox count wrongly, however far behind their digests are."""
        return books.faults(self.world.db, self.id, recount.RULES)

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Holds one of its locks, so that who needs it has to wait."""
        with psycopg.connect(self.world.server.conninfo) as connection:
            connection.execute(LOCK, [self.id, name])
            yield

    def at_two_servers(self, statement: str, items: list[str]) -> tuple[int, int]:
        """What a loop's statement answers at a server that must wait, and meanwhile at another."""

        def deal() -> int:
            with psycopg.connect(self.world.server.conninfo) as connection:
                [[done]] = connection.execute(statement.encode(), [self.id, items])
                return int(done)

        with ThreadPoolExecutor(1) as pool:
            with self.locked("log"):
                first = pool.submit(deal)
                self.world.until_blocked()
                second = deal()
            return first.result(), second

    def made_at_once(self, count: int, **fields: Any) -> list[str]:
        """Makes tasks that wait for the log together; their statuses, or why there is none."""

        def make(_: int) -> str:
            try:
                return self.task(**fields).status
            except RefusedError as refusal:
                return refusal.code

        with ThreadPoolExecutor(count) as pool:
            with self.locked("log"):
                calls = [pool.submit(make, n) for n in range(count)]
                self.world.until_blocked(count)
            return sorted(call.result() for call in calls)

    @contextmanager
    def holding(self, task_id: str) -> Iterator[None]:
        """Holds the row of a task, as a transition that takes long would."""
        with psycopg.connect(self.world.server.conninfo) as connection:
            connection.execute(HOLD, [self.id, task_id])
            yield

    @contextmanager
    def unchanged(self, *but: str) -> Iterator[None]:
        """Fails if anything changes meanwhile, but in the named tables."""
        before = self.snapshot()
        yield
        assert self.snapshot() | dict.fromkeys(but) == before | dict.fromkeys(but)


class Agent(Client):
    """A client that is an agent's session."""

    @property
    def session(self) -> str:
        return self.headers["X-Session-ID"]

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

    def work(self, task_id: str, end: str = "complete", **body: Any) -> "Held":
        """Claims the run of this task and ends its lease."""
        run = self.get(f"/api/tasks/{task_id}/runs", limit=1).runs[0]
        held = self.claim(channel=f"coord-{run.id}")
        held.call(end, **({"error": "no", **body} if end == "fail" else body))
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
        told = {
            name: value for name, value in body.items() if (name, value) != ("claim_token", None)
        }
        return agent.post(f"/api/agent/tasks/{self.run_id}/{operation}", **told)


@contextmanager
def refused(wanted: int, code: str, /, **evidence: Any) -> Iterator[list[Diagnostic]]:
    """The call inside is refused with this status and code, and at least this evidence."""
    told: list[Diagnostic] = []
    with pytest.raises(RefusedError) as caught:
        yield told
    told.append(caught.value.envelope.diagnostic)
    assert (caught.value.status, caught.value.code) == (wanted, code), caught.value
    assert caught.value.evidence.items() >= evidence.items(), caught.value.evidence


def seconds(later: str | None, earlier: str | None) -> float:
    """The time between two timestamps of the wire."""
    assert later is not None
    assert earlier is not None
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()
