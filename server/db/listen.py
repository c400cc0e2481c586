"""The LISTEN connection of a process: hints from other processes, never positions."""

from collections.abc import AsyncGenerator

from psycopg import AsyncConnection, sql
from psycopg.conninfo import make_conninfo

# A dead peer is found in about 15 s, where TCP alone would take hours.
KEEPALIVES = {"keepalives_idle": 5, "keepalives_interval": 5, "keepalives_count": 2}


async def listen(conninfo: str, channel: str) -> AsyncGenerator[str | None]:
    """Yields None once it listens (look for what was missed), then each payload as it comes.

    Raises psycopg.OperationalError when the connection cannot be had or breaks.
    """
    steady = make_conninfo(conninfo, **KEEPALIVES)
    connection = await AsyncConnection.connect(steady, autocommit=True)
    async with connection:
        await connection.execute(sql.SQL("listen {}").format(sql.Identifier(channel)))
        yield None
        async for notice in connection.notifies():
            yield notice.payload
