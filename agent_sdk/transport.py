"""HTTP: one connection pool, repeats that cannot double work, and errors as exceptions.

A call is repeated with the same body, key and token, so the server can tell a repeat from a
second call: a lost reply costs time and nothing else.
"""

import logging
import os
import random
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from typing import Any, TypeVar
from urllib.parse import quote
from uuid import uuid4

import httpx2
import msgspec

from agent_sdk import errors
from agent_sdk.config import Settings
from agent_sdk.outcome import as_json

log = logging.getLogger("agent_sdk")

T = TypeVar("T")
Query = Mapping[str, Any]

TIMEOUT_SECONDS = 30.0
PATIENCE_SECONDS = 30.0
BACKOFF_FIRST_SECONDS = 0.1
BACKOFF_MAX_SECONDS = 5.0
# Below the 60 s and more after which servers and proxies close an idle connection.
IDLE_CONNECTION_SECONDS = 50.0
# The log tells of a server that stays away once in this time.
TELL_AGAIN_SECONDS = 60.0
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})

_REPEATABLE_STATUS = frozenset({429, 502, 503, 504})
# What a server says that cannot work, or a proxy in its place.
_AWAY_STATUS = frozenset({502, 503, 504})
_NEVER_BETTER = (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError)


def new_key() -> str:
    """An Idempotency-Key for one call and all its repeats."""
    return uuid4().hex


def segment(value: str) -> str:
    """An id as one segment of a path."""
    return quote(value, safe=":")


def backoff(attempt: int) -> float:
    """Seconds to wait before repeat number `attempt` (from 0), jittered."""
    # The exponent is capped, since an outage may last for thousands of attempts.
    pause: float = BACKOFF_FIRST_SECONDS * 2 ** min(attempt, 10)
    return min(BACKOFF_MAX_SECONDS, pause) * random.uniform(0.5, 1)


class Answer(msgspec.Struct, frozen=True):
    """A 2xx answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def decode(self, into: type[T]) -> T:
        """The body as a value; raises ApiError where it is something else."""
        try:
            return msgspec.json.decode(self.body, type=into)
        except msgspec.MsgspecError as error:
            text = f"the server's answer is not as expected: {error}"
            raise errors.ApiError("unexpected_answer", text, status=self.status) from error

    @property
    def replayed(self) -> bool:
        """Whether the server had done this call before, and answered from memory."""
        return self.headers.get("Idempotent-Replayed") == "true"

    @property
    def retry_after(self) -> float | None:
        """Seconds after which asking again makes sense."""
        text = self.headers.get("Retry-After", "")
        return float(text) if text.isdigit() else None


class Reach:
    """Tells the log that calls wait for a server that is away, and when it is back."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._away = False
        self._told_at = -TELL_AGAIN_SECONDS
        self._lock = threading.Lock()

    def missed(self, error: errors.WorkleaseError) -> None:
        """A call is about to be repeated after this error."""
        if isinstance(error, errors.ApiError) and error.status not in _AWAY_STATUS:
            return
        now = time.monotonic()
        with self._lock:
            if now - self._told_at < TELL_AGAIN_SECONDS:
                return
            self._away, self._told_at = True, now
        log.warning("cannot reach %s: %s; trying on", self._url, error.__cause__ or error)

    def made(self) -> None:
        """A call has got through."""
        if not self._away:
            return
        with self._lock:
            was_away, self._away = self._away, False
        if was_away:
            log.info("reached %s again", self._url)


