"""The worker: claims runs or reviews, gives them to a handler, and hands in what comes of it."""

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
from agent_sdk.duties import Duty, Found, Held, ReviewDuty, TaskDuty
from agent_sdk.fields import ClaimFields, Priority
from agent_sdk.listen import Listener
from agent_sdk.loop import Loop
from agent_sdk.outcome import NotJson
from agent_sdk.run_hold import RunHold
from agent_sdk.signals import on_stop_signals
from agent_sdk.transport import new_key

log = logging.getLogger("agent_sdk")

H = TypeVar("H", bound=Callable[..., Any])

GRACE_SECONDS = 30.0
# How long the last calls of a stopping worker may take when its grace is over.
HURRY_SECONDS = 3.0
# How long handlers have to notice that their lease was given back.
UNWIND_SECONDS = 1.0
AGAIN_SECONDS = 1.0
STOPPED_NOTE = "the worker was stopped before the work was done"


class Worker:
    """Runs a handler on what it claims, `concurrency` at a time, until it is told to stop.

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
        self._duty: Duty[Any] = TaskDuty(self.client, self._fields)
        self._loop = Loop()
        # Reentrant and therefore usable from signal handlers, unlike locks and events.
        self._inbox: queue.SimpleQueue[Literal["stop", "changed"]] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._leases: set[Held] = set()
        self._busy = 0
        self._stopping = False
        self._asking: tuple[str, int] | None = None
        self._crash: BaseException | None = None

    def task(self, handler: H) -> H:
        """Register the handler of tasks; sync ones run in threads, async ones in one event loop."""
        return self._take(handler, TaskDuty(self.client, self._fields))

    def review(self, handler: H) -> H:
        """Register the handler of reviews, instead of one of tasks; it returns a Verdict."""
        return self._take(handler, ReviewDuty(self.client, self._fields))

    def stop(self) -> None:
        """Stop as on SIGTERM; the second call ends the grace. Callable from anywhere."""
        self._inbox.put("stop")

    def run(self) -> None:
        """Work until stopped, once; raises what made further claims impossible."""
        if self._handler is None:
            raise ValueError("the worker has no handler: @worker.task or @worker.review makes one")
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

    def _take(self, handler: H, duty: Duty[Any]) -> H:
        if self._handler is not None:
            raise ValueError("the worker has its handler already")
        self._handler, self._duty = handler, duty
        return handler

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Within, leases that are taken away end at once; heartbeats would tell it later."""
        if not self._duty.listens:
            yield
            return
        with self.client.again() as ear:
            listener = Listener(ear.transport, self._holds, self.client.heartbeats.wake)
            listener.start()
            try:
                yield
            finally:
                listener.stop()

    def _holds(self) -> list[RunHold]:
        with self._changed:
            holds = [lease.hold for lease in self._leases]
        return [hold for hold in holds if isinstance(hold, RunHold)]

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
        began = time.monotonic()
        self._asking = (new_key(), free)
        try:
            found = self._ask(claimer, FOR_EVER)
        except errors.ApiError as refusal:
            if refusal.status < 500 and not isinstance(refusal, errors.Conflict):
                raise
            log.warning("claim: %s", refusal)
            claimer.transport.pause(AGAIN_SECONDS)
            return
        self._asking = None
        for lease in found.leases:
            self._start(lease)
        # An empty answer before the time is the server's wish to be asked later.
        if not found.leases and time.monotonic() - began < max(self._wait_seconds, 1):
            claimer.transport.pause(found.retry_after or AGAIN_SECONDS)

    def _ask(self, claimer: Client, patience: float) -> Found[Any]:
        key, free = self._asking or (new_key(), 1)
        return self._duty.claim(
            claimer, key=key, free=free, wait_seconds=self._wait_seconds, patience=patience
        )

    def _start(self, lease: Held) -> None:
        with self._changed:
            self._busy += 1
        threading.Thread(
            target=self._work, args=[lease], name=f"worklease-{lease.hold.id}", daemon=True
        ).start()

    def _work(self, lease: Held) -> None:
        """Work on what was claimed, and on what is claimed with its completion."""
        try:
            following: Held | None = lease
            while following is not None:
                following = self._work_on(following)
            self._rest(self._duty.rest_seconds())
        except Exception:  # the top loop: the slot must come free whatever happened
            log.exception("%s", lease.hold.id)
        finally:
            with self._changed:
                self._busy -= 1
                self._changed.notify_all()
            self._inbox.put("changed")

    def _work_on(self, lease: Held) -> Held | None:
        with self._changed:
            self._leases.add(lease)
            stopping = self._stopping
        self.client.heartbeats.add(lease.hold)
        try:
            if stopping:
                lease.release(STOPPED_NOTE, patience=HURRY_SECONDS)
                return None
            return self._handle(lease)
        except (errors.WorkleaseError, NotJson) as error:
            log.warning("%r: %s", lease, error)
            return None
        finally:
            self.client.heartbeats.remove(lease.hold)
            with self._changed:
                self._leases.discard(lease)

    def _handle(self, lease: Held) -> Held | None:
        try:
            result = self._call(lease)
        except BaseException as error:  # SystemExit too: in a thread it would just vanish
            if not lease.hold.gone and not lease.ended:
                if not isinstance(error, errors.Outcome):
                    log.warning("%r failed", lease, exc_info=error)
                self._duty.fail(lease, error)
            return None
        if lease.hold.gone or lease.ended:
            return None
        following: Held | None = self._duty.finish(lease, result, more=not self._stopping)
        return following

    def _call(self, lease: Held) -> Any:
        handler = self._handler
        if handler is None:
            raise ValueError("the worker has no handler")
        awaits = inspect.iscoroutinefunction(handler)
        context = self._duty.context(lease, awaits=awaits)
        return self._loop.run(handler, context, lease.hold) if awaits else handler(context)

    def _rest(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopping, timeout=seconds)

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
        try:
            if self._duty.has_claimed(self._asking[0], HURRY_SECONDS):
                for lease in self._ask(self.client, HURRY_SECONDS).leases:
                    _release(lease)
        except errors.WorkleaseError as error:
            log.warning("claims that were not seen are left to expire: %s", error)


def _release(lease: Held) -> None:
    try:
        lease.hold.lose(errors.LeaseLost("lease_released", STOPPED_NOTE))
        if lease.hold.loss is None:
            return  # its end is on the way, and says more than that it is given back
        lease.release(STOPPED_NOTE, patience=HURRY_SECONDS)
    except errors.WorkleaseError as error:
        log.warning("%r is left to expire: %s", lease, error)
