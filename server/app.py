"""The composition root: from settings to a running server process."""

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from importlib.metadata import version
from typing import Any

from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from server.api.claiming import Claiming, Key
from server.api.dispatch import Dispatcher
from server.api.holding import Holding
from server.api.hub import PROBE_EVERY_SECONDS, Hub
from server.api.identity import Identity
from server.api.middleware import with_cors
from server.api.openapi import document_json
from server.api.reviewing import Reviewing
from server.api.routes import ROUTES
from server.api.services import Services
from server.api.settings import SettingsCache
from server.config import Config
from server.db import embedded, schema
from server.db.keyfile import read_or_make, secrets_in_use
from server.db.pool import Database, Dedicated, open_pool
from server.loops import (
    approvals,
    cascade,
    cleanup,
    digests,
    expiry,
    promotion,
    retention,
    reviews,
    starvation,
)
from server.loops.deliveries import Deliveries
from server.loops.every import every
from server.net.outbound import Outbound
from server.rules.ids import new_id
from server.rules.seals import Seal
from server.rules.tokens import new_api_key
from server.store.first_start import admit_admin, any_key, first_start
from server.telemetry import (
    BuildKnown,
    NotificationsMissing,
    PoolMeasured,
    ProbeMeasured,
    ServerDraining,
    ServerStarted,
    ServerStopped,
    occur,
)

POLL_SECONDS = 2.0
LISTEN_AGAIN_SECONDS = 1.0
PROMOTE_SECONDS = 1.0
PROMOTE_BATCH = 1000
APPROVALS_SECONDS = 5.0
APPROVALS_BATCH = 1000
REVIEWS_SECONDS = 5.0
REVIEWS_BATCH = 1000
CASCADE_SECONDS = 1.0
CLEANUP_SECONDS = 60.0
DIGESTS_SECONDS = 1.0
GAUGES_SECONDS = 15.0
DELIVER_SECONDS = 1.0
RETENTION_SECONDS = 60.0
STARVATION_SECONDS = 15.0
STARVATION_BATCH = 200


class App:
    """One server process as an ASGI application."""

    def __init__(self, config: Config) -> None:
        self.state = self
        self._config = config
        self._services: Services | None = None
        self._serve: ASGIApp | None = None
        self._starlette = Starlette(lifespan=self._lifespan)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Requests go straight to the dispatcher; Starlette keeps the life of the process.
        if scope["type"] == "http" and self._serve is not None:
            await self._serve(scope, receive, send)
        else:
            await self._starlette(scope, receive, send)

    def drain(self) -> None:
        """Ends long waits and streams; what is under way is finished."""
        if self._services is not None:
            occur(ServerDraining)
            self._services.draining = True
            self._services.claiming.drain()
            self._services.reviewing.drain()
            self._services.hub.close()

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncGenerator[None]:
        async with AsyncExitStack() as stack:
            services = self._services = await _services(self._config, stack)
            self._serve = with_cors(Dispatcher(ROUTES, services), self._config.cors_origins)
            occur(ServerStarted, url=self._config.url)
            yield
        occur(ServerStopped)


def create_app(config: Config) -> App:
    """The application for uvicorn."""
    return App(config)


async def _services(config: Config, stack: AsyncExitStack) -> Services:
    conninfo = await _database(config, stack)
    direct = config.database_direct_url or conninfo
    lent = direct_lent = await asyncio.to_thread(schema.lent, conninfo)
    if direct != conninfo:
        direct_lent = await asyncio.to_thread(schema.lent, direct)
    occur(BuildKnown, value=1, version=version("worklease"), schema_version=str(schema.EXPECTED))
    db = await stack.enter_async_context(
        open_pool(
            conninfo, config.pool_size, config.db_timeout_seconds,
            config.statement_timeout_seconds, lent=lent,
        )
    )  # fmt: skip
    await _first_start(db, config)

    def connect() -> Dedicated:
        connection = Dedicated(direct, lent=direct_lent)
        stack.push_async_callback(connection.close)
        return connection

    in_use = secrets_in_use(config)
    limits = (config.batch_max, config.db_timeout_seconds)
    claiming = Claiming(db, connect, *limits, _pads(in_use))
    hub = Hub(db, direct, claiming.offered)
    claiming.claimed = hub.changed
    reviewing = Reviewing(db)
    hub.woken = reviewing.changed
    services = Services(
        config=config,
        db=db,
        identity=Identity(db, config.rate_limit, in_use),
        settings=SettingsCache(db),
        claiming=claiming,
        holding=Holding(connect, *limits, hub.changed),
        reviewing=reviewing,
        hub=hub,
        outbound=_outbound(config, stack),
        seal=Seal(in_use),
        secrets=in_use,
        openapi=document_json(),
        notify_age_seconds=hub.probe_age_seconds,
    )
    _start_polls(services, stack)
    if direct_lent:
        occur(NotificationsMissing)
    else:
        _start(stack, "listen", LISTEN_AGAIN_SECONDS, hub.follow_others)
    if config.loops:
        _start_loops(config, services, connect, stack)
    stack.push_async_callback(services.claiming.idle)
    stack.push_async_callback(services.holding.idle)
    return services


