"""The log of the workspace."""

from collections.abc import Iterator, Sequence
from typing import Unpack
from urllib.parse import urlencode

import msgspec
from msgspec import Struct

from agent_sdk import errors, sse
from agent_sdk.fields import EventFilter
from agent_sdk.transport import Transport
from agent_sdk.types import Event


class EventPage(Struct, frozen=True):
    """A page of the log; `latest_sequence` is the newest of all."""

    events: list[Event]
    next_cursor: str | None = None
    latest_sequence: int | None = None


class _Logged(Struct, frozen=True):
    event: Event


class Events:
    """`client.events`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(
        self, *, limit: int = 50, cursor: str | None = None, **filters: Unpack[EventFilter]
    ) -> EventPage:
        """A page of the log, oldest first unless `order` says otherwise."""
        query = {**filters, "limit": limit, "cursor": cursor}
        return self._transport.call(EventPage, "GET", "/api/events", query=query)

    def stream(
        self,
        *,
        after_sequence: int | None = None,
        event_type: str | Sequence[str] | None = None,
        task_id: str | None = None,
        until: float | None = None,
    ) -> Iterator[Event]:
        """The log as it grows, from now or after `after_sequence`, until monotonic time `until`.

        Goes on over broken connections. Raises Unavailable when events were missed that the
        server no longer has: read the state again.
        """
        types = [event_type] if isinstance(event_type, str) else event_type
        given = {"event_type": ",".join(types) if types else None, "task_id": task_id}
        told = urlencode({name: value for name, value in given.items() if value is not None})
        path = "/api/observe/stream" + (f"?{told}" if told else "")
        for frame in sse.follow(self._transport, path, after=after_sequence, until=until):
            if frame.event == "resync":
                raise errors.Unavailable("resync", "events were missed", body=frame.data.encode())
            if frame.id is not None:
                yield msgspec.json.decode(frame.data, type=_Logged).event

    def each(self, *, limit: int = 500, **filters: Unpack[EventFilter]) -> Iterator[Event]:
        """The log up to its end, page by page."""
        cursor: str | None = None
        while True:
            page = self.list(limit=limit, cursor=cursor, **filters)
            yield from page.events
            cursor = page.next_cursor
            if cursor is None:
                return
