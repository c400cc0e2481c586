"""Runs, as an operator sees them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, Unpack

from msgspec import Struct

from agent_sdk import errors
from agent_sdk.api.looks import Inspection, inspection
from agent_sdk.fields import FailureFields, RunFilter
from agent_sdk.transport import Transport, new_key, segment
from agent_sdk.types import LeaseState, Run, RunPage, TaskReference


class SessionInfo(Struct, frozen=True, kw_only=True):
    """A running agent process."""

    session_id: str
    workspace_id: str | None = None
    agent_name: str | None = None
    name: str | None = None
    channel: str | None = None
    state: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None


class RunTotals(Struct, frozen=True, kw_only=True):
    """What a run has done and used so far."""

    last_activity_at: datetime | None = None
    last_event_type: str | None = None
    tool_call_count: int = 0
    turn_count: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    total_cost: float = 0
    cost_currency: str | None = None


class RunDetail(Struct, frozen=True, kw_only=True):
    """A run, whole, with its task, session and totals."""

    run: Run
    task: TaskReference
    session: SessionInfo | None = None
    summary: RunTotals = RunTotals()


class RunPair(Struct, frozen=True, kw_only=True):
    """A run and the one that was queued after it."""

    previous_run: Run
    run: Run


class BulkRun(Struct, frozen=True, kw_only=True):
    """One run's part of a call for many: `error` is set when it was refused."""

    run_id: str
    ok: bool
    run: Run | None = None
    previous_run: Run | None = None
    error: errors.Envelope | None = None


class RunLease(Struct, frozen=True, kw_only=True):
    """A run that was claimed by hand, and its lease with the token."""

    run: Run
    lease: LeaseState


class _BulkRuns(Struct, frozen=True):
    results: list[BulkRun]


class _RunDetail(Struct, frozen=True):
    run: RunDetail


class _Run(Struct, frozen=True):
    run: Run


class Runs:
    """`client.runs`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(
        self, *, limit: int = 50, cursor: str | None = None, **filters: Unpack[RunFilter]
    ) -> RunPage:
        """A page of the workspace's runs, the newest first."""
        query = {**filters, "limit": limit, "cursor": cursor}
        return self._transport.call(RunPage, "GET", "/api/task-runs", query=query)

    def get(self, run_id: str) -> RunDetail:
        """A run with its whole result."""
        return self._transport.call(_RunDetail, "GET", f"/api/task-runs/{segment(run_id)}").run

    def inspect(self, run_id: str) -> Inspection:
        """What is wrong with a run, and what to do about it."""
        return inspection(self._transport, f"/api/runs/{segment(run_id)}/inspect")

    def claim(
        self,
        run_id: str,
        *,
        lease_seconds: int | None = None,
        session_id: str | None = None,
        key: str | None = None,
    ) -> RunLease:
        """Claim this very run by hand, for a day unless told otherwise."""
        path = f"/api/task-runs/{segment(run_id)}/claim"
        body = {"lease_seconds": lease_seconds, "session_id": session_id}
        return self._transport.call(RunLease, "POST", path, body=body, key=key or new_key())

    def attach_session(
        self, run_id: str, session_id: str, *, agent_name: str | None = None
    ) -> RunLease:
        """Give a session to a run that was claimed by hand without one."""
        path = f"/api/task-runs/{segment(run_id)}/attach-session"
        body = {"session_id": session_id, "agent_name": agent_name}
        return self._transport.call(RunLease, "POST", path, body=body)

    def start(self, run_id: str, *, claim_token: str | None = None) -> Run:
        """Say that the work on a run has begun; agents show their token, operators need none."""
        path = f"/api/task-runs/{segment(run_id)}/start"
        return self._transport.call(_Run, "POST", path, body={"claim_token": claim_token}).run

    def complete(self, run_id: str, *, result: Any = None, claim_token: str | None = None) -> Run:
        """End a run that was claimed by hand, or the agent's own, with its result."""
        path = f"/api/task-runs/{segment(run_id)}/complete"
        body = {"result": result, "claim_token": claim_token}
        return self._transport.call(_Run, "POST", path, body=body).run

    def fail(
        self,
        run_id: str,
        *,
        error: str,
        claim_token: str | None = None,
        **more: Unpack[FailureFields],
    ) -> Run:
        """End one with an error; it is tried again while attempts are left."""
        path = f"/api/task-runs/{segment(run_id)}/fail"
        body = {"error": error, "claim_token": claim_token, **more}
        return self._transport.call(_Run, "POST", path, body=body).run

    def cancel(self, run_id: str, *, reason: str | None = None, metadata: Any = None) -> Run:
        """End a run; its task is then without one."""
        path = f"/api/task-runs/{segment(run_id)}/cancel"
        body = {"reason": reason, "metadata": metadata}
        return self._transport.call(_Run, "POST", path, body=body).run

    def force_release(
        self,
        run_id: str,
        *,
        reason: str | None = None,
        note: str | None = None,
        delay_seconds: int = 0,
        metadata: Any = None,
    ) -> Run:
        """Take a run from its holder and queue it again."""
        path = f"/api/runs/{segment(run_id)}/release"
        body = {
            "reason": reason,
            "note": note,
            "delay_seconds": delay_seconds,
            "metadata": metadata,
        }
        return self._transport.call(_Run, "POST", path, body=body).run

    def force_fail(self, run_id: str, *, reason: str, metadata: Any = None) -> Run:
        """End a run as failed, whoever holds it; nothing tries it again by itself."""
        path = f"/api/runs/{segment(run_id)}/fail"
        body = {"reason": reason, "metadata": metadata}
        return self._transport.call(_Run, "POST", path, body=body).run

    def bulk(
        self,
        verb: Literal["release", "fail", "retry", "recover"],
        run_ids: Sequence[str],
        *,
        reason: str | None = None,
        metadata: Any = None,
        key: str | None = None,
    ) -> Sequence[BulkRun]:
        """Do one of these to up to 50 runs, each for itself; answers in their order."""
        body = {"run_ids": run_ids, "reason": reason, "metadata": metadata}
        kept = key or new_key() if verb in ("retry", "recover") else None
        path = f"/api/runs/bulk/{verb}"
        return self._transport.call(_BulkRuns, "POST", path, body=body, key=kept).results

    def retry(
        self,
        run_id: str,
        *,
        reason: str | None = None,
        metadata: Any = None,
        delay_seconds: int = 0,
        key: str | None = None,
    ) -> RunPair:
        """Queue a new run after a failed one, whatever attempts are left."""
        return self._again(run_id, "retry", reason, metadata, delay_seconds, key)

    def recover(
        self,
        run_id: str,
        *,
        reason: str | None = None,
        metadata: Any = None,
        delay_seconds: int = 0,
        key: str | None = None,
    ) -> RunPair:
        """Queue a new run in place of one that needs attention."""
        return self._again(run_id, "recover", reason, metadata, delay_seconds, key)

    def _again(
        self,
        run_id: str,
        verb: str,
        reason: str | None,
        metadata: Any,
        delay_seconds: int,
        key: str | None,
    ) -> RunPair:
        body = {"reason": reason, "metadata": metadata, "delay_seconds": delay_seconds}
        path = f"/api/runs/{segment(run_id)}/{verb}"
        return self._transport.call(RunPair, "POST", path, body=body, key=key or new_key())
