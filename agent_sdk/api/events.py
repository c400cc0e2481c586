"""The log of the workspace."""

from collections.abc import Iterator
from typing import Unpack

from msgspec import Struct

from agent_sdk.fields import EventFilter
from agent_sdk.transport import Transport
from agent_sdk.types import Event


class EventPage(Struct, frozen=True):
    """A page of the log; `latest_sequence` is the newest of all."""

    events: list[Event]
    next_cursor: str | None = None
    latest_sequence: int | None = None


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

    def each(self, *, limit: int = 500, **filters: Unpack[EventFilter]) -> Iterator[Event]:
        """The log up to its end, page by page."""
        cursor: str | None = None
        while True:
            page = self.list(limit=limit, cursor=cursor, **filters)
            yield from page.events
            cursor = page.next_cursor
            if cursor is None:
                return
