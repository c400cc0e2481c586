"""The way to the database: one statement a call, errors turned into problems in one place."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol

import msgspec
import psycopg
from psycopg import AsyncConnection, AsyncCursor
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from server.db.limit import Limit
from server.db.steady import steady
from server.errors import Problem
from server.telemetry import PoolWaited, occur

REFUSED: Final = "WL001"
# Rolled back by the server for the sake of somebody else: repeated here, unseen by the caller.
REPEATED: Final = ("40P01", "40001")
REPEATS: Final = 3
# Waited too long for a lock, or ran too long: nothing was changed.
LOCKED: Final = "55P03"
STOPPED: Final = "57014"
UNAVAILABLE: Final = ("57P01", "57P02", "57P03", "53300")
LOCK_MILLISECONDS: Final = 100
CONNECT_SECONDS: Final = 5

Row = tuple[Any, ...]


class ConnectionLost(Problem):
    """The connection broke during a statement: whether it was committed is unknown."""

    def __init__(self) -> None:
        super().__init__("database_unavailable", retry_after_seconds=1)


class Busy(Problem):
    """A lock was held too long by somebody else; nothing was changed, later it may go."""

    def __init__(self) -> None:
        super().__init__(
            "database_unavailable",
            "Another transaction holds what this call needs; nothing was changed.",
            retry_after_seconds=1,
        )


class Fault(Exception):  # noqa: N818 - the word of the callers
    """A statement failed for a reason that is the server's own; the text is for the log."""


class Statements:
    """What can be asked of one connection; without a limit where its transaction has one."""

    def __init__(self, connection: AsyncConnection[Row], limit: Limit | None = None) -> None:
        self._connection, self._limit = connection, limit

    async def many(self, statement: str, /, **parameters: Any) -> list[Row]:
        """The rows of a statement, which may be none."""
        cursor = await self._execute(statement, parameters)
        return await cursor.fetchall()

    async def one(self, statement: str, /, **parameters: Any) -> Row | None:
        """The first row of a statement."""
        cursor = await self._execute(statement, parameters)
        return await cursor.fetchone()

    async def run(self, statement: str, /, **parameters: Any) -> int:
        """Runs a statement; how many rows it touched."""
        return (await self._execute(statement, parameters)).rowcount

    async def _execute(self, statement: str, parameters: dict[str, Any]) -> AsyncCursor[Row]:
        with problems(self._connection):
            if self._limit is None:
                return await self._connection.execute(statement.encode(), parameters or None)
            return await self._limit.ask(self._connection, statement.encode(), parameters or None)


class problems:  # noqa: N801 - reads as a statement: with problems(connection)
    """Turns what psycopg raises into what the callers of this server are told."""

    def __init__(self, connection: AsyncConnection[Row] | None) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if not isinstance(error, psycopg.Error):
            return
        state = error.sqlstate
        if state == REFUSED:
            evidence = msgspec.json.decode(error.diag.message_detail or "{}")
            raise Problem(error.diag.message_primary or "", **evidence) from None
        broken = self._connection is not None and self._connection.broken
        if broken and not isinstance(error, PoolTimeout):
            raise ConnectionLost from error
        if state in REPEATED:
            return
        if state == LOCKED:
            raise Busy from error
        if state == STOPPED:
            words = "The database stopped this call because it took too long; nothing was changed."
            raise Problem("database_unavailable", words, retry_after_seconds=1) from error
        if state in UNAVAILABLE or isinstance(error, (PoolTimeout, psycopg.OperationalError)):
            raise Problem("database_unavailable", retry_after_seconds=1) from error
        raise Fault(str(error)) from error


class Asked(Protocol):
    """Where a statement goes: a connection of its own, or the pool."""

    async def many(self, statement: str, /, **parameters: Any) -> list[Row]:
        """The rows of a statement."""
        ...


class Share:
    """How many statements of one workspace may be under way, for the sake of the others."""

    def __init__(self, most: int, wait_seconds: float) -> None:
        self._most, self._wait_seconds = most, wait_seconds
        self._turns: dict[str, asyncio.Semaphore] = {}
        self._users: Counter[str] = Counter()

    @asynccontextmanager
    async def of(self, workspace_id: str | None) -> AsyncGenerator[None]:
        """Holds a turn of this workspace; None is a statement of no workspace, and never waits."""
        if workspace_id is None:
            yield
            return
        turn = self._turns.setdefault(workspace_id, asyncio.Semaphore(self._most))
        self._users[workspace_id] += 1
        try:
            await self._take(turn)
            try:
                yield
            finally:
                turn.release()
        finally:
            self._users[workspace_id] -= 1
            if not self._users[workspace_id]:
                del self._users[workspace_id], self._turns[workspace_id]

    async def _take(self, turn: asyncio.Semaphore) -> None:
        try:
            async with asyncio.timeout(self._wait_seconds):
                await turn.acquire()
        except TimeoutError:
            raise Busy from None


