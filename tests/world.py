"""A server with its database: time passes, and loops run, when a test says so."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import psycopg

from server.db import schema
from server.db.pool import Database, Dedicated, open_pool
from server.loops import approvals, digests, expiry, promotion, retention, reviews, starvation
from server.loops.deliveries import Deliveries
from server.net.outbound import Outbound
from server.rules.seals import Seal
from tests import books
from tests.client import Client, connections
from tests.factories import Workspace
from tests.serving import ADMIN_KEY, Server, until

SWEPT_NOW = """
insert into beat values ('sweep', clock_timestamp())
on conflict (name) do update set at = excluded.at
"""
SWEPT_LONG_AGO = """
insert into beat values ('sweep', clock_timestamp() - interval '40 seconds')
on conflict (name) do update set at = excluded.at
"""
LOOKED_NOW = SWEPT_NOW.replace("sweep", "reviews")
LOOKED_LONG_AGO = SWEPT_LONG_AGO.replace("sweep", "reviews")
BLOCKED = """
select count(*) from pg_stat_activity
 where datname = current_database() and wait_event_type = 'Lock'
"""
PASS_ROWS = 100_000


class World:
    """One server without loops of its own: time passes, and loops run, when a test says so."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.http = connections(server.url)
        self.admin = Client(self.http, ADMIN_KEY)
        self.db: books.Connection = psycopg.connect(server.conninfo, autocommit=True)
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self._pool = self._runner.run(
            self._stack.enter_async_context(open_pool(server.conninfo, 2, 5, 60))
        )

        # As a server's loops have it.
        self._loop = Dedicated(server.conninfo)
        self._stack.push_async_callback(self._loop.close)

    def close(self) -> None:
        """Ends the connections; the server goes on."""
        self.http.close()
        self.db.close()
        self._runner.run(self._stack.aclose())
        self._runner.close()

    def workspace(self, **settings: Any) -> Workspace:
        """A new workspace, whose tests meet no others."""
        return Workspace(self, settings)

    def advance(self, seconds: float) -> None:
        """Moves the database's clock forward; it never goes back."""
        schema.move_clock(self.server.conninfo, seconds)

    def sweep(self, rows: int = PASS_ROWS) -> int:
        """One pass of the sweep, as if the one before had been just now; how many leases ended."""
        self.swept_now()
        ended: int = self.run(lambda _: expiry.run_once(self._loop, rows, self._changed))
        return ended

    def swept_now(self) -> None:
        """Pretends that a sweep has just been, so that the next one sees no outage."""
        self.db.execute(SWEPT_NOW)

    def sweep_after_outage(self) -> int:
        """One pass of the sweep, the first in 40 s of real time."""
        self.db.execute(SWEPT_LONG_AGO)
        ended: int = self.run(lambda _: expiry.run_once(self._loop, PASS_ROWS, self._changed))
        return ended

    def promote(self) -> int:
        """One pass of the promotion of due runs; how many came into the queue."""
        promoted: int = self.run(lambda _: promotion.run_once(self._loop, PASS_ROWS, self._changed))
        return promoted

    def forget(self) -> int:
        """One pass of the retention, the digests being kept; how many rows went."""
        self.keep_digests()
        deleted: int = self.run(lambda db: retention.run_once(db, db, self._changed))
        return deleted

    def keep_digests(self) -> int:
        """One pass of what keeps the digests behind the log; how many events it came further."""
        kept: int = self.run(lambda _: digests.run_once(self._loop))
        return kept

    def deliver(self, *former: bytes) -> int:
        """Passes of the deliveries until nothing is due; how many were begun."""
        begun: int = self.run(lambda db: _deliver(db, former))
        return begun

    def expire_approvals(self) -> int:
        """One pass over late approvals; how many it dealt with."""
        done: int = self.run(lambda _: approvals.run_once(self._loop, PASS_ROWS, self._changed))
        return done

    def starve(self, runs: int = PASS_ROWS) -> int:
        """One pass of the starvation loop, so many runs at a time; of how many it told."""
        told: int = self.run(lambda _: starvation.run_once(self._loop, runs, self._changed))
        return told

    def expire_reviews(self) -> int:
        """One pass over late reviews, as if the one before had been just now; how many."""
        self.db.execute(LOOKED_NOW)
        return self._expire_reviews()

    def expire_reviews_after_outage(self) -> int:
        """One pass over late reviews, the first in 40 s of real time."""
        self.db.execute(LOOKED_LONG_AGO)
        return self._expire_reviews()

    def _expire_reviews(self) -> int:
        ended: int = self.run(
            lambda _: reviews.run_once(self._loop, PASS_ROWS, 3, 3, self._changed)
        )
        return ended

    def run(self, service: Callable[[Database], Any]) -> Any:
        """What a service of the server does on this database."""
        return self._runner.run(service(self._pool))

    def until_waiting(self, count: int = 1, at: Client | None = None) -> None:
        """Returns when so many other calls are under way at the server, or at another one."""
        name = "worklease_http_requests_in_flight "
        until(lambda: f"{name}{count + 1}.0" in (at or self.admin).get("/metrics"))

    def until_blocked(self, count: int = 1) -> None:
        """Returns when so many statements on this database wait for a lock."""
        until(lambda: self.db.execute(BLOCKED).fetchone() == (count,))

    def _changed(self, workspace_id: str, offers: int) -> None:
        # As another server's hub tells it.
        self.db.execute("select pg_notify('worklease', %s)", [f"tests {workspace_id} {offers}"])


async def _deliver(db: Database, former: tuple[bytes, ...]) -> int:
    async with delivering(db, *former) as sending:
        count = begun = await sending.run_once()
        while begun:
            await sending.idle()
            begun = await sending.run_once()
            count += begun
        return count


@asynccontextmanager
async def delivering(db: Database, *former: bytes) -> AsyncIterator[Deliveries]:
    """Deliveries as a server makes them, to receivers on this machine too."""
    outbound = Outbound([ip_network("127.0.0.0/8")], allow_http=True, concurrency=16)
    try:
        yield Deliveries(db, db, outbound, Seal([Server.secret, *former]), 16)
    finally:
        await outbound.close()


class Servers:
    """Further server processes on one database."""

    def __init__(self, conninfo: str, directory: Path, **settings: object) -> None:
        self.conninfo, self.directory, self.settings = conninfo, directory, settings
        self.started: list[Process] = []

    def start(self, **settings: object) -> "Process":
        """A further process; it has no loops unless told otherwise."""
        place = self.directory / f"server-{len(self.started)}"
        place.mkdir()
        given = {"WORKLEASE_LOOPS": False, **self.settings, **settings}
        server = Server(self.conninfo, place, **given)
        self.started.append(Process(server, connections(server.url)))
        return self.started[-1]

    def stop(self) -> None:
        """Stops them all."""
        for process in self.started:
            process.http.close()
            if process.server.process.poll() is None:
                process.server.stop()


class Process(NamedTuple):
    """A server process, and connections to it."""

    server: Server
    http: httpx2.Client
