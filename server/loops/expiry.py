"""The sweep: ends leases whose time is up, so that a crash costs one lease time."""

from collections.abc import Callable
from functools import partial

from server.db.pool import Asked, Fault
from server.loops.every import in_batches
from server.store import sweep
from server.telemetry import LeaseExpired, LoopFailed, RunQuarantined, occur


async def run_once(db: Asked, limit: int, changed: Callable[[str, int], None]) -> int:
    """Ends the lapsed leases of one pass; how many."""

    async def expire(workspace_id: str, runs: list[str]) -> int:
        done = await sweep.expire_runs(db, workspace_id, runs)
        if done.expired:
            occur(LeaseExpired, count=done.expired)
            changed(workspace_id, done.offers)
        if done.quarantined:
            occur(RunQuarantined, count=done.quarantined)
        return done.expired

    async def set_aside(workspace_id: str, run_id: str, error: Fault) -> None:
        occur(LoopFailed, loop="expiry", error=error, run_id=run_id)
        await sweep.set_aside(db, workspace_id, run_id)

    return await in_batches(partial(sweep.sweep_leases, db, limit), expire, set_aside)
