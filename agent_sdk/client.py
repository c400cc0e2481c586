"""The client: every route of the server, and the few calls that are more than a route."""

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self, Unpack

import msgspec
from msgspec import Struct

from agent_sdk import config, errors
from agent_sdk.api import Api
from agent_sdk.fields import ClaimFields
from agent_sdk.graph import Graph, as_request
from agent_sdk.heartbeats import Heartbeats
from agent_sdk.lease import Lease
from agent_sdk.transport import PATIENCE_SECONDS, TIMEOUT_SECONDS, Transport
from agent_sdk.types import TERMINAL, Ref, Run, Task, TaskDetail

POLL_SECONDS = 2.0
WAIT_SECONDS = 20
# How long `wait` looks a last time when its time is over.
LAST_LOOK_SECONDS = 1.0
FOR_EVER = float("inf")


class WorkspaceRef(Struct, frozen=True):
    """A workspace in one line."""

    id: str
    name: str


class Whoami(Struct, frozen=True, kw_only=True):
    """Whom the server takes the caller for."""

    role: str
    key_id: str | None = None
    key_name: str | None = None
    agent_name: str | None = None
    session_id: str | None = None
    workspace: WorkspaceRef | None = None
    actor: Ref | None = None
    all_workspaces: bool = False
    expires_at: datetime | None = None
    server_version: str | None = None
    server_time: datetime | None = None


class Readiness(Struct, frozen=True):
    """Whether the server can work, and what its checks say."""

    ready: bool
    degraded: bool = False
    checks: dict[str, dict[str, Any]] = {}


class Version(Struct, frozen=True, kw_only=True):
    """What runs there."""

    name: str
    version: str
    api_version: int
    commit: str | None = None
    schema_version: int | None = None


class StreamTicket(Struct, frozen=True):
    """Opens a stream for a minute, as `?ticket=`, for browsers: they cannot send a key."""

    ticket: str
    expires_at: datetime


class _Whoami(Struct, frozen=True):
    whoami: Whoami


