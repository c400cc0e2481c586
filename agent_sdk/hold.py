"""Whether a lease is still held: when its heartbeats are due, and how its loss is told."""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from agent_sdk import errors
from agent_sdk.api.reviews import ReviewLeaseState
from agent_sdk.transport import PATIENCE_SECONDS, TIMEOUT_SECONDS
from agent_sdk.types import LeaseState

# The first heartbeat says that the work has begun; work that is done sooner is spared it.
FIRST_HEARTBEAT_SECONDS = 1.0
DEFAULT_LEASE_SECONDS = 300
BACKGROUND_TIMEOUT_SECONDS = 10.0
CANCEL_REQUESTED = "cancel_requested"


class Hold(ABC):
    """The holder's side of one lease. Times are monotonic: the client's clock may be wrong."""

    def __init__(self, held_id: str, lease: LeaseState | ReviewLeaseState) -> None:
        # Of the run or review.
        self.id = held_id
        self.token = lease.claim_token or ""
        self.fence = lease.fence
        self.seconds = lease.lease_seconds or DEFAULT_LEASE_SECONDS
        self.lost = threading.Event()
        self.loss: errors.LeaseLost | None = None
        self.ended = False
        self._on_loss: list[Callable[[], object]] = []
        self._state = threading.Lock()
        self._ending = False
        now = time.monotonic()
        self._good_until = now + self.seconds
        self._due_at = now + min(FIRST_HEARTBEAT_SECONDS, self.seconds / 3)
        self._not_before = now

    @abstractmethod
    def heartbeat(
        self, *, patience: float = PATIENCE_SECONDS, timeout: float = TIMEOUT_SECONDS
    ) -> None:
        """Prolong the lease; raises LeaseLost when it is over."""

    @abstractmethod
    def beat_alone(self) -> bool:
        """Send a heartbeat that cannot go with those of other leases; False if it can."""

    @property
    def gone(self) -> bool:
        """Whether it is not ours any more, and nothing that we call about it counts."""
        return self.loss is not None

    @property
    def beat_seconds(self) -> float:
        """How long a heartbeat may take: if its reply is lost there must be time for another."""
        return min(BACKGROUND_TIMEOUT_SECONDS, self.seconds / 3)

    def check(self) -> None:
        """Raise if the lease is lost; asks the server only if heartbeats are overdue."""
        if self.loss is None and not self.ended and time.monotonic() > self._good_until:
            self.heartbeat()
        self.raise_loss()

    def raise_loss(self) -> None:
        """Raise what ended the lease, if anything did."""
        if self.loss is not None:
            raise self.loss.with_traceback(None)

    def next_due(self) -> float:
        """When the next heartbeat is to be sent."""
        return max(self._due_at, self._not_before)

    def prolonged(self, sent: float, left: float) -> None:
        """A heartbeat that was sent at the monotonic `sent` has left us so many seconds from it."""
        self._good_until = sent + left
        self._due_at = sent + self.seconds / 3

    def postpone(self, seconds: float) -> None:
        """Nothing is due before `seconds` have passed."""
        self._not_before = time.monotonic() + seconds

    def hasten(self) -> None:
        """A heartbeat is due now."""
        self._due_at = self._not_before = time.monotonic()

    def lose(self, loss: errors.LeaseLost) -> None:
        """The lease is lost: tell everybody who waits for that, once."""
        with self._state:
            # While the run is being ended only the answer to that call counts.
            if self.loss is not None or self._ending or self.ended:
                return
            self.loss = loss
            calls = list(self._on_loss)
        self.lost.set()
        for call in calls:
            call()

    def when_lost(self, call: Callable[[], object]) -> None:
        """Call this, from some thread, when the lease is lost; at once if it is."""
        with self._state:
            if self.loss is None:
                self._on_loss.append(call)
                return
        call()

    @contextmanager
    def losing(self) -> Iterator[None]:
        """Within, an answer that means the end of the lease is taken in and raised as LeaseLost."""
        try:
            yield
        except errors.ApiError as error:
            loss = errors.as_lost(error)
            if loss is None:
                raise
            self.lose(loss)
            raise loss from error

    @contextmanager
    def ending(self) -> Iterator[None]:
        """Within, the run is ended: a heartbeat that comes too late is no loss."""
        self._ending = True
        try:
            yield
            self.ended = True
        except errors.ApiError as error:
            self._ending = False
            with self.losing():
                raise error
        finally:
            self._ending = False
