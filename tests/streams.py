"""A subscriber to a stream of events, as a browser would be one."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec

from server.contract.streams import LeaseGone, Paused, SessionReady, StreamEvent, WorkspaceFrame
from tests.client import Client, RefusedError

SIGNALS: dict[str, Any] = {"run_canceled": LeaseGone, "paused": Paused}


class Frame(NamedTuple):
    """One frame: its name, its id if it has one, and its data."""

    event: str
    id: int | None
    data: Any


class Subscriber:
    """Reads frames as they come; comments are left out."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines

    def next(self) -> Frame | None:
        """The next frame; None when the stream has ended."""
        fields: dict[str, str] = {}
        for line in self._lines:
            name, _, value = line.partition(": ")
            if line == "" and "event" in fields:
                return _frame(fields)
            if name:
                fields[name] = value
        return None

    def until(self, event: str) -> list[Frame]:
        """The frames before the next one of this name."""
        frames: list[Frame] = []
        while (frame := self.next()) is not None and frame.event != event:
            frames.append(frame)
        assert frame is not None, f"the stream ended without {event}"
        return frames

    def rest(self) -> list[Frame]:
        """All frames until the stream ends."""
        return list(iter(self.next, None))


@contextmanager
def subscribed(client: Client, path: str, **query: Any) -> Iterator[Subscriber]:
    """A stream, checked to be one; raises RefusedError if it is refused."""
    headers = client.sent()
    with client.http.stream("GET", path, params=query, headers=headers) as answer:
        if answer.status_code >= 400:
            answer.read()
            raise RefusedError(answer)
        assert answer.headers["content-type"] == "text/event-stream"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-accel-buffering"] == "no"
        lines = answer.iter_lines()
        assert [next(lines), next(lines)] == ["retry: 3000", ""]
        yield Subscriber(lines)


def _frame(fields: dict[str, str]) -> Frame:
    event, number, data = fields["event"], fields.get("id"), fields["data"].encode()
    if number is None:
        kind: Any = SessionReady if event == "ready" and b"session_id" in data else Any
        return Frame(event, None, msgspec.json.decode(data, type=kind))
    if event in SIGNALS:
        return Frame(event, int(number), msgspec.json.decode(data, type=SIGNALS[event]))
    told = _event(data)
    assert (told.sequence, told.type) == (int(number), event)
    return Frame(event, told.sequence, told)


def _event(data: bytes) -> StreamEvent | WorkspaceFrame:
    if b'"timeline":' in data[:100]:
        told = msgspec.json.decode(data, type=StreamEvent)
        inner = (told.timeline.sequence, told.timeline.event_type)
        assert inner == (told.sequence, told.type)
        return told
    logged = msgspec.json.decode(data, type=WorkspaceFrame)
    assert (logged.event.sequence, logged.event.event_type) == (logged.sequence, logged.type)
    return logged
