"""What the transitions of several nouns answer."""

from typing import NamedTuple


class Changed(NamedTuple):
    """What a transition of a task answers; offers: how many runs it put into the queue."""

    body: str
    version: int
    offers: int


class Created(NamedTuple):
    """What a creation answers; the version is that of a single task."""

    body: str
    version: int | None
    replayed: bool
    offers: int


class Repeatable(NamedTuple):
    """What a transition of a run answers, and whether an earlier call had done it."""

    body: str
    replayed: bool
    offers: int


class Started(NamedTuple):
    """What queueing a run by hand answers."""

    task: str
    run: str | None
    version: int
    replayed: bool
    offers: int
