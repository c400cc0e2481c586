"""Where a round is played: a database, and server processes that come and go."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from server.db import embedded, schema
from tests.serving import Server, until

SERVERS = 2
SETTINGS = {"WORKLEASE_SWEEP_SECONDS": 0.2, "WORKLEASE_REVIEW_MAX_EXPIRIES": 100}
Starts = Callable[[str, Path], Server]


def plain(conninfo: str, directory: Path) -> Server:
    """A server process of this very code."""
    return Server(conninfo, directory, **SETTINGS)


class Stage:
    """A database and the servers on it; `data_dir` is where a database of its own is, if it is."""

    def __init__(
        self, conninfo: str, directory: Path, starts: Starts = plain, data_dir: Path | None = None
    ) -> None:
        self.conninfo, self.directory, self.data_dir = conninfo, directory, data_dir
        self._starts, self._count = starts, 0
        self.servers = [self._start() for _ in range(SERVERS)]

    def urls(self) -> list[str]:
        return [server.url for server in self.servers]

    async def kill(self, server: Server) -> None:
        """Kills a server, and starts another one in its place."""
        self.servers.remove(server)
        await asyncio.to_thread(server.kill)
        self.servers.append(await asyncio.to_thread(self._start))
        await asyncio.to_thread(until, self.servers[-1].is_ready)

    async def restart(self, how: signal.Signals) -> None:
        """Sends this to the database, and starts it again."""
        assert self.data_dir is not None
        pid = (self.data_dir / "postgres/cluster/postmaster.pid").read_text().split()[0]
        os.kill(int(pid), how)
        again = await asyncio.to_thread(embedded.join, self.data_dir)
        await asyncio.to_thread(again.leave)

    def close(self) -> None:
        for server in self.servers:
            server.kill()

    def _start(self) -> Server:
        self._count += 1
        place = self.directory / f"server-{self._count}"
        place.mkdir()
        return self._starts(self.conninfo, place)


@contextmanager
def own_stage(directory: Path, starts: Starts = plain) -> Iterator[Stage]:
    """A stage with a database of its own, which may be killed: it is durable."""
    data_dir = directory / "data"
    data_dir.mkdir()
    joined = embedded.join(data_dir)
    try:
        schema.apply(joined.conninfo)
        stage = Stage(joined.conninfo, directory, starts, data_dir)
        try:
            yield stage
        finally:
            stage.close()
    finally:
        joined.leave()
        embedded.discard(data_dir)
