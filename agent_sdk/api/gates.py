"""What keeps a task from being worked on, and lets it: drafts, approvals, pauses."""

from typing import Any

from msgspec import Struct

from agent_sdk.transport import Transport, new_key, segment
from agent_sdk.types import Run, Task


class _Task(Struct, frozen=True):
    task: Task


class _TaskRun(Struct, frozen=True):
    task: Task
    run: Run | None


class Gates:
    """The part of `client.tasks` that opens and closes gates."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def publish(
        self,
        task_id: str,
        *,
        subtree: bool = False,
        network_channel: str | None = None,
        metadata: Any = None,
        key: str | None = None,
    ) -> Run | None:
        """Queue a draft; with `subtree` all drafts below it too, where blocked ones wait.

        The run that is answered, channel and metadata are those of the named task.
        """
        more = {"subtree": subtree, "network_channel": network_channel, "metadata": metadata}
        return self._run_of(task_id, "publish", more, key)

    def approve(
        self,
        task_id: str,
        *,
        network_channel: str | None = None,
        metadata: Any = None,
        key: str | None = None,
    ) -> Run | None:
        """Approve a task; answers its open run, queued now if there was none (operators)."""
        more = {"network_channel": network_channel, "metadata": metadata}
        return self._run_of(task_id, "approve", more, key)

    def reject(self, task_id: str, *, reason: str | None = None) -> Task:
        """Do not approve a task: it stays blocked (operators)."""
        return self._act(task_id, "reject", {"reason": reason})

    def pause(self, task_id: str, reason: str, *, metadata: Any = None) -> Task:
        """Let nobody claim a task or any below it; who holds one goes on (operators)."""
        return self._act(task_id, "pause", {"reason": reason, "metadata": metadata})

    def resume(self, task_id: str, *, reason: str | None = None, metadata: Any = None) -> Task:
        """End the pause of a task; that of a task above it stays (operators)."""
        return self._act(task_id, "resume", {"reason": reason, "metadata": metadata})

    def _act(self, task_id: str, verb: str, body: dict[str, Any]) -> Task:
        path = f"/api/tasks/{segment(task_id)}/{verb}"
        return self._transport.call(_Task, "POST", path, body=body).task

    def _run_of(self, task_id: str, verb: str, body: dict[str, Any], key: str | None) -> Run | None:
        path = f"/api/tasks/{segment(task_id)}/{verb}"
        return self._transport.call(_TaskRun, "POST", path, body=body, key=key or new_key()).run
