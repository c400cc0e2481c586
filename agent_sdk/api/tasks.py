"""Tasks: create, read, change, drive."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Unpack

import msgspec
from msgspec import Struct

from agent_sdk import sse
from agent_sdk.api.gates import Gates
from agent_sdk.api.looks import Looks
from agent_sdk.fields import ChildFields, TaskChanges, TaskFields, TaskFilter
from agent_sdk.transport import PATIENCE_SECONDS, TIMEOUT_SECONDS, new_key, segment
from agent_sdk.types import Dependency, Run, RunPage, Task, TaskDetail, TaskSummary, TimelineItem


class Guard(Struct, frozen=True):
    """A lease under which a call is made: refused, and without effect, once the lease is over."""

    run_id: str
    claim_token: str

    @property
    def headers(self) -> dict[str, str]:
        """The two headers that carry it."""
        return {"X-Run-ID": self.run_id, "X-Claim-Token": self.claim_token}


class TaskPage(Struct, frozen=True):
    """A page of tasks."""

    tasks: list[TaskSummary]
    next_cursor: str | None = None


class DependencyPage(Struct, frozen=True):
    """A page of edges."""

    dependencies: list[Dependency]
    next_cursor: str | None = None


class TimelinePage(Struct, frozen=True):
    """A page of a task's own events, oldest first."""

    timeline: list[TimelineItem]
    next_cursor: str | None = None


class BulkTask(Struct, frozen=True):
    """One task that a bulk request made."""

    ref: str
    id: str
    status: str
    run_id: str | None = None


class BulkTasks(Struct, frozen=True):
    """What a bulk request made, in its order."""

    ids: dict[str, str]
    tasks: list[BulkTask]
    count: int


class StreamEvent(Struct, frozen=True):
    """An event of a task's stream, or one of its control frames `ready` and `resync`.

    After `resync` events are missing (`reason` says why): read the state again.
    """

    type: str
    sequence: int
    timeline: TimelineItem | None = None
    reason: str | None = None
    oldest_sequence: int | None = None


class _Task(Struct, frozen=True):
    task: Task


class _TaskDetail(Struct, frozen=True):
    task: TaskDetail


class _Run(Struct, frozen=True):
    run: Run


