"""Keeps the digests behind the log, so that dashboards and inboxes cost little."""

from typing import Final

from server import limits
from server.db.pool import Asked, Busy, Fault
from server.store import digests
from server.telemetry import (
    EventsWritten,
    LoopFailed,
    QueueAged,
    QueueMeasured,
    RunsCounted,
    RunsStuck,
    TasksCounted,
    occur,
)

GAUGES: Final = {
    "tasks": TasksCounted,
    "runs": RunsCounted,
    "queue_depth": QueueMeasured,
    "queue_age": QueueAged,
    "stuck": RunsStuck,
}


async def run_once(db: Asked) -> int:
    """A bounded number of passes in each workspace whose log has gone on; how many events."""
    kept = 0
    for workspace_id in await digests.lagging_workspaces(db):
        try:
            for _ in range(limits.DIGEST_PASSES_COUNT):
                events = await digests.keep_digests(db, workspace_id, limits.DIGEST_PASS_EVENTS)
                kept += events
                # Every event passes here once, whichever server wrote it.
                occur(EventsWritten, count=events)
                if events < limits.DIGEST_PASS_EVENTS:
                    break
        except Busy:
            # Held up by a transaction of its own: the next pass comes soon.
            continue
        except Fault as error:
            # One bad workspace must not hold up the others.
            occur(LoopFailed, loop="digests", error=error, workspace_id=workspace_id)
    return kept


async def measure(db: Asked) -> int:
    """Sets the gauges of what there is in all workspaces; how many."""
    measured = await digests.measure_gauges(db)
    for gauge, label, amount in measured:
        # `status` or `priority`, as the gauge has it; the stuck ones have neither.
        occur(GAUGES[gauge], value=amount, status=label, priority=label)
    return len(measured)
