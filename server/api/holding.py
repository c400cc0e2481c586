"""What the holder of a lease calls: heartbeat, complete, fail, release, each batched."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from server.api.batch import Batcher, refusal
from server.api.context import Context
from server.contract.base import FreeJson
from server.contract.leases import LeaseProof, LeaseWork
from server.db.pool import Asked
from server.rules.tokens import made_here, parse_claim_token
from server.store import leases
from server.store.leases import CallAnswer
from server.telemetry import LeaseOperation, RunHeld, occur

LOUD: Final = "loud"
Changed = Callable[[str, int], None]
Fields = dict[str, Any]


class LeaseCall(NamedTuple):
    """One call under a lease, as the database takes it."""

    one: str
    fields: Fields


def lease_call(ctx: Context, run_id: str, body: LeaseProof) -> LeaseCall:
    """What every call under a lease says: whose it is, and its proof."""
    caller = ctx.caller
    fields: Fields = {
        "run_id": run_id,
        "session_id": caller.session_id,
        "agent_name": caller.agent_name,
        "fence": body.fence,
        "cause": msgspec.Raw(ctx.cause.encode()),
    }
    if body.claim_token is not None:
        fields |= proof(ctx, run_id, body.claim_token)
    if isinstance(body, LeaseWork):
        fields["checkpoint"] = plain(body.checkpoint)
        fields["usage"] = body.usage
    return LeaseCall(run_id, fields)


def proof(ctx: Context, run_id: str, token: str) -> Fields:
    """A claim token in the parts that the database compares; an unfit one proves nothing there."""
    parts = parse_claim_token(token)
    return {
        "token_hash": hashlib.sha256(token.encode()).hexdigest(),
        "token_fence": parts.fence if parts else None,
        "genuine": made_here(token, ctx.services.secrets, ctx.workspace_id, run_id),
    }


def guard(ctx: Context) -> str | None:
    """The lease guard of a request, for the database; None without one."""
    if ctx.guard is None:
        return None
    ctx.caller.needed_session()
    run_id, token = ctx.guard
    call = lease_call(ctx, run_id, LeaseProof(claim_token=token))
    return msgspec.json.encode(call.fields).decode()


def plain(value: FreeJson | None) -> msgspec.Raw | None:
    """A free JSON value as it stands in a larger text."""
    return None if value is None else msgspec.Raw(value.text.encode())


class Holding:
    """The batchers of the calls under a lease."""

    def __init__(
        self, connect: Callable[[], Asked], limit: int, busy_seconds: float, changed: Changed
    ) -> None:
        self._changed = changed

        def batcher(
            operation: str, store: Any, last: bool = False
        ) -> Batcher[LeaseCall, CallAnswer]:
            database = connect()
            aside = None if last else batcher(operation, store, last=True)

            async def serve(workspace_id: str, calls: Sequence[LeaseCall]) -> list[CallAnswer]:
                rows = await store(database, workspace_id, numbered(calls))
                return self._in_order(workspace_id, operation, calls, rows)

            return Batcher(operation, serve, limit, busy_seconds, lambda _: True, aside)

        self._heartbeats = batcher("heartbeat", leases.heartbeat_runs)
        self._reports = batcher("report", leases.report_runs)
        self._completes = batcher("complete", leases.complete_runs)
        self._fails = batcher("fail", leases.fail_runs)
        self._releases = batcher("release", leases.release_runs)

    async def heartbeat(self, workspace_id: str, call: LeaseCall) -> CallAnswer:
        """Renews a lease; one that tells something goes the way that writes events."""
        quiet = all(call.fields.get(name) is None for name in ("progress", "checkpoint", "usage"))
        answer = None
        if quiet:
            answer = await self._heartbeats.submit(workspace_id, call)
        if answer is None or answer.code == LOUD:
            answer = await self._reports.submit(workspace_id, call)
        return _good("heartbeat", answer)

    async def complete(self, workspace_id: str, call: LeaseCall) -> CallAnswer:
        """Ends a run with its result."""
        answer = _good("complete", await self._completes.submit(workspace_id, call))
        if not answer.replayed:
            occur(RunHeld, value=_seconds(answer), outcome="completed")
        return answer

    async def fail(self, workspace_id: str, call: LeaseCall) -> CallAnswer:
        """Ends a run with its error."""
        answer = _good("fail", await self._fails.submit(workspace_id, call))
        if not answer.replayed:
            occur(RunHeld, value=_seconds(answer), outcome="failed")
        return answer

    async def release(self, workspace_id: str, call: LeaseCall) -> CallAnswer:
        """Gives a run back."""
        return _good("release", await self._releases.submit(workspace_id, call))

    async def idle(self) -> None:
        """Returns when no batch is under way."""
        for batcher in (
            self._heartbeats, self._reports, self._completes, self._fails, self._releases,
        ):  # fmt: skip
            await batcher.idle()

    def _in_order(
        self, workspace_id: str, operation: str, calls: Sequence[LeaseCall], rows: list[CallAnswer]
    ) -> list[CallAnswer]:
        answers = {row.n: row for row in rows}
        if operation != "heartbeat":
            self._changed(workspace_id, max((row.offers for row in rows), default=0))
        return [answers[n] for n in range(len(calls))]


def numbered(calls: Sequence[LeaseCall]) -> str:
    """The calls of a batch as one parameter."""
    return msgspec.json.encode([{"n": n, **call.fields} for n, call in enumerate(calls)]).decode()


class Ended(msgspec.Struct, frozen=True):
    """How long a run was held that has ended."""

    seconds: float | None


def _seconds(answer: CallAnswer) -> float | None:
    return msgspec.json.decode(answer.evidence or '{"seconds":null}', type=Ended).seconds


def _good(operation: str, answer: CallAnswer) -> CallAnswer:
    result = answer.code or ("replayed" if answer.replayed else "ok")
    occur(LeaseOperation, operation=operation, result=result)
    if answer.code is not None:
        raise refusal(answer)
    return answer
