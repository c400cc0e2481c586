"""The worker: claims runs, gives them to a handler, and hands in what comes of them."""

import inspect
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

from agent_sdk import errors
from agent_sdk.client import FOR_EVER, WAIT_SECONDS, Client
from agent_sdk.fields import ClaimFields, Priority
from agent_sdk.hold import Hold
from agent_sdk.lease import Lease
from agent_sdk.listen import Listener
from agent_sdk.loop import Loop
from agent_sdk.outcome import Ending, NotJson, ending_of
from agent_sdk.signals import on_stop_signals
from agent_sdk.transport import new_key
from agent_sdk.types import Claim

log = logging.getLogger("agent_sdk")

H = TypeVar("H", bound=Callable[..., Any])

GRACE_SECONDS = 30.0
# How long the last calls of a stopping worker may take when its grace is over.
HURRY_SECONDS = 3.0
# How long handlers have to notice that their lease was given back.
UNWIND_SECONDS = 1.0
AGAIN_SECONDS = 1.0
BULK_MAX = 100
STOPPED_NOTE = "the worker was stopped before the work was done"


class Worker:
    """Runs a handler on claimed work, `concurrency` runs at a time, until it is told to stop.

    SIGTERM and SIGINT stop it: no new claims, `grace_seconds` for what runs, then the rest is
    given back with a note. A second signal ends the grace at once.
    """

    def __init__(
        self,
        *,
        capabilities: Sequence[str] = (),
        concurrency: int = 1,
        lease_seconds: int | None = None,
        wait_seconds: int = WAIT_SECONDS,
        channel: str | None = None,
        peer_id: str | None = None,
        priority_min: int | Priority = 0,
        grace_seconds: float = GRACE_SECONDS,
        client: Client | None = None,
    ) -> None:
        if concurrency < 1:
            raise ValueError("concurrency is at least 1")
        self.client = client or Client()
        self._owns_client = client is None
        self.concurrency = concurrency
        self.grace_seconds = grace_seconds
        self._fields: ClaimFields = {
            "capabilities": list(capabilities),
            "priority_min": priority_min,
            "channel": channel,
            "peer_id": peer_id,
            "lease_seconds": lease_seconds,
        }
        self._wait_seconds = wait_seconds
        self._handler: Callable[..., Any] | None = None
        self._loop = Loop()
        # Reentrant and therefore usable from signal handlers, unlike locks and events.
        self._inbox: queue.SimpleQueue[Literal["stop", "changed"]] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._leases: set[Lease] = set()
        self._busy = 0
        self._stopping = False
        self._asking: tuple[str, ClaimFields] | None = None
        self._crash: BaseException | None = None

    def task(self, handler: H) -> H:
        """Register the handler; sync ones run in threads, async ones in one event loop."""
        if self._handler is not None:
            raise ValueError("the worker has its handler already")
        self._handler = handler
        return handler

    def stop(self) -> None:
        """Stop as on SIGTERM; the second call ends the grace. Callable from anywhere."""
        self._inbox.put("stop")

    def run(self) -> None:
        """Work until stopped, once; raises what made further claims impossible."""
        if self._handler is None:
            raise ValueError("the worker has no handler: decorate one with @worker.task")
        settings = self.client.settings
        log.info(
            "worker starts: %s, agent %s, workspace %s",
            settings.url, settings.agent_name or "of the key", settings.workspace or "of the key",
        )  # fmt: skip
        with self.client.again() as claimer, self._listening(), on_stop_signals(self.stop):
            thread = threading.Thread(
                target=self._claim_loop, args=[claimer], name="worklease-claims", daemon=True
            )
            thread.start()
            while self._inbox.get() != "stop":
                pass
            self._stop_claims(claimer, thread)
            self._wait_for_work()
            self._give_back()
            self._give_back_unseen()
        self._loop.close()
        if self._owns_client:
            self.client.close()
        if self._crash is not None:
            raise self._crash

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Within, leases that are taken away end at once; heartbeats would tell it later."""
        with self.client.again() as ear:
            listener = Listener(ear.transport, self._holds, self.client.heartbeats.wake)
            listener.start()
            try:
                yield
            finally:
                listener.stop()

    def _holds(self) -> list[Hold]:
        with self._changed:
            return [lease.hold for lease in self._leases]

    def _claim_loop(self, claimer: Client) -> None:
        try:
            while (free := self._free_slots()) > 0:
                self._claim(claimer, free)
        except Exception as error:  # noqa: BLE001 - the top loop: it is raised by run()
            if not self._stopping:
                self._crash = error
                self.stop()

    def _free_slots(self) -> int:
        """Wait for a slot; 0 when the worker stops."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or self._busy < self.concurrency)
            return 0 if self._stopping else self.concurrency - self._busy

    def _claim(self, claimer: Client, free: int) -> None:
        fields: ClaimFields = {
            **self._fields,
            "wait_seconds": self._wait_seconds,
            "max_runs": min(free, BULK_MAX),
        }
        began = time.monotonic()
        self._asking = (new_key(), fields)
        try:
            claimed = claimer.leases.claim_next(key=self._asking[0], patience=FOR_EVER, **fields)
        except errors.ApiError as refusal:
            if refusal.status < 500 and not isinstance(refusal, errors.Conflict):
                raise
            log.warning("claim: %s", refusal)
            claimer.transport.pause(AGAIN_SECONDS)
            return
        self._asking = None
        for claim in claimed.claims:
            self._start(claim)
        # An empty answer before the time is the server's wish to be asked later.
        if not claimed.claims and time.monotonic() - began < max(self._wait_seconds, 1):
            claimer.transport.pause(claimed.retry_after or AGAIN_SECONDS)

    def _start(self, claim: Claim) -> None:
        with self._changed:
            self._busy += 1
        threading.Thread(
            target=self._work, args=[claim], name=f"worklease-{claim.run.id}", daemon=True
        ).start()

    def _work(self, claim: Claim) -> None:
        """Work on a run, and on those that are claimed with its completion."""
        try:
            following: Claim | None = claim
            while following is not None:
                following = self._work_on(Lease(self.client, following, self.client.heartbeats))
        except Exception:  # the top loop: the slot must come free whatever happened
            log.exception("%s", claim.run.id)
        finally:
            with self._changed:
                self._busy -= 1
                self._changed.notify_all()
            self._inbox.put("changed")

    def _work_on(self, lease: Lease) -> Claim | None:
        with self._changed:
            self._leases.add(lease)
            stopping = self._stopping
        self.client.heartbeats.add(lease.hold)
        try:
            if stopping:
                lease.end(Ending.released(STOPPED_NOTE), patience=HURRY_SECONDS)
                return None
            return self._handle(lease)
        except (errors.WorkleaseError, NotJson) as error:
            log.warning("%r: %s", lease, error)
            return None
        finally:
            self.client.heartbeats.remove(lease.hold)
            with self._changed:
                self._leases.discard(lease)

    def _handle(self, lease: Lease) -> Claim | None:
        try:
            result = self._call(lease)
        except BaseException as error:  # SystemExit too: in a thread it would just vanish
            if not lease.hold.gone and not lease.ended:
                if not isinstance(error, errors.Outcome):
                    log.warning("%r failed", lease, exc_info=error)
                lease.end(ending_of(error))
            return None
        if lease.hold.gone or lease.ended:
            return None
        return lease.complete(result, claim_next=None if self._stopping else self._fields)

    def _call(self, lease: Lease) -> Any:
        handler = self._handler
        if handler is None:
            raise ValueError("the worker has no handler")
        if inspect.iscoroutinefunction(handler):
            return self._loop.run(handler, lease)
        return handler(lease)

    def _stop_claims(self, claimer: Client, thread: threading.Thread) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        until = time.monotonic() + HURRY_SECONDS
        while thread.is_alive() and time.monotonic() < until:
            claimer.transport.abort()
            thread.join(0.05)

    def _wait_for_work(self) -> None:
        until = time.monotonic() + self.grace_seconds
        while self._busy:
            try:
                if self._inbox.get(timeout=max(0.0, until - time.monotonic())) == "stop":
                    return
            except queue.Empty:
                return

    def _give_back(self) -> None:
        """Release what is not done, all at once, and tell its handlers."""
        with self._changed:
            leases = list(self._leases)
        threads = [threading.Thread(target=_release, args=[lease], daemon=True) for lease in leases]
        for thread in threads:
            thread.start()
        until = time.monotonic() + HURRY_SECONDS
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        with self._changed:
            self._changed.wait_for(lambda: not self._busy, timeout=UNWIND_SECONDS)

    def _give_back_unseen(self) -> None:
        """Release what the claim that was broken off brought, if it came to that."""
        if self._asking is None:
            return
        key, fields = self._asking
        try:
            if not self.client.leases.list(limit=1).leases:
                return
            claimed = self.client.leases.claim_next(key=key, patience=HURRY_SECONDS, **fields)
            for claim in claimed.claims:
                _release(Lease(self.client, claim, self.client.heartbeats))
        except errors.WorkleaseError as error:
            log.warning("claims that were not seen are left to expire: %s", error)


def _release(lease: Lease) -> None:
    try:
        lease.hold.lose(errors.LeaseLost("lease_released", STOPPED_NOTE))
        lease.end(Ending.released(STOPPED_NOTE), patience=HURRY_SECONDS)
    except errors.WorkleaseError as error:
        log.warning("%r is left to expire: %s", lease, error)
