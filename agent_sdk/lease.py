"""A lease in the hands of its holder: the work's input, and what only the holder may do."""

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, Unpack

from msgspec import Struct

from agent_sdk import errors
from agent_sdk.api import Api
from agent_sdk.api.tasks import Guard
from agent_sdk.fields import ClaimFields, SpawnFields, UsageFields
from agent_sdk.graph import Graph, as_request
from agent_sdk.heartbeats import Heartbeats
from agent_sdk.held import HeldWork
from agent_sdk.outcome import Ending, NotJson, as_json, ending_of, refused_result
from agent_sdk.run_hold import RunHold
from agent_sdk.types import BudgetRemaining, Claim, Dependency, Task

log = logging.getLogger("agent_sdk")

# A result is worth waiting for: the server may be away for a restart, the run stays ours.
END_PATIENCE_SECONDS = 300.0


class Previous(Struct, frozen=True):
    """What earlier attempts left: the last checkpoint, the release's note, the run's error."""

    checkpoint: Any = None
    note: str | None = None
    error: str | None = None


class LeaseView(HeldWork[Claim, RunHold]):
    """What a lease shows without asking the server."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} run={self.run.id} task={self.task.id} fence={self.fence}>"

    @property
    def previous(self) -> Previous:
        """What earlier attempts at the task left behind."""
        claim = self.claim
        return Previous(claim.checkpoint, claim.note, claim.previous_error)

    @property
    def paused(self) -> bool:
        """Whether the task was paused at the last heartbeat; the work may go on."""
        return self.hold.paused

    @property
    def budget_remaining(self) -> BudgetRemaining | None:
        """What the task may still spend, as of the last heartbeat."""
        return self.hold.budget_remaining


class Lease(LeaseView):
    """A claimed run. Handlers get it as `ctx`; in the bare form it is a context manager.

    Every call raises LeaseLost (or its kinds Cancelled, BudgetExhausted) once the run is no
    longer the holder's. Safe to use from several threads.
    """

    def __init__(self, api: Api, claim: Claim, heartbeats: Heartbeats) -> None:
        super().__init__(claim, RunHold(api.leases, claim))
        self.result: Any = None
        self._api = api
        self._heartbeats = heartbeats

    def check(self) -> None:
        """Raise if the lease is lost; costs nothing unless its heartbeats are overdue."""
        self.hold.check()

    def heartbeat(self) -> None:
        """Prolong the lease now; within `with lease:` and in handlers it is done by itself."""
        self.hold.heartbeat()

    def checkpoint(self, state: Any) -> None:
        """Store where the work stands; a later attempt finds it in `previous.checkpoint`."""
        self.hold.heartbeat(checkpoint=as_json(state))

    def progress(self, percent: float | None = None, message: str | None = None) -> None:
        """Say how far the work has come, at most once a second."""
        self.hold.report_progress(percent, message)
        self._heartbeats.wake()

    def usage(self, **more: Unpack[UsageFields]) -> None:
        """Add to what this run has used: tokens, cost, tool calls, turns."""
        self.hold.report_usage(more)
        self._heartbeats.wake()

    def inputs(self) -> Iterator[Dependency]:
        """What the task waited for, each with its whole result, oldest edge first."""
        self.hold.raise_loss()
        return self._api.tasks.each_dependency(self.task.id, include_result=True)

    def spawn(self, name: str, **fields: Unpack[SpawnFields]) -> Task:
        """Make a child of the task, once: another attempt that spawns the name finds the child."""
        self.hold.raise_loss()
        child_id = child_id_of(self.task.id, name)
        fields.setdefault("title", name)
        try:
            with self.hold.losing():
                return self._api.tasks.create_child(
                    self.task.id, guard=self._guard, id=child_id, **fields
                )
        except errors.Conflict as conflict:
            if conflict.code != "task_exists":
                raise
        return self._api.tasks.get(child_id).task

    def submit(
        self, graph: Graph | Sequence[Mapping[str, Any]], *, name: str = "graph"
    ) -> dict[str, str]:
        """Submit a graph under the lease, once per name; answers the ids by ref.

        Another attempt, also of another agent, must submit the same graph under the name.
        """
        self.hold.raise_loss()
        items, defaults = as_request(graph)
        graph_id = child_id_of(self.task.id, name)
        ids = {item["ref"]: item.get("id") or child_id_of(graph_id, item["ref"]) for item in items}
        try:
            with self.hold.losing():
                return self._api.tasks.create_bulk(
                    [{**item, "id": ids[item["ref"]]} for item in items],
                    defaults=defaults,
                    key=graph_id,
                    guard=self._guard,
                ).ids
        except errors.Conflict as conflict:
            # The server knows the key by who asks and for a day, the tasks by their ids always.
            made = [ids[item["ref"]] for item in items if "id" not in item]
            if conflict.code != "task_exists" or conflict.evidence.get("id") not in made:
                raise
        return ids

    def complete(
        self, result: Any = None, *, claim_next: ClaimFields | None = None
    ) -> Claim | None:
        """End the run with its result; answers the next claim, where one was asked for.

        A result that cannot be stored fails the run for good, and is raised.
        """
        try:
            body = as_json(result)
        except NotJson as error:
            self.fail(str(error), kind="result_not_json", retryable=False)
            raise
        more = self.hold.last_report()
        try:
            with self.hold.ending():
                answer = self._api.leases.complete(
                    self.run.id,
                    self.hold.token,
                    result=body,
                    claim_next=claim_next,
                    patience=END_PATIENCE_SECONDS,
                    **more,
                )
        except errors.Invalid as refusal:
            if self._can_leave_out(refusal):
                return self.complete(result, claim_next=claim_next)
            self.end(refused_result(refusal))
            raise
        self._heartbeats.remove(self.hold)
        return answer.claim

    def fail(
        self,
        error: str,
        *,
        kind: str = "error",
        retryable: bool = True,
        retry_after: float | None = None,
    ) -> None:
        """End the run with an error; it is tried again while attempts are left."""
        self.end(Ending.failed(error, kind=kind, retryable=retryable, retry_after=retry_after))

    def release(
        self,
        note: str | None = None,
        *,
        delay: float = 0,
        patience: float = END_PATIENCE_SECONDS,
    ) -> None:
        """Give the run back without burning an attempt; the next holder reads the note."""
        self.end(Ending.released(note, delay=delay), patience=patience)

    def end(self, ending: Ending, *, patience: float = END_PATIENCE_SECONDS) -> None:
        """End the run otherwise than by completing it.

        What the server refuses to take as the end becomes a plain failure, and is raised.
        """
        try:
            for task_id in ending.wait_for:
                self._wait_for(task_id, patience)
            self._end(ending, patience)
        except errors.LeaseLost:
            raise
        except (errors.Invalid, errors.Conflict, errors.NotFound) as refusal:
            if isinstance(refusal, errors.Invalid):
                self.hold.forget_usage()
            self._end(Ending.failed(f"the run could not end as told: {refusal}"), patience)
            raise

    def __enter__(self) -> Self:
        self._heartbeats.add(self.hold)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        """Complete with `self.result`, or end the run as the exception says.

        Outcomes and the loss of the lease stop here, since they are about this run only.
        """
        try:
            if not self.ended and not self.hold.gone:
                self._leave(error)
        except errors.LeaseLost as loss:
            log.warning("%r: %s", self, loss)
        finally:
            self._heartbeats.remove(self.hold)
        lost = self.hold.loss is not None and isinstance(error, errors.LeaseLost)
        return lost or isinstance(error, errors.Outcome)

    def _leave(self, error: BaseException | None) -> None:
        if error is None:
            self.complete(self.result)
        elif isinstance(error, Exception):
            self.end(ending_of(error))
        else:
            self.release(f"the worker was stopped: {type(error).__name__}")

    def _end(self, ending: Ending, patience: float) -> None:
        call = self._api.leases.fail if ending.verb == "fail" else self._api.leases.release
        body = {**ending.body, **self.hold.last_report()}
        try:
            with self.hold.ending():
                call(self.run.id, self.hold.token, patience=patience, **body)
        except errors.Invalid as refusal:
            if not self._can_leave_out(refusal):
                raise
            self._end(ending, patience)
        self._heartbeats.remove(self.hold)

    def _can_leave_out(self, refusal: errors.Invalid) -> bool:
        """Whether the usage was refused: the run ends without it rather than not as told."""
        if not errors.is_about_usage(refusal):
            return False
        log.warning("%r: its usage is left out: %s", self, refusal)
        self.hold.forget_usage()
        return True

    @property
    def _guard(self) -> Guard:
        return Guard(self.run.id, self.hold.token)

    def _wait_for(self, task_id: str, patience: float) -> None:
        try:
            with self.hold.losing():
                self._api.tasks.add_dependency(
                    self.task.id, task_id, guard=self._guard, patience=patience
                )
        except errors.Conflict as conflict:
            if conflict.code != "dependency_exists":
                raise


def child_id_of(task_id: str, name: str) -> str:
    """The id of the child that is spawned under this name: always the same."""
    digest = hashlib.sha256(f"{task_id}\0{name}".encode()).hexdigest()
    return f"task_{digest[:32]}"
