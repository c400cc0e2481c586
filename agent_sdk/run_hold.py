"""A run that is held: its heartbeats, and what they and its end report."""

import threading
import time
from contextlib import suppress
from datetime import datetime
from typing import Any

from agent_sdk import errors
from agent_sdk.api.leases import BulkHeartbeat, Heartbeat, Leases
from agent_sdk.fields import ProgressFields, UsageFields
from agent_sdk.hold import CANCEL_REQUESTED, Hold
from agent_sdk.outcome import MESSAGE_LIMIT_BYTES, as_json, clean
from agent_sdk.transport import PATIENCE_SECONDS, TIMEOUT_SECONDS
from agent_sdk.types import Claim

# Progress and usage that are reported more often are sent together.
REPORT_SECONDS = 1.0


class RunHold(Hold):
    """The holder's side of a run's lease."""

    def __init__(self, leases: Leases, claim: Claim) -> None:
        super().__init__(claim.run.id, claim.lease)
        self.paused = False
        self.budget_remaining = claim.budget_remaining
        self._leases = leases
        # Held while a report is on its way, so that a later one cannot overtake it.
        self._sending = threading.RLock()
        self._usage: UsageFields = {}
        self._usage_waits = False
        self._progress: ProgressFields | None = None
        self._reported_at = time.monotonic() - REPORT_SECONDS

    @property
    def gone(self) -> bool:
        """Whether the run is not ours any more; False when we are only asked to end it."""
        loss = self.loss
        if loss is None or isinstance(loss, errors.BudgetExhausted):
            return False
        return loss.code != CANCEL_REQUESTED

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
                        self.id, self.token, patience=patience, timeout=timeout, **fields
                    )
            except errors.Invalid as refusal:
                if errors.is_about_usage(refusal) or fields.keys() == {"usage"}:
                    self.forget_usage()  # what was refused once would be refused for ever
                self._usage_waits = bool(self._usage)
                if "checkpoint" in fields and self._progress is None:
                    self._progress = progress
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
        progress: ProgressFields = {"percent": percent, "message": message}
        as_json(progress)  # refused here, where it can be told, and not when it is sent
        self._progress = progress
        self._report()

    def report_usage(self, more: UsageFields) -> None:
        """Add to the totals, which go with the next report and with the end of the run."""
        with self._state:
            totals: dict[str, Any] = {**self._usage}
            for name, amount in more.items():
                known = totals.get(name, 0)
                totals[name] = amount if isinstance(amount, str) else known + amount
            as_json(totals)  # as above
            self._usage = UsageFields(**totals)  # type: ignore[typeddict-item]  # same names
            self._usage_waits = True
        self._report()

    def forget_usage(self) -> None:
        """Report no usage that was not reported yet."""
        self._usage, self._usage_waits = {}, False

    def last_report(self) -> dict[str, Any]:
        """What the call that ends the run must carry; sends what that call cannot."""
        if self._progress is not None and self.loss is None:
            # A loss as well: the call that ends the run tells whether that still counts.
            with suppress(
                errors.ConnectionFailed, errors.Unavailable, errors.Invalid, errors.LeaseLost
            ):
                self.heartbeat(patience=0)
        return {"usage": dict(self._usage)} if self._usage else {}

    def next_due(self) -> float:
        """When the next heartbeat or report is to be sent."""
        due = super().next_due()
        if self._reports_wait:
            due = max(min(due, self._reported_at + REPORT_SECONDS), self._not_before)
        return due

    def beat_alone(self) -> bool:
        """Send a heartbeat with the reports that wait, if there are any; False if there are none.

        Also True while another thread sends one: that one is as good.
        """
        if not self._sending.acquire(blocking=False):
            self.postpone(REPORT_SECONDS)
            return True
        try:
            if self._reports_wait:
                self.heartbeat(patience=0, timeout=self.beat_seconds)
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
        self.prolonged(sent, left)
        self.paused = bool(reply.paused)
        self.budget_remaining = reply.budget_remaining
        # With a reason the run is to be stopped as well, and the reason says how.
        if reply.stop_reason is not None:
            self.lose(errors.BudgetExhausted(reply.stop_reason, "the run is to be stopped"))
        elif reply.cancel_requested:
            self.lose(errors.Cancelled(CANCEL_REQUESTED, "the run is to be stopped"))

    def _take_progress(self) -> ProgressFields | None:
        progress, self._progress = self._progress, None
        return progress

    @property
    def _reports_wait(self) -> bool:
        return self._progress is not None or self._usage_waits

    def _report(self) -> None:
        self.raise_loss()
        if time.monotonic() >= self._reported_at + REPORT_SECONDS:
            # One that does not get through waits for the next heartbeat: the work goes on.
            with suppress(errors.ConnectionFailed, errors.Unavailable):
                self.heartbeat(patience=0, timeout=self.beat_seconds)