async def _database(config: Config, stack: AsyncExitStack) -> str:
    """Where the database is, its schema fit for this server."""
    conninfo = config.database_url
    if conninfo is None:
        server = await asyncio.to_thread(embedded.join, config.data_dir)
        stack.push_async_callback(asyncio.to_thread, server.leave)
        conninfo = server.conninfo
    bring_up = schema.apply if config.migrate else schema.check
    await asyncio.to_thread(bring_up, config.database_direct_url or conninfo)
    return conninfo


async def _first_start(db: Database, config: Config) -> None:
    """Makes the first keys; they stand in files that only their owner can read."""
    if not await any_key(db):
        admin = config.admin_key or _key_file(config, "admin.key")
        await first_start(db, admin, _key_file(config, "agent.key"))
    elif config.admin_key is not None:
        await admit_admin(db, config.admin_key)


def _key_file(config: Config, name: str) -> str:
    key_id = new_id("key", time.time_ns() // 1_000_000)
    return read_or_make(config.data_dir / name, lambda: new_api_key(key_id))


def _pads(in_use: tuple[bytes, ...]) -> Key:
    """The two padded forms of HMAC-SHA256's key, of the present and of the previous secret."""
    pads = [_padded(secret, byte) for secret in (in_use[0], in_use[-1]) for byte in (0x5C, 0x36)]
    return pads[0], pads[1], pads[2], pads[3]


def _padded(secret: bytes, byte: int) -> bytes:
    block = secret if len(secret) <= 64 else hashlib.sha256(secret).digest()
    return bytes(b ^ byte for b in block.ljust(64, b"\0"))


def _start(
    stack: AsyncExitStack, name: str, seconds: float, run_once: Callable[[], Awaitable[Any]]
) -> None:
    task = asyncio.create_task(every(name, seconds, run_once), name=name)
    stack.push_async_callback(_stop, task)


def _start_polls(services: Services, stack: AsyncExitStack) -> None:
    """What every process does for its own waiters and streams."""
    hub = services.hub

    async def poll() -> None:
        hub.poll()
        services.claiming.poll()
        services.reviewing.poll()
        for state, count in services.db.counts().items():
            occur(PoolMeasured, value=count, state=state)
        age = hub.probe_age_seconds()
        if age is not None:
            occur(ProbeMeasured, value=age)

    _start(stack, "poll", POLL_SECONDS, poll)
    _start(stack, "probe", PROBE_EVERY_SECONDS, hub.probe)


def _start_loops(
    config: Config, services: Services, connect: Callable[[], Dedicated], stack: AsyncExitStack
) -> None:
    """What any one server must do for all: none waits for a lock for long, since one workspace
    must not hold up the others."""
    db, changed = services.db, services.hub.changed
    sending = Deliveries(
        db, connect(), services.outbound, services.seal, config.delivery_concurrency
    )
    stack.push_async_callback(sending.stop)
    most_reviews = (REVIEWS_BATCH, config.review_max_attempts, config.review_max_expiries)
    passes: dict[str, tuple[float, Callable[[], Awaitable[Any]]]] = {
        "expiry": (
            config.sweep_seconds,
            partial(expiry.run_once, connect(), config.sweep_batch, changed),
        ),
        "promotion": (
            PROMOTE_SECONDS,
            partial(promotion.run_once, connect(), PROMOTE_BATCH, changed),
        ),
        "approvals": (
            APPROVALS_SECONDS,
            partial(approvals.run_once, connect(), APPROVALS_BATCH, changed),
        ),
        "reviews": (REVIEWS_SECONDS, partial(reviews.run_once, connect(), *most_reviews, changed)),
        "cascade": (CASCADE_SECONDS, partial(cascade.run_once, connect(), changed)),
        "digests": (DIGESTS_SECONDS, partial(digests.run_once, connect())),
        "gauges": (GAUGES_SECONDS, partial(digests.measure, db)),
        "deliveries": (DELIVER_SECONDS, sending.run_once),
        "retention": (RETENTION_SECONDS, partial(retention.run_once, db, connect(), changed)),
        "starvation": (
            STARVATION_SECONDS,
            partial(starvation.run_once, connect(), STARVATION_BATCH, changed),
        ),
        "cleanup": (CLEANUP_SECONDS, partial(cleanup.run_once, db)),
    }
    for name, (seconds, run_once) in passes.items():
        _start(stack, name, seconds, run_once)


def _outbound(config: Config, stack: AsyncExitStack) -> Outbound:
    outbound = Outbound(
        config.bridge_allow_cidrs, config.bridge_allow_http, config.delivery_concurrency
    )
    stack.push_async_callback(outbound.close)
    return outbound


async def _stop(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
