"""One thread that keeps every lease of a session alive, also while handlers block."""

import logging
import os
import random
import threading
import time
from collections.abc import Iterable

from agent_sdk import errors
from agent_sdk.api.leases import Leases
from agent_sdk.hold import Hold
from agent_sdk.run_hold import RunHold

log = logging.getLogger("agent_sdk")

BULK_MAX = 100
# Leases that are due within this time are prolonged together.
TOGETHER_SECONDS = 0.2
# The pause after a heartbeat that did not get through.
AGAIN_SECONDS = 1.0


class Heartbeats:
    """Holds added here are kept until they are lost or removed."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._holds: set[Hold] = set()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._process_id = os.getpid()

    def add(self, hold: Hold) -> None:
        """Keep this lease from now on."""
        with self._changed:
            if self._process_id != os.getpid():  # forked: what its parent holds is its parent's
                self._process_id = os.getpid()
                self._holds.clear()
            self._holds.add(hold)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._run, name="worklease-heartbeats", daemon=True
                )
                self._thread.start()
            self._changed.notify()

    def remove(self, hold: Hold) -> None:
        """Keep it no longer."""
        with self._changed:
            self._holds.discard(hold)
            self._changed.notify()

    def wake(self) -> None:
        """Something may be due earlier than it was."""
        with self._changed:
            self._changed.notify()

    def close(self) -> None:
        """Stop the thread; the leases run out unless their runs have ended."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closed and not self._wait_ended():
                    pass
                if self._closed:
                    return
                horizon = time.monotonic() + TOGETHER_SECONDS
                due = [hold for hold in self._holds if hold.next_due() <= horizon]
            self._beat(due)

    def _wait_ended(self) -> bool:
        """Wait until the first lease is due; False when the set has changed meanwhile."""
        if not self._holds:
            self._changed.wait()
            return False
        pause = min(hold.next_due() for hold in self._holds) - time.monotonic()
        if pause <= 0:
            return True
        self._changed.wait(pause)
        return False

    def _beat(self, due: list[Hold]) -> None:
        plain: list[RunHold] = []
        for hold in due:
            if hold.gone and hold.loss is not None:
                self._lost(hold, hold.loss)  # what is given up is not to be kept alive
                continue
            try:
                if not hold.beat_alone() and isinstance(hold, RunHold):
                    plain.append(hold)
            except errors.LeaseLost as loss:
                self._lost(hold, loss)
            except Exception as error:  # noqa: BLE001 - whatever it is, the others live on
                log.warning("heartbeat of %s: %s", hold.id, error)
                self._again([hold])
        for start in range(0, len(plain), BULK_MAX):
            self._beat_together(plain[start : start + BULK_MAX])

    def _beat_together(self, holds: list[RunHold]) -> None:
        sent = time.monotonic()
        items = [{"run_id": hold.id, "claim_token": hold.token} for hold in holds]
        try:
            answer = self._leases.bulk_heartbeat(
                items, patience=0, timeout=min(hold.beat_seconds for hold in holds)
            )
        except Exception as error:  # noqa: BLE001 - as above
            log.warning("heartbeat of %d leases: %s", len(holds), error)
            self._again(holds)
            return
        for hold, reply in zip(holds, answer.results, strict=True):
            if reply.ok:
                hold.renewed(reply, answer.server_time, sent)
            elif reply.error is not None:
                self._refused(hold, errors.make(reply.error))

    def _refused(self, hold: Hold, error: errors.ApiError) -> None:
        loss = errors.as_lost(error)
        if loss is None:
            log.warning("heartbeat of %s: %s", hold.id, error)
            self._again([hold])
        else:
            hold.lose(loss)
            self._lost(hold, loss)

    def _lost(self, hold: Hold, loss: errors.LeaseLost) -> None:
        self.remove(hold)
        if not hold.ended:
            log.warning("lease of %s is lost: %s", hold.id, loss)

    def _again(self, holds: Iterable[Hold]) -> None:
        for hold in holds:
            hold.postpone(min(AGAIN_SECONDS, hold.seconds / 3) * random.uniform(0.5, 1))
