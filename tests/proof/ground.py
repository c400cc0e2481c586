"""What a part of the proof stands on: a PostgreSQL of its own, and a server's world on it."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from server.db import embedded, schema
from tests.serving import Server
from tests.world import World


@contextmanager
def database() -> Iterator[str]:
    """The conninfo of an empty PostgreSQL with the schema in it; it is gone afterwards."""
    data_dir = Path(tempfile.mkdtemp(prefix="worklease-proof-"))
    postgres = embedded.join(data_dir, durable=False)
    try:
        schema.apply(postgres.conninfo)
        yield postgres.conninfo
    finally:
        postgres.leave()
        embedded.discard(data_dir)


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
