"""Where queues begin: so that claims do not walk through what was claimed before them."""

import asyncio
import time
from typing import Any, Final, NamedTuple

import msgspec

from server.api.rates import make_room
from server.db.pool import Database, Fault
from server.errors import Problem
from server.store.leases import queue_heads
from server.telemetry import LoopFailed, occur

# Heads stay true however old they are; but what came since is looked through by every claim.
LOOK_EVERY_SECONDS: Final = 0.5
FORGOTTEN_SECONDS: Final = 1.0
# What is known goes back to a look at the whole queue that is no older.
WHOLE_EVERY_SECONDS: Final = 60.0

# Lanes, least priority, and the run that is asked for.
Reach = tuple[tuple[int, ...], int, str | None]


class Head(NamedTuple):
    """Where the queue began for a team: members of it, and when they and the whole were read."""

    members: dict[str, Any]
    at: float
    whole_at: float


class Heads:
    """The heads of all queues, as one process knows them; what it does not know costs time only."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._known: dict[tuple[str, Reach], Head] = {}
        self._looks: dict[tuple[str, Reach], asyncio.Task[None]] = {}

    def of(self, workspace_id: str, reach: Reach) -> dict[str, Any]:
        """What is known, as members of a team; none if nothing is."""
        head = self._known.get((workspace_id, reach))
        if head is None or head.at + FORGOTTEN_SECONDS < time.monotonic():
            return {}
        return head.members

    def claimed(self, workspace_id: str, reach: Reach) -> None:
        """Somebody claimed: looks where the queue begins now, unless that was done just before."""
        place = (workspace_id, reach)
        head = self._known.get(place)
        late = head is None or head.at + LOOK_EVERY_SECONDS < time.monotonic()
        if late and reach[2] is None and place not in self._looks:
            look = asyncio.create_task(self._look(place))
            self._looks[place] = look
            look.add_done_callback(lambda _: self._looks.pop(place))

    def forget(self) -> None:
        """The database may not be the one that was looked at."""
        self._known = {}

    async def idle(self) -> None:
        """Returns when nobody looks."""
        await asyncio.gather(*self._looks.values())

    async def _look(self, place: tuple[str, Reach]) -> None:
        known = self._known
        workspace_id, reach = place
        now = time.monotonic()
        head = known.get(place)
        if head is None or not self.of(*place) or head.whole_at + WHOLE_EVERY_SECONDS < now:
            head = Head({}, now, now)
        team = {"lanes": reach[0], "priority_min": reach[1], **head.members}
        try:
            told = await queue_heads(self._db, workspace_id, msgspec.json.encode(team).decode())
        except Problem:
            # The database is away or busy.
            known.pop(place, None)
        except Fault as error:
            known.pop(place, None)
            occur(LoopFailed, loop="heads", error=error)
        else:
            make_room(known)
            known[place] = Head(msgspec.json.decode(told), now, head.whole_at)
