"""What the server tells a session at once; without it heartbeats tell the same a little later."""

import logging
import threading
import time
from collections.abc import Callable, Iterable

import msgspec
from msgspec import Struct

from agent_sdk import errors, sse
from agent_sdk.run_hold import RunHold
from agent_sdk.transport import Transport

log = logging.getLogger("agent_sdk")

PATH = "/api/agent/stream"
# After a refusal: the server may be of an older version, or have too many streams.
AGAIN_SECONDS = 30.0
STOP_SECONDS = 3.0


class _Held(Struct, frozen=True):
    run_id: str
    fence: int


class _Ready(Struct, frozen=True):
    leases: list[_Held]


class _Gone(Struct, frozen=True):
    run_id: str
    fence: int
    code: str
    reason: str | None = None


class _Paused(Struct, frozen=True):
    paused: bool
    run_id: str | None = None


class Listener:
    """A thread that follows the stream of a session, and tells its holds what they must know."""

    def __init__(
        self,
        transport: Transport,
        holds: Callable[[], Iterable[RunHold]],
        wake: Callable[[], object],
    ) -> None:
        self._transport = transport
        self._holds = holds
        # Called when heartbeats have become due.
        self._wake = wake
        self._thread = threading.Thread(target=self._run, name="worklease-stream", daemon=True)

    def start(self) -> None:
        """Listen from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Listen no longer; the transport cannot be used afterwards."""
        until = time.monotonic() + STOP_SECONDS
        while self._thread.is_alive() and time.monotonic() < until:
            self._transport.abort()
            self._thread.join(0.05)

    def _run(self) -> None:
        while True:
            try:
                for frame in sse.follow(self._transport, PATH):
                    self._hear(frame)
                return
            except errors.NotFound:
                log.info("the server has no stream for sessions: heartbeats tell what happens")
                return
            except (errors.WorkleaseError, msgspec.MsgspecError) as error:
                log.info("stream of the session: %s", error)
            if self._transport.pause(AGAIN_SECONDS):
                return

    def _hear(self, frame: sse.Frame) -> None:
        if frame.event == "run_canceled":
            self._lost(msgspec.json.decode(frame.data, type=_Gone))
        elif frame.event == "paused":
            news = msgspec.json.decode(frame.data, type=_Paused)
            for hold in self._holds():
                if news.run_id == hold.id:
                    hold.paused = news.paused
        elif frame.event == "ready":
            held = msgspec.json.decode(frame.data, type=_Ready).leases
            self._ask_about(held)
        elif frame.event == "resync":
            self._ask_about([])

    def _lost(self, news: _Gone) -> None:
        for hold in self._holds():
            if (hold.id, hold.fence) == (news.run_id, news.fence):
                told = errors.Diagnostic(news.code, news.reason or "the lease was ended")
                hold.lose(errors.lost(errors.make(errors.Envelope(told))))

    def _ask_about(self, held: list[_Held]) -> None:
        """Let heartbeats find out about all but these."""
        known = {(lease.run_id, lease.fence) for lease in held}
        for hold in self._holds():
            if (hold.id, hold.fence) not in known:
                hold.hasten()
        self._wake()
