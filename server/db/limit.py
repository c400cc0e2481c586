"""What limits the statements of a connection, also of one that a proxy lends.

PgBouncer in transaction mode lends a connection for one transaction at a time: no setting of the
session and no prepared statement outlives it, so each statement brings its limit along. And it
holds a client for minutes where it has no connection to lend.
"""

import asyncio
import os
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

from psycopg import AsyncConnection, AsyncCursor, OperationalError
from psycopg_pool import PoolTimeout


class Limit(NamedTuple):
    """A setting of every statement, in milliseconds; `lent`: of connections that are lent.

    Raises PoolTimeout for who is lent none within wait_seconds; the way there is broken then.
    """

    setting: str
    milliseconds: int
    lent: bool
    wait_seconds: float

    async def begin(self, connection: AsyncConnection[Any]) -> None:
        """Makes a new connection ready."""
        if self.lent:
            connection.prepare_threshold = None
        else:
            await self._set(connection, "session")

    async def ask(
        self, connection: AsyncConnection[Any], statement: bytes,
        parameters: dict[str, Any] | None, prepare: bool | None = None,
    ) -> AsyncCursor[Any]:  # fmt: skip
        """Runs a statement within the limit, as a transaction of its own."""
        if not self.lent:
            return await connection.execute(statement, parameters, prepare=prepare)
        async with self.transaction(connection):
            return await connection.execute(statement, parameters)

    @asynccontextmanager
    async def transaction(self, connection: AsyncConnection[Any]) -> AsyncGenerator[None]:
        """A transaction whose statements are within the limit."""
        if not self.lent:
            async with connection.transaction():
                yield
            return
        loop = asyncio.get_running_loop()
        patience = loop.call_later(self.wait_seconds, _break, connection)
        try:
            async with connection.transaction():
                patience.cancel()
                await self._set(connection, "local")
                yield
        except OperationalError as error:
            if patience.cancelled() or loop.time() < patience.when():
                raise
            raise PoolTimeout("no connection was lent in time") from error
        finally:
            patience.cancel()

    async def _set(self, connection: AsyncConnection[Any], scope: str) -> None:
        await connection.execute(f"set {scope} {self.setting} = {self.milliseconds}".encode())


def _break(connection: AsyncConnection[Any]) -> None:
    """Ends a statement that nothing else ends: a cancellation would wait for the proxy too."""
    with suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as held:
        held.shutdown(socket.SHUT_RDWR)
