"""What limits the statements of a connection, also of one that a proxy lends.

PgBouncer in transaction mode lends a connection for one transaction at a time: no setting of the
session and no prepared statement outlives it, so each statement brings its limit along.
"""

from typing import Any, NamedTuple

from psycopg import AsyncConnection, AsyncCursor


class Limit(NamedTuple):
    """A setting of every statement, in milliseconds; `lent`: of lent connections."""

    setting: str
    milliseconds: int
    lent: bool

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
        async with connection.transaction():
            await self.go_on(connection)
            return await connection.execute(statement, parameters)

    async def go_on(self, connection: AsyncConnection[Any]) -> None:
        """Tells it to a transaction that has begun."""
        if self.lent:
            await self._set(connection, "local")

    async def _set(self, connection: AsyncConnection[Any], scope: str) -> None:
        await connection.execute(f"set {scope} {self.setting} = {self.milliseconds}".encode())
