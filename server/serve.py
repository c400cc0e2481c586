"""The server's processes: one, or several on one socket, drained when told to stop."""

import asyncio
import contextlib
import errno
import gc
import multiprocessing
import signal
import socket
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from multiprocessing.synchronize import Event
from typing import cast

import uvicorn
from uvicorn.config import STARTUP_FAILURE

from server.config import Config, ConfigError

BACKLOG = 2048
# Longer than the pauses of a busy agent, so that its connection is there when it comes back.
KEEP_ALIVE_SECONDS = 75
# A worker that dies sooner than this after its start waits before it is replaced.
RESTART_SECONDS = 1.0
# Requests leave next to no cycles, but collecting at Python's own pace takes a fifth of the
# throughput: what lives as long as the process is set apart, and young objects are looked at less.
YOUNG_OBJECTS = 20_000

SPAWN = multiprocessing.get_context("spawn")


class Worker(uvicorn.Server):
    """One process: tells the app to drain before it waits for the open requests."""

    def __init__(
        self, settings: uvicorn.Config, drain: Callable[[], None], served: Event | None
    ) -> None:
        super().__init__(settings)
        self._drain, self._served = drain, served

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts to serve, and from then on ends with its supervisor, however that ends."""
        parent = multiprocessing.parent_process()
        if parent is not None:
            asyncio.get_running_loop().add_reader(parent.sentinel, self._orphaned, parent.sentinel)
        await super().startup(sockets)
        gc.collect()
        gc.freeze()
        gc.set_threshold(YOUNG_OBJECTS, 20, 50)
        if self._served is not None:
            self._served.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends long waits and streams first, for they would outlast the drain."""
        self._drain()
        await super().shutdown(sockets)

    def _orphaned(self, sentinel: int) -> None:
        asyncio.get_running_loop().remove_reader(sentinel)
        self.should_exit = True


def stop_on_terminate() -> None:
    """Makes SIGTERM unwind this process as Ctrl-C does, so that it leaves its database."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def bind(config: Config) -> socket.socket:
    """The listening socket that all processes share; raises ConfigError."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as wrong:
        raise ConfigError(f"WORKLEASE_HOST: {config.host}: {wrong.strerror}") from None
    try:
        return socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as wrong:
        if wrong.errno == errno.EADDRINUSE:
            taken = f"WORKLEASE_PORT: {config.port} on {config.host} is taken"
            raise ConfigError(f"{taken}; is another server running?") from None
        where = f"WORKLEASE_HOST and WORKLEASE_PORT: {config.host}, {config.port}"
        raise ConfigError(f"{where}: {wrong.strerror}") from None


def work(config: Config, listener: socket.socket, served: Event | None = None) -> None:
    """Serves in this process until SIGTERM or SIGINT; leaves by SystemExit if it cannot start."""
    # Late, because the metrics choose their storage when they are imported.
    from server import telemetry
    from server.app import create_app
    from server.protocol import Protocol

    class Served(Protocol):
        public_url = config.url

    telemetry.configure(config.log_level, config.log_format)
    app = create_app(config)
    settings = uvicorn.Config(
        app, loop="uvloop", http=Served, ws="none", lifespan="on", log_config=None,
        access_log=False, server_header=False, timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=config.shutdown_seconds, backlog=BACKLOG,
        proxy_headers=bool(config.trusted_proxies),
        forwarded_allow_ips=[str(network) for network in config.trusted_proxies],
    )  # fmt: skip
    stop_on_terminate()
    # uvicorn raises the signal again when it is done; a normal stop is no failure.
    with contextlib.suppress(KeyboardInterrupt):
        Worker(settings, app.state.drain, served).run(sockets=[listener])


def supervise(config: Config, listener: socket.socket, died: Callable[[int], None]) -> int:
    """Keeps config.workers processes serving until told to stop; the exit status."""
    workers: dict[int, tuple[SpawnProcess, float]] = {}
    served = SPAWN.Event()
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True
        for process, _started in workers.values():
            process.terminate()

    def begin() -> None:
        process = SPAWN.Process(target=work, args=(config, listener, served))
        process.start()
        workers[process.sentinel] = (process, time.monotonic())
        if stopping:
            process.terminate()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    for _ in range(config.workers):
        begin()
    failed = False
    while workers:
        for sentinel in wait(list(workers)):
            process, started = workers.pop(cast("int", sentinel))
            died(process.pid or 0)
            if not served.is_set() and not stopping:
                # None has ever served: what is wrong will be as wrong at the next try.
                failed = True
                stop()
            if not stopping:
                # Nothing ever becomes ready here: the wait is the pause.
                wait([], max(0.0, started + RESTART_SECONDS - time.monotonic()))
                begin()
    return STARTUP_FAILURE if failed else 0
