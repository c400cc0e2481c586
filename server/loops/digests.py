"""Keeps the digests behind the log, so that dashboards and inboxes cost little."""

from functools import partial
from typing import Final

from server import limits
from server.db.pool import Asked
from server.loops.every import in_pieces, in_turn
from server.store import digests
from server.telemetry import (
    EventsWritten,
    QueueAged,
    QueueMeasured,
    RunsCounted,
    RunsEnded,
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

    async def keep(workspace_id: str) -> int:
        kept = await digests.keep_digests(db, workspace_id, limits.DIGEST_PASS_EVENTS)
        # Every event passes here once, whichever server wrote it.
        occur(EventsWritten, count=kept.events)
        for end in kept.ended:
            occur(RunsEnded, **end)
        return kept.events

    async def catch_up(workspace_id: str) -> int:
        passes, size = limits.DIGEST_PASSES_COUNT, limits.DIGEST_PASS_EVENTS
        return await in_pieces(partial(keep, workspace_id), size, passes)

    return await in_turn("digests", await digests.lagging_workspaces(db), catch_up)


async def measure(db: Asked) -> int:
    """Sets the gauges of what there is in all workspaces; how many."""
    measured = await digests.measure_gauges(db)
    for gauge, label, amount in measured:
        # `status` or `priority`, as the gauge has it; the stuck ones have neither.
        occur(GAUGES[gauge], value=amount, status=label, priority=label)
    return len(measured)