class Database:
    """A pool of connections; every statement is a transaction of its own unless asked otherwise."""

    def __init__(
        self, pool: AsyncConnectionPool[AsyncConnection[Row]], share: Share, limit: Limit
    ) -> None:
        self._pool = pool
        self._share = share
        self._limit = limit
        self._healing: asyncio.Task[None] | None = None

    async def many(self, statement: str, /, **parameters: Any) -> list[Row]:
        """The rows of a statement, which may be none."""
        rows: list[Row] = await self._repeat("many", statement, parameters)
        return rows

    async def one(self, statement: str, /, **parameters: Any) -> Row | None:
        """The first row of a statement."""
        row: Row | None = await self._repeat("one", statement, parameters)
        return row

    async def run(self, statement: str, /, **parameters: Any) -> int:
        """Runs a statement; how many rows it touched."""
        touched: int = await self._repeat("run", statement, parameters)
        return touched

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Statements]:
        """Several statements that commit together."""
        with problems(None):
            async with self._pool.connection() as connection, self._limit.transaction(connection):
                yield Statements(connection)

    async def _repeat(self, method: str, statement: str, parameters: dict[str, Any]) -> Any:
        for left in reversed(range(REPEATS + 1)):
            try:
                with problems(None):
                    began = time.perf_counter()
                    async with (
                        self._share.of(parameters.get("workspace_id")),
                        self._pool.connection() as connection,
                    ):
                        occur(PoolWaited, value=time.perf_counter() - began)
                        asked = getattr(Statements(connection, self._limit), method)
                        return await asked(statement, **parameters)
            except ConnectionLost:
                self._heal()
                raise
            except psycopg.Error as error:
                if error.sqlstate not in REPEATED:
                    raise
                if not left:
                    raise Busy from error
        return None

    def _heal(self) -> None:
        """Looks whether the other connections broke too, before each costs a caller an error."""
        if self._healing is None or self._healing.done():
            self._healing = asyncio.create_task(self._pool.check())

    def counts(self) -> dict[str, int]:
        """How many connections there are, by state."""
        stats = self._pool.get_stats()
        idle = stats.get("pool_available", 0)
        return {"idle": idle, "busy": stats.get("pool_size", 0) - idle}


@asynccontextmanager
async def open_pool(
    conninfo: str, size: int, wait_seconds: float, statement_seconds: float, *, lent: bool = False
) -> AsyncGenerator[Database]:
    """The pool of this process; lent: by a proxy, for a transaction at a time."""
    limit = Limit("statement_timeout", int(statement_seconds * 1000), lent, wait_seconds)
    pool = AsyncConnectionPool(
        steady(conninfo),
        min_size=min(2, size),
        max_size=size,
        timeout=wait_seconds,
        kwargs={"autocommit": True},
        configure=limit.begin,
        open=False,
    )
    await pool.open()
    try:
        yield Database(pool, Share(max(1, size // 2), wait_seconds), limit)
    finally:
        await pool.close()


class Dedicated:
    """One connection of one batcher or loop: prepared once, it waits for no pool and not for long.

    Its owner asks one thing at a time. A workspace under a long transaction delays only itself.
    """

    def __init__(self, conninfo: str, *, lent: bool = False) -> None:
        self._conninfo = steady(conninfo)
        self._limit = Limit("lock_timeout", LOCK_MILLISECONDS, lent, CONNECT_SECONDS)
        self._connection: AsyncConnection[Row] | None = None

    async def many(self, statement: str, /, **parameters: Any) -> list[Row]:
        """The rows of a statement; raises ConnectionLost when its outcome is unknown."""
        for left in reversed(range(REPEATS + 1)):
            try:
                return await self._execute(statement, parameters)
            except psycopg.Error as error:
                if error.sqlstate not in REPEATED:
                    raise
                if not left:
                    raise Busy from error
        return []

    async def _execute(self, statement: str, parameters: dict[str, Any]) -> list[Row]:
        connection = await self._connected()
        with problems(connection):
            cursor = await self._limit.ask(connection, statement.encode(), parameters, prepare=True)
            return await cursor.fetchall()

    async def close(self) -> None:
        """Ends the connection."""
        if self._connection is not None:
            await self._connection.close()

    async def _connected(self) -> AsyncConnection[Row]:
        connection = self._connection
        if connection is None or connection.closed:
            with problems(None):
                connection = await AsyncConnection.connect(
                    self._conninfo, autocommit=True, connect_timeout=CONNECT_SECONDS
                )
                await self._limit.begin(connection)
            self._connection = connection
        return connection