class Client(Api):
    """A caller with a session of its own. Arguments win over WORKLEASE_*; thread-safe.

    Without a key it uses the one that a server on this machine left for local agents.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        agent_name: str | None = None,
        session_id: str | None = None,
        workspace: str | None = None,
    ) -> None:
        self.settings = config.load(
            url=url,
            api_key=api_key,
            agent_name=agent_name,
            session_id=session_id,
            workspace=workspace,
        )
        super().__init__(Transport(self.settings))
        self.heartbeats = Heartbeats(self.leases)

    @property
    def session_id(self) -> str:
        """The session that this client's claims belong to."""
        return self.settings.session_id

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def again(self) -> "Client":
        """Another client of the same caller and session, with connections of its own."""
        return Client(
            self.settings.url,
            api_key=self.settings.api_key,
            agent_name=self.settings.agent_name,
            session_id=self.settings.session_id,
            workspace=self.settings.workspace,
        )

    def close(self) -> None:
        """Close the connections and stop the heartbeats."""
        self.heartbeats.close()
        self.transport.close()

    def claim(self, **fields: Unpack[ClaimFields]) -> Lease | None:
        """Claim one run, or None when there is nothing to do."""
        fields["max_runs"] = 1
        claims = self.leases.claim_next(**fields).claims
        return Lease(self, claims[0], self.heartbeats) if claims else None

    def claims(
        self, *, until_empty: bool = False, **fields: Unpack[ClaimFields]
    ) -> Iterator[Lease]:
        """Claim runs one after the other, waiting for more unless `until_empty`.

        Each is to be used as `with lease:`, which keeps it alive and ends it.
        """
        waits = fields.setdefault("wait_seconds", 0 if until_empty else WAIT_SECONDS)
        fields["max_runs"] = 1
        while True:
            began = time.monotonic()
            try:
                claimed = self.leases.claim_next(patience=FOR_EVER, **fields)
            except errors.Conflict as late:
                # The answer got lost, and what it brought ran out before the repeat: ask anew.
                if late.code != "claim_key_spent":
                    raise
                continue
            for claim in claimed.claims:
                yield Lease(self, claim, self.heartbeats)
            if not claimed.claims and until_empty:
                return
            # An empty answer before the time is the server's wish to be asked later.
            early = not claimed.claims and time.monotonic() - began < max(waits, 1)
            if early and self.transport.pause(claimed.retry_after or 1.0):
                return

    def submit(
        self, graph: Graph | Sequence[Mapping[str, Any]], *, key: str | None = None
    ) -> dict[str, str]:
        """Make all tasks of a graph, or none; answers the ids by ref.

        With a `key` of the caller's a second submit within a day finds the first one's tasks.
        """
        tasks, defaults = as_request(graph)
        return self.tasks.create_bulk(tasks, defaults=defaults, key=key).ids

    def wait(self, task_id: str, *, timeout: float | None = None) -> Task:
        """Wait until a task is completed, failed or canceled, and answer it.

        Its result is whole, and `error` says why it failed. Raises TimeoutError after `timeout`
        seconds.
        """
        until = None if timeout is None else time.monotonic() + timeout
        seen = 0
        while True:
            detail = self._look(task_id, until)
            task = detail.task
            if task.status in TERMINAL:
                return self._whole(task, detail.runs[0]) if detail.runs else task
            if until is not None and time.monotonic() >= until:
                raise TimeoutError(f"task {task_id} is {task.status} after {timeout} seconds")
            seen = self._wait_for_change(task, max(seen, task.latest_event_seq), until)

    def whoami(self) -> Whoami:
        """Whom the server takes this client for."""
        return self.transport.call(_Whoami, "GET", "/api/whoami").whoami

    def stream_ticket(self) -> StreamTicket:
        """A ticket that stands for this caller when a stream is opened."""
        return self.transport.call(StreamTicket, "POST", "/api/auth/stream-ticket")

    def healthz(self) -> bool:
        """Whether the server process serves at all; raises ConnectionFailed if it does not."""
        return self.transport.send("GET", "/healthz", patience=0).status == 200

    def readyz(self) -> Readiness:
        """Whether the server can work now."""
        try:
            body = self.transport.send("GET", "/readyz", patience=0).body
        except errors.Unavailable as unready:
            body = unready.body
        return msgspec.json.decode(body, type=Readiness)

    def version(self) -> Version:
        """What the server is."""
        return self.transport.call(Version, "GET", "/version")

    def _whole(self, task: Task, newest: Run) -> Task:
        result = task.result
        if result is None and task.result_bytes:
            # Details carry only small results; a run's own page has it whole.
            result = self.runs.get(newest.id).run.result
        error = newest.error if task.status == "failed" else None
        return msgspec.structs.replace(task, result=result, error=error)

    def _look(self, task_id: str, until: float | None) -> TaskDetail:
        if until is None:
            return self.tasks.get(task_id)
        left = max(LAST_LOOK_SECONDS, until - time.monotonic())
        try:
            return self.tasks.get(
                task_id, patience=min(PATIENCE_SECONDS, left), timeout=min(TIMEOUT_SECONDS, left)
            )
        except errors.ConnectionFailed as error:
            if time.monotonic() < until:
                raise
            raise TimeoutError(f"task {task_id} cannot be seen: {error}") from error

    def _wait_for_change(self, task: Task, seen: int, until: float | None) -> int:
        """Wait until it may have ended; answers what has been seen of the log."""
        try:
            stream = self.tasks.stream(task.id, after_sequence=seen, until=until)
            for event in stream:
                now = event.timeline.task if event.timeline is not None else None
                ended = now is not None and now.id == task.id and now.status in TERMINAL
                if ended or event.type == "resync":
                    return event.sequence
        except errors.Unavailable:
            # No stream to be had (there may be too many): look now and then.
            left = POLL_SECONDS if until is None else until - time.monotonic()
            self.transport.pause(max(0.0, min(POLL_SECONDS, left)))
        return seen
