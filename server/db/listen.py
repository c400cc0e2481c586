"""The LISTEN connection of a process: hints from other processes, never positions."""

from collections.abc import AsyncGenerator

from psycopg import AsyncConnection, sql

from server.db.steady import steady


async def listen(conninfo: str, channel: str) -> AsyncGenerator[str | None]:
    """Yields None once it listens (look for what was missed), then each payload as it comes.

    Raises psycopg.OperationalError when the connection cannot be had or breaks.
    """
    connection = await AsyncConnection.connect(steady(conninfo), autocommit=True)
    async with connection:
        await connection.execute(sql.SQL("listen {}").format(sql.Identifier(channel)))
        yield None
        async for notice in connection.notifies():
            yield notice.payload
