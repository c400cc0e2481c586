"""What a part of the proof stands on: a PostgreSQL of its own, and a server's world on it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from server.db import schema
from tests.serving import Server, throwaway_postgres
from tests.world import World


@contextmanager
def database() -> Iterator[str]:
    """The conninfo of an empty PostgreSQL with the schema in it; it is gone afterwards."""
    with throwaway_postgres() as conninfo:
        schema.apply(conninfo)
        yield conninfo


@contextmanager
def world_on(conninfo: str, directory: Path, **settings: object) -> Iterator[World]:
    """A server without loops on this database, and what moves its time."""
    directory.mkdir(parents=True, exist_ok=True)
    server = Server(conninfo, directory, **{"WORKLEASE_LOOPS": False, **settings})
    world = World(server)
    try:
        yield world
    finally:
        world.close()
        server.stop()