class Tasks(Gates, Looks):
    """`client.tasks`."""

    def list(
        self, *, limit: int = 50, cursor: str | None = None, **filters: Unpack[TaskFilter]
    ) -> TaskPage:
        """A page of tasks, the most recently active first unless `sort` says otherwise."""
        query = {**filters, "limit": limit, "cursor": cursor}
        return self._transport.call(TaskPage, "GET", "/api/tasks", query=query)

    def create(
        self, *, key: str | None = None, guard: Guard | None = None, **fields: Unpack[TaskFields]
    ) -> Task:
        """Make one task; unlike the bare route it is queued by itself when it is ready."""
        return self._create("/api/tasks", fields, key, guard)

    def create_child(
        self,
        parent_id: str,
        /,
        *,
        key: str | None = None,
        guard: Guard | None = None,
        **fields: Unpack[ChildFields],
    ) -> Task:
        """Make a task below another one; queued by itself when it is ready."""
        return self._create(f"/api/tasks/{segment(parent_id)}/children", fields, key, guard)

    def create_bulk(
        self,
        tasks: Sequence[Mapping[str, Any]],
        *,
        defaults: Mapping[str, Any] | None = None,
        key: str | None = None,
        guard: Guard | None = None,
    ) -> BulkTasks:
        """Make up to 10,000 tasks, all or none; `client.submit` with a Graph is the easy way."""
        return self._transport.call(
            BulkTasks,
            "POST",
            "/api/tasks/bulk",
            body={"tasks": tasks, "defaults": defaults or {}},
            key=key or new_key(),
            headers=guard and guard.headers,
        )

    def get(
        self,
        task_id: str,
        *,
        patience: float = PATIENCE_SECONDS,
        timeout: float = TIMEOUT_SECONDS,
    ) -> TaskDetail:
        """A task with its newest children, edges, runs and events."""
        path = f"/api/tasks/{segment(task_id)}"
        return self._transport.call(
            _TaskDetail, "GET", path, patience=patience, timeout=timeout
        ).task

    def update(
        self, task_id: str, /, *, version: int | None = None, **changes: Unpack[TaskChanges]
    ) -> Task:
        """Change a task; with `version`, only if nobody changed it since (412 version_mismatch)."""
        body: dict[str, Any] = {**changes}
        if version is not None:
            body["version"] = version
        path = f"/api/tasks/{segment(task_id)}"
        return self._transport.call(_Task, "PATCH", path, body=body).task

    def delete(self, task_id: str) -> None:
        """Delete a task without children and without an open run."""
        self._transport.send("DELETE", f"/api/tasks/{segment(task_id)}")

    def cancel(self, task_id: str, *, reason: str | None = None, metadata: Any = None) -> Task:
        """Cancel a task and everything below it."""
        return self._act(task_id, "cancel", {"reason": reason, "metadata": metadata})

    def start(
        self,
        task_id: str,
        *,
        network_channel: str | None = None,
        metadata: Any = None,
        key: str | None = None,
    ) -> Run | None:
        """Queue a run of a task that is not blocked."""
        more = {"network_channel": network_channel, "metadata": metadata}
        return self._run_of(task_id, "start", more, key)

    def enqueue_run(
        self,
        task_id: str,
        *,
        network_channel: str | None = None,
        metadata: Any = None,
        key: str | None = None,
    ) -> Run:
        """Queue a run, also of a blocked task: then it waits."""
        path = f"/api/tasks/{segment(task_id)}/runs"
        body = {"network_channel": network_channel, "metadata": metadata}
        return self._transport.call(_Run, "POST", path, body=body, key=key or new_key()).run

    def list_runs(
        self,
        task_id: str,
        *,
        status: str | None = None,
        session_id: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> RunPage:
        """The runs of a task, newest first."""
        path = f"/api/tasks/{segment(task_id)}/runs"
        query = {"status": status, "session_id": session_id, "limit": limit, "cursor": cursor}
        return self._transport.call(RunPage, "GET", path, query=query)

    def list_dependencies(
        self,
        task_id: str,
        *,
        include_result: bool = False,
        status: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> DependencyPage:
        """What a task waits for, oldest edge first, on demand with the results."""
        path = f"/api/tasks/{segment(task_id)}/dependencies"
        query = {
            "include_result": include_result,
            "status": status,
            "limit": limit,
            "cursor": cursor,
        }
        return self._transport.call(DependencyPage, "GET", path, query=query)

    def each_dependency(self, task_id: str, *, include_result: bool) -> Iterator[Dependency]:
        """All edges of a task, page by page."""
        cursor: str | None = None
        while True:
            page = self.list_dependencies(
                task_id, include_result=include_result, limit=500, cursor=cursor
            )
            yield from page.dependencies
            cursor = page.next_cursor
            if cursor is None:
                return

    def add_dependency(
        self,
        task_id: str,
        depends_on_task_id: str,
        *,
        guard: Guard | None = None,
        patience: float = PATIENCE_SECONDS,
    ) -> TaskDetail:
        """Make a task wait for another one."""
        path = f"/api/tasks/{segment(task_id)}/dependencies"
        body = {"depends_on_task_id": depends_on_task_id}
        headers = guard and guard.headers
        return self._transport.call(
            _TaskDetail, "POST", path, body=body, headers=headers, patience=patience
        ).task

    def remove_dependency(self, task_id: str, depends_on_task_id: str) -> TaskDetail:
        """Let a task wait no more for another one."""
        path = f"/api/tasks/{segment(task_id)}/dependencies/{segment(depends_on_task_id)}"
        return self._transport.call(_TaskDetail, "DELETE", path).task

    def timeline(
        self,
        task_id: str,
        *,
        after_sequence: int = 0,
        limit: int = 50,
        cursor: str | None = None,
    ) -> TimelinePage:
        """A task's own events, oldest first."""
        path = f"/api/tasks/{segment(task_id)}/timeline"
        query = {"after_sequence": after_sequence, "limit": limit, "cursor": cursor}
        return self._transport.call(TimelinePage, "GET", path, query=query)

    def stream(
        self, task_id: str, *, after_sequence: int | None = None, until: float | None = None
    ) -> Iterator[StreamEvent]:
        """The events of a task and all below it as they happen, until monotonic time `until`.

        Starts at the first event, or after `after_sequence`; goes on over broken connections.
        """
        path = f"/api/tasks/{segment(task_id)}/stream"
        for frame in sse.follow(self._transport, path, after=after_sequence, until=until):
            data: dict[str, Any] = msgspec.json.decode(frame.data)
            yield msgspec.convert({"type": frame.event, **data}, StreamEvent)

    def _create(self, path: str, fields: ChildFields, key: str | None, guard: Guard | None) -> Task:
        body = {"auto_enqueue_on_ready": True, **fields}
        headers = guard and guard.headers
        return self._transport.call(
            _Task, "POST", path, body=body, key=key or new_key(), headers=headers
        ).task
