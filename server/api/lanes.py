"""The lanes of a workspace, as a process knows them."""

from typing import Final

from server.rules.lanes import Claimer, Demands, eligible, read_demands

COORDINATION: Final = "coord-"
CLAIMERS_CACHED: Final = 20_000


class Lanes:
    """The lanes of one workspace, and what each kind of claimer may take of them."""

    def __init__(self, rows: list[tuple[int, str]]) -> None:
        self.newest = max((lane_id for lane_id, _ in rows), default=0)
        self._demands: list[tuple[int, Demands]] = [(n, read_demands(text)) for n, text in rows]
        self._known: dict[Claimer, tuple[int, ...]] = {}
        self._numbers: dict[tuple[int, ...], int] = {}

    def of(self, claimer: Claimer) -> tuple[int, ...]:
        """The lanes whose every demand this claimer meets."""
        lanes = self._known.get(claimer)
        if lanes is None:
            if len(self._known) >= CLAIMERS_CACHED:
                self._known.clear()
            asked = claimer
            if claimer.channel is not None and claimer.channel.startswith(COORDINATION):
                asked = claimer._replace(channel=None)
            lanes = tuple(lane for lane, demands in self._demands if eligible(demands, asked))
            self._known[claimer] = lanes
        return lanes

    def number(self, claimer: Claimer) -> int:
        """Equal for claimers that may take the same lanes."""
        return self._numbers.setdefault(self.of(claimer), len(self._numbers))
