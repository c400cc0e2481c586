"""HTTP/1.1 as uvicorn speaks it, with bounds: a head has a size, and what has begun must go on."""

import asyncio
from typing import Any, Final, cast

from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from server import limits
from server.api.headers import request_id
from server.errors import Problem, envelope_bytes

LINGER_SECONDS: Final = 1.0
NO_HTTP: Final = "The request is not valid HTTP/1.1."


class Protocol(HttpToolsProtocol):
    """One connection."""

    # This server's address as others see it; whoever serves says it.
    public_url = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Waits for a first request as long as for every other."""
        self._refused: Problem | None = None
        self._served: RequestResponseCycle | None = None
        # The last answer is sent: what still comes is not for us.
        self._deaf = False
        # A request has begun and is not yet whole; its head, or that of the next one, is not.
        self._begun, self._in_head = False, True
        # The bytes since it began, or since its body last grew; and those of the first chunk of
        # them, in which the end of another request may stand.
        self._since = self._chunk = self._first = 0
        super().connection_made(cast("asyncio.Transport", transport))
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Parses what came; refuses a head, or what else is no body, that does not end."""
        if self._deaf:
            return
        self._chunk = len(data)
        if self._begun:
            self._since += self._chunk
        super().data_received(data)
        if not self._begun or self.transport.is_closing():
            return
        if self._since - self._first > limits.HEAD_LIMIT_BYTES:
            self._refused = Problem("head_too_large", limit_bytes=limits.HEAD_LIMIT_BYTES)
            self.send_400_response("")
        else:
            self._wait()

    def _wait(self) -> None:
        """A client that sends nothing more is left, as one whose connection is idle."""
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def on_message_begin(self) -> None:
        """A request begins somewhere in this chunk."""
        super().on_message_begin()
        self._begun = True
        self._since = self._first = self._chunk

    def on_headers_complete(self) -> None:
        """The app is called, unless the head is too large."""
        if self._since > limits.HEAD_LIMIT_BYTES:
            size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if size > limits.HEAD_LIMIT_BYTES:
                self._refused = Problem("head_too_large", limit_bytes=limits.HEAD_LIMIT_BYTES)
                raise self._refused
        super().on_headers_complete()
        self._in_head = False
        # What follows a chunked body is no header, whatever it says.
        self.headers = []

    def on_body(self, body: bytes) -> None:
        """The body grows: the request goes on."""
        self._since = self._first = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._begun, self._in_head = False, True
        super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._served = cycle
        super()._start_asgi_task(cycle, app)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tells the request that is being served, which others may have followed since."""
        self._tell()
        super().connection_lost(exc)

    def _tell(self) -> None:
        """Lets who works for this client know that it has gone."""
        last: Any = self.cycle
        for cycle in (self._served, last):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        self._served = None

    def send_400_response(self, msg: str) -> None:
        """Answers what never reached the app in the words of the contract, and hangs up."""
        if not self._may_answer():
            self.transport.close()
            return
        problem = self._refused or Problem("invalid_query", NO_HTTP, parameter=None)
        made = request_id({})
        body = envelope_bytes(problem, made, self.public_url)
        head = (
            b"content-type: application/json\r\nconnection: close\r\n"
            b"content-length: %d\r\nx-request-id: %s\r\n\r\n" % (len(body), made.encode())
        )
        sent: list[Any] = [STATUS_LINE[problem.status]]
        sent += [b"%s: %s\r\n" % pair for pair in self.server_state.default_headers]
        self.transport.write(b"".join([*sent, head, body]))
        self._hang_up()

    def _hang_up(self) -> None:
        """Ends the connection, but hears the client out for a moment.

        Closed while more comes in, it would be reset, and the client might never see the answer.
        """
        self._deaf, self._begun = True, False
        self._tell()
        self.transport.write_eof()
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(LINGER_SECONDS, self.transport.close)

    def _may_answer(self) -> bool:
        """Whether the client would take an answer for that of the request that is wrong."""
        cycle: Any = self.cycle
        if cycle is None:
            return True
        return bool(cycle.response_complete if self._in_head else not cycle.response_started)
