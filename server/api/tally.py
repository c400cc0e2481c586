"""Counts requests cheaply while they are served, and tells telemetry now and then."""

import asyncio
from typing import Final

from server.telemetry import RequestBegan, RequestServed, occur

# A request notes itself in a list; the metrics, which cost more, are brought up to date in one go.
TELL_AFTER_SECONDS: Final = 0.5

Served = tuple[str, str, int, float]


class Tally:
    """The requests of one process since telemetry was last told."""

    def __init__(self) -> None:
        self.in_flight = 0
        self._told_in_flight = 0
        self._served: list[Served] = []

    def ended(self, method: str, route: str, status: int, seconds: float) -> None:
        """Notes a request that began with in_flight += 1."""
        self.in_flight -= 1
        if not self._served:
            asyncio.get_running_loop().call_later(TELL_AFTER_SECONDS, self.tell)
        self._served.append((method, route, status, seconds))

    def tell(self) -> None:
        """Brings the metrics up to date."""
        served, self._served = self._served, []
        for method, route, status, seconds in served:
            occur(RequestServed, value=seconds, method=method, route=route, status=status)
        if self.in_flight != self._told_in_flight:
            occur(RequestBegan, count=self.in_flight - self._told_in_flight)
            self._told_in_flight = self.in_flight


requests: Final = Tally()
