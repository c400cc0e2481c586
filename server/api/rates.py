"""How often a client may call, and how often it may fail to prove itself."""

from typing import Any, Final

from server import limits
from server.errors import Problem
from server.telemetry import RateLimited, occur

WINDOW_SECONDS: Final = 60.0


def make_room(remembered: dict[Any, Any]) -> None:
    """Forgets everything once there is too much of it: no more than a cache may hold is kept."""
    if len(remembered) >= limits.IDENTITY_CACHE_COUNT:
        remembered.clear()


def limited(reason: str, limit: float, wait_seconds: int) -> Problem:
    """Too much of something; it is counted."""
    occur(RateLimited, reason=reason)
    return Problem("rate_limited", limit=limit, retry_after_seconds=wait_seconds)


class Failures:
    """Counts bad credentials by client address."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[float, int]] = {}

    def note(self, address: str, now: float) -> None:
        """Counts one more; refuses a client that shows too many in a minute."""
        since, count = self._counts.get(address, (now, 0))
        if now - since > WINDOW_SECONDS:
            since, count = now, 0
        make_room(self._counts)
        self._counts[address] = (since, count + 1)
        if count >= limits.AUTH_FAILURES_PER_MINUTE_COUNT:
            wait = max(1, int(since + WINDOW_SECONDS - now))
            raise limited("authentication", limits.AUTH_FAILURES_PER_MINUTE_COUNT, wait)


class Buckets:
    """A bucket of requests for each key, filled at the rate limit."""

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._most = max(1.0, per_second * limits.RATE_BURST_SECONDS)
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, key_id: str, now: float) -> None:
        """Takes one request from the bucket of a key; refuses it if that is empty."""
        left, at = self._left.get(key_id, (self._most, now))
        left = min(self._most, left + (now - at) * self._per_second)
        if left < 1:
            wait = max(1, round((1 - left) / self._per_second))
            raise limited("key", self._per_second, wait)
        make_room(self._left)
        self._left[key_id] = (left - 1, now)
