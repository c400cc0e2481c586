"""The sweep: ends leases whose time is up, so that a crash costs one lease time."""

from collections.abc import Callable

from server.db.pool import Asked, Busy, Fault
from server.store import sweep
from server.telemetry import LeaseExpired, LoopFailed, RunQuarantined, occur


async def run_once(db: Asked, limit: int, changed: Callable[[str, int], None]) -> int:
    """Ends the lapsed leases of one pass; how many."""
    ended = 0
    for workspace_id, runs in await sweep.sweep_leases(db, limit):
        try:
            ended += await _expire(db, workspace_id, runs, changed)
        except Busy:
            # Held up by a transaction of its own: the next pass comes soon.
            continue
        except Fault:
            # One bad run must not hold up the others.
            for run_id in runs:
                ended += await _expire_alone(db, workspace_id, run_id, changed)
    return ended


async def _expire(
    db: Asked, workspace_id: str, runs: list[str], changed: Callable[[str, int], None]
) -> int:
    done = await sweep.expire_runs(db, workspace_id, runs)
    if done.expired:
        occur(LeaseExpired, count=done.expired)
        changed(workspace_id, done.offers)
    if done.quarantined:
        occur(RunQuarantined, count=done.quarantined)
    return done.expired


async def _expire_alone(
    db: Asked, workspace_id: str, run_id: str, changed: Callable[[str, int], None]
) -> int:
    try:
        return await _expire(db, workspace_id, [run_id], changed)
    except Fault as error:
        occur(LoopFailed, loop="expiry", error=error, run_id=run_id)
        await sweep.set_aside(db, workspace_id, run_id)
        return 0
