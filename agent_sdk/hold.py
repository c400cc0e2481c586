"""Whether a lease is still held: its heartbeats, what they report, and how its loss is told."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any

from agent_sdk import errors
from agent_sdk.api.leases import BulkHeartbeat, Heartbeat, Leases
from agent_sdk.fields import ProgressFields, UsageFields
from agent_sdk.outcome import MESSAGE_LIMIT_BYTES, clean
from agent_sdk.transport import PATIENCE_SECONDS, TIMEOUT_SECONDS
from agent_sdk.types import Claim

# The first heartbeat makes the run `running`; work that is done sooner is spared it.
FIRST_HEARTBEAT_SECONDS = 1.0
# Progress and usage that are reported more often are sent together.
REPORT_SECONDS = 1.0
DEFAULT_LEASE_SECONDS = 300
BACKGROUND_TIMEOUT_SECONDS = 10.0
CANCEL_REQUESTED = "cancel_requested"


class Hold:
    """The holder's side of one lease. Times are monotonic: the client's clock may be wrong."""

    def __init__(self, leases: Leases, claim: Claim) -> None:
        self.run_id = claim.run.id
        self.token = claim.lease.claim_token or ""
        self.fence = claim.lease.fence
        self.seconds = claim.lease.lease_seconds or DEFAULT_LEASE_SECONDS
        self.lost = threading.Event()
        self.loss: errors.LeaseLost | None = None
        self.ended = False
        self.paused = False
        self.budget_remaining = claim.budget_remaining
        self._leases = leases
        self._on_loss: list[Callable[[], object]] = []
        self._state = threading.Lock()
        # Held while a report is on its way, so that a later one cannot overtake it.
        self._sending = threading.RLock()
        self._ending = False
        self._usage: UsageFields = {}
        self._usage_waits = False
        self._progress: ProgressFields | None = None
        now = time.monotonic()
        self._reported_at = now - REPORT_SECONDS
        self._good_until = now + self.seconds
        self._due_at = now + min(FIRST_HEARTBEAT_SECONDS, self.seconds / 3)
        self._not_before = now

    @property
    def gone(self) -> bool:
        """Whether the run is not ours any more; False when we are only asked to end it."""
        loss = self.loss
        if loss is None or isinstance(loss, errors.BudgetExhausted):
            return False
        return loss.code != CANCEL_REQUESTED

    def check(self) -> None:
        """Raise if the lease is lost; asks the server only if heartbeats are overdue."""
        if self.loss is None and not self.ended and time.monotonic() > self._good_until:
            self.heartbeat()
        self.raise_loss()

    def raise_loss(self) -> None:
        """Raise what ended the lease, if anything did."""
        if self.loss is not None:
            raise self.loss.with_traceback(None)

    def heartbeat(
        self,
        *,
        patience: float = PATIENCE_SECONDS,
        timeout: float = TIMEOUT_SECONDS,
        **fields: Any,
    ) -> None:
        """Prolong the lease, and send what waits to be reported."""
        with self._sending:
            self.raise_loss()
            self._reported_at = sent = time.monotonic()
            progress = self._take_progress()
            if progress is not None:
                fields["progress"] = progress
            with self._state:
                if self._usage_waits:
                    fields["usage"], self._usage_waits = dict(self._usage), False
            try:
                with self.losing():
                    reply = self._leases.heartbeat(
                        self.run_id, self.token, patience=patience, timeout=timeout, **fields
                    )
            except errors.Invalid:
                self.forget_usage()  # what was refused once would be refused for ever
                raise
            except errors.WorkleaseError:
                if self._progress is None:  # unless there is a newer one
                    self._progress = progress
                self._usage_waits = bool(self._usage)
                raise
            self.renewed(reply, reply.server_time, sent)
        self.raise_loss()

    def report_progress(self, percent: float | None, message: str | None) -> None:
        """Send the progress now, or soon if the last report was just before."""
        if message is not None:
            message = clean(message, MESSAGE_LIMIT_BYTES)
        self._progress = {"percent": percent, "message": message}
        self._report()

    def report_usage(self, more: UsageFields) -> None:
        """Add to the totals, which go with the next report and with the end of the run."""
        with self._state:
            totals: dict[str, Any] = {**self._usage}
            for name, amount in more.items():
                known = totals.get(name, 0)
                totals[name] = amount if isinstance(amount, str) else known + amount
            self._usage = UsageFields(**totals)  # type: ignore[typeddict-item]  # same names
            self._usage_waits = True
        self._report()

    def forget_usage(self) -> None:
        """Report no usage that was not reported yet."""
        self._usage, self._usage_waits = {}, False

    def last_report(self) -> dict[str, Any]:
        """What the call that ends the run must carry; sends what that call cannot."""
        if self._progress is not None and self.loss is None:
            with suppress(errors.ConnectionFailed, errors.Unavailable, errors.Invalid):
                self.heartbeat(patience=0)
        return {"usage": dict(self._usage)} if self._usage else {}

    def next_due(self) -> float:
        """When the next heartbeat or report is to be sent."""
        due = self._due_at
        if self._reports_wait:
            due = min(due, self._reported_at + REPORT_SECONDS)
        return max(due, self._not_before)

    def postpone(self, seconds: float) -> None:
        """Nothing is due before `seconds` have passed."""
        self._not_before = time.monotonic() + seconds

    def hasten(self) -> None:
        """A heartbeat is due now."""
        self._due_at = self._not_before = time.monotonic()

    def beat_alone(self) -> bool:
        """Send a heartbeat with the reports that wait, if there are any; False if there are none.

        Also True while another thread sends one: that one is as good.
        """
        if not self._sending.acquire(blocking=False):
            self.postpone(REPORT_SECONDS)
            return True
        try:
            if self._reports_wait:
                self.heartbeat(patience=0, timeout=BACKGROUND_TIMEOUT_SECONDS)
                return True
        finally:
            self._sending.release()
        return False

    def renewed(self, reply: Heartbeat | BulkHeartbeat, server_time: datetime, sent: float) -> None:
        """Take in the server's answer to a heartbeat that was sent at the monotonic `sent`."""
        left: float = self.seconds
        if reply.lease is not None and reply.lease.lease_until is not None:
            # A difference of two server times; a deadline may make it less than was asked for.
            left = (reply.lease.lease_until - server_time).total_seconds()
        self._good_until = sent + left
        self._due_at = sent + self.seconds / 3
        self.paused = bool(reply.paused)
        self.budget_remaining = reply.budget_remaining
        if reply.cancel_requested:
            self.lose(errors.Cancelled(CANCEL_REQUESTED, "the run is to be stopped"))
        elif reply.stop_reason is not None:
            self.lose(errors.BudgetExhausted(reply.stop_reason, "the run is to be stopped"))

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

    def _take_progress(self) -> ProgressFields | None:
        progress, self._progress = self._progress, None
        return progress

    @property
    def _reports_wait(self) -> bool:
        return self._progress is not None or self._usage_waits

    def _report(self) -> None:
        self.raise_loss()
        if time.monotonic() >= self._reported_at + REPORT_SECONDS:
            self.heartbeat()