class Transport:
    """Sends calls to one server as one caller; safe to use from several threads."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        headers = {
            "Authorization": f"Bearer {settings.api_key}",
            "Content-Type": "application/json",
            "X-Session-ID": settings.session_id,
        }
        if settings.agent_name:
            headers["X-Agent-Name"] = settings.agent_name
        if settings.workspace:
            headers["X-Workspace"] = settings.workspace
        self._sockets: set[socket.socket] = set()
        self._sockets_lock = threading.Lock()
        self._closed = threading.Event()
        self._reach = Reach(settings.url)
        self._headers = headers
        self._http = self._connections()

    def _connections(self) -> httpx2.Client:
        self._process_id = os.getpid()
        return httpx2.Client(
            base_url=self.settings.url,
            headers=self._headers,
            timeout=TIMEOUT_SECONDS,
            limits=httpx2.Limits(keepalive_expiry=IDLE_CONNECTION_SECONDS),
            # No proxy of the environment leads back to this machine.
            trust_env=httpx2.URL(self.settings.url).host not in LOOPBACK,
        )

    def _own_connections(self) -> httpx2.Client:
        """The connections of this process: one that was forked leaves its parent's alone."""
        if self._process_id != os.getpid():
            self._http = self._connections()
            self._sockets, self._sockets_lock = set(), threading.Lock()
        return self._http

    def call(self, into: type[T], method: str, path: str, **options: Any) -> T:
        """`send`, and decode the answer's body."""
        return self.send(method, path, **options).decode(into)

    def send(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: Query | None = None,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
        patience: float = PATIENCE_SECONDS,
        timeout: float = TIMEOUT_SECONDS,
    ) -> Answer:
        """Make a call, and repeat it for `patience` seconds while that can help.

        `timeout` is for one attempt. Raises ApiError, ConnectionFailed, or NotJson.
        """
        content = None if body is None else bytes(as_json(body))
        sent = dict(headers or {})
        if key:
            sent["Idempotency-Key"] = key
        until = time.monotonic() + patience
        attempt = 0
        while True:
            request = self._own_connections().build_request(
                method, path, content=content, params=_plain(query), headers=sent, timeout=timeout
            )
            answer = self._attempt(request)
            if isinstance(answer, Answer):
                self._reach.made()
                return answer
            pause = max(backoff(attempt), getattr(answer, "retry_after", None) or 0)
            # An attempt that hung used up its time, and its reply may be lost: it is repeated once.
            hung = attempt == 0 and patience >= timeout
            late = time.monotonic() + pause > until
            if isinstance(answer, errors.ConnectionFailed) and hung:
                late = False
            if late or not _worth_repeating(answer):
                raise answer
            if self.pause(pause):
                raise answer
            self._reach.missed(answer)
            attempt += 1

    def stream(
        self, path: str, *, headers: Mapping[str, str], timeout: float
    ) -> AbstractContextManager[httpx2.Response]:
        """Open a streamed GET, whose lines come as they are sent."""
        trace = {"trace": self._remember_socket}
        return self._own_connections().stream(
            "GET", path, headers=dict(headers), timeout=timeout, extensions=trace
        )

    def pause(self, seconds: float) -> bool:
        """Wait; True, and at once, when the transport is closed."""
        return self._closed.wait(seconds)

    def abort(self) -> None:
        """End every call that waits, from another thread; nothing can be sent afterwards."""
        self._closed.set()
        with self._sockets_lock:
            sockets = list(self._sockets)
        for open_socket in sockets:
            with suppress(OSError):  # it may be closed already
                open_socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connections, and end every pause between repeats."""
        self._closed.set()
        self._http.close()

    def _attempt(self, request: httpx2.Request) -> Answer | errors.WorkleaseError:
        if self._closed.is_set():
            return errors.ConnectionFailed("the client is closed")
        request.extensions["trace"] = self._remember_socket
        try:
            response = self._own_connections().send(request)
        except httpx2.TransportError as error:
            if isinstance(error, _NEVER_BETTER):
                raise errors.ConfigError(f"{request.url}: {error}") from error
            failed = errors.ConnectionFailed(f"{request.method} {request.url}: {error!r}")
            failed.__cause__ = error
            return failed
        if response.status_code < 300:  # a redirect has done nothing
            return Answer(response.status_code, response.headers, response.content)
        return errors.from_answer(response.status_code, response.headers, response.content)

    def _remember_socket(self, event: str, info: dict[str, Any]) -> None:
        # TLS moves the connection to another socket object, so both events are of interest.
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            with self._sockets_lock:
                self._sockets = {known for known in self._sockets if known.fileno() != -1}
                self._sockets.add(info["return_value"].get_extra_info("socket"))


def _worth_repeating(error: errors.WorkleaseError) -> bool:
    if isinstance(error, errors.ApiError):
        return error.status in _REPEATABLE_STATUS or error.code == "idempotency_in_progress"
    return True


def _plain(query: Query | None) -> dict[str, Any] | None:
    """The query as the server reads it: no Nones, lists with commas."""
    if not query:
        return None
    joined = {
        name: ",".join(value) if isinstance(value, list | tuple) else value
        for name, value in query.items()
    }
    return {name: value for name, value in joined.items() if value is not None}
