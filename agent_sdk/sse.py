"""Server-sent events: a parser for the lines, and a follower that survives broken connections."""

import time
from collections.abc import Iterable, Iterator

import httpx2
import msgspec

from agent_sdk import errors
from agent_sdk.transport import Transport, backoff

# The server sends a comment every 15 s: a connection that is silent for longer is dead.
SILENCE_SECONDS = 20.0


class Frame(msgspec.Struct, frozen=True):
    """One event of a stream; `id` is None for frames that are not of the log."""

    event: str
    data: str
    id: int | None = None


class _Control(msgspec.Struct, frozen=True):
    sequence: int


def lines_of(chunks: Iterable[bytes]) -> Iterator[str]:
    """The lines of a stream: a line feed ends one, and none of the other marks a text may hold."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.decode("utf-8", "replace").removesuffix("\r")


def parse(lines: Iterable[str]) -> Iterator[Frame | None]:
    """Turn the lines of a stream into frames; None for each comment, that is, a sign of life."""
    event, identity = "message", None
    data: list[str] = []
    for line in lines:
        if line.startswith(":"):
            yield None
            continue
        if not line:
            if data:
                yield Frame(event, "\n".join(data), identity)
            event, identity, data = "message", None, []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            event = value
        elif name == "data":
            data.append(value)
        elif name == "id" and value.isdigit():
            identity = int(value)


def follow(
    transport: Transport, path: str, *, after: int | None = None, until: float | None = None
) -> Iterator[Frame]:
    """Yield the frames of a stream from the last one seen, over as many connections as it takes.

    Ends at the monotonic time `until`. Raises ApiError when the server refuses the stream.
    """
    failures = 0
    while until is None or time.monotonic() < until:
        headers = {"Accept": "text/event-stream"}
        if after is not None:
            headers["Last-Event-ID"] = str(after)
        try:
            for frame in _connection(transport, path, headers=headers, until=until):
                failures = 0
                after = _position(frame, after)
                yield frame
        except httpx2.TransportError:
            pass  # the next connection goes on from `after`
        pause = backoff(failures)
        if transport.pause(pause if until is None else min(pause, _left(until))):
            return
        failures += 1


def _connection(
    transport: Transport, path: str, *, headers: dict[str, str], until: float | None
) -> Iterator[Frame]:
    # A read that waits can only be ended by its own timeout, which is fixed when the connection
    # is opened: near the end it is opened anew with a shorter one.
    timeout = SILENCE_SECONDS if until is None else min(SILENCE_SECONDS, _left(until))
    with transport.stream(path, headers=headers, timeout=timeout) as response:
        if response.status_code >= 400:
            raise errors.from_answer(response.status_code, response.headers, response.read())
        for frame in parse(lines_of(response.iter_bytes())):
            if frame is not None:
                yield frame
            if until is not None and _left(until) < timeout - 1:
                return


def _left(until: float) -> float:
    return max(0.05, until - time.monotonic())


def _position(frame: Frame, after: int | None) -> int | None:
    if frame.id is not None:
        return frame.id
    if frame.event in ("ready", "resync"):
        return msgspec.json.decode(frame.data, type=_Control).sequence
    return after
