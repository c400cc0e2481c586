"""A copy of the product on trial: its servers on a database of their own, and what is found."""

import re
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Final, NamedTuple

import httpx2
import msgspec
import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from tests.client import RefusedError
from tests.proof.mutants.mutant import Mutant, StaleError, copy
from tests.world import Servers, World

# What a check raises when the product does what it may not; anything else is a fault of the check.
FOUND: Final = (
    AssertionError, ExceptionGroup, LookupError, EOFError, TimeoutError, RefusedError,
    httpx2.HTTPError, msgspec.ValidationError, psycopg.Error,
)  # fmt: skip
# What a server logs if a mutant cannot even be run: that is no break of a promise.
UNRUN: Final = re.compile(
    r"syntax error|does not exist|is ambiguous|NameError|SyntaxError|AttributeError|TypeError"
)


class Trial:
    """What a check is given: a server without loops of its own, and how many calls were made."""

    def __init__(self, servers: Servers, seed: int) -> None:
        self.servers, self.seed = servers, seed
        self.world = World(servers.start().server)
        self.operations = 0


Check = Callable[[Trial], None]


class Verdict(NamedTuple):
    """How a trial ended. found: what the check saw, None if it saw nothing wrong."""

    found: str | None
    operations: int
    seconds: float


def attempt(check: Check, mutant: Mutant | None, postgres: str, seed: int) -> Verdict:
    """Holds a check against a broken copy of the product, or against one that is whole."""
    with tempfile.TemporaryDirectory(prefix="worklease-mutant-") as name, _database(postgres) as on:
        copy(mutant, Path(name))
        with _servers(on, Path(name)) as servers:
            trial = Trial(servers, seed)
            began, found = time.monotonic(), None
            try:
                check(trial)
            except FOUND as error:
                found = told(error)
            seconds = time.monotonic() - began
            trial.world.close()
            errors = [str(error) for each in servers.started for error in each.server.errors()]
    for unrun in UNRUN.findall("\n".join(errors)):
        raise StaleError(f"{mutant and mutant.meaning}: cannot be run: {unrun}")
    return Verdict(found, trial.operations, seconds)


def told(error: BaseException) -> str:
    """What an error says, and where in the checks it was raised."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_ours(frame)]
    words = str(error).partition("\n")[0] or (frames[-1].line if frames else "")
    where = f"{Path(frames[-1].filename).name} {frames[-1].name}: " if frames else ""
    return f"{where}{words or type(error).__name__}"[:160]


def _is_ours(frame: traceback.FrameSummary) -> bool:
    return "/tests/" in frame.filename


@contextmanager
def _servers(conninfo: str, directory: Path) -> Iterator[Servers]:
    """Servers that run the copy in this directory, and may notify receivers on this machine."""
    servers = Servers(
        conninfo, directory, PYTHONPATH=directory, PYTHONSAFEPATH=1,
        WORKLEASE_BRIDGE_ALLOW_CIDRS="127.0.0.0/8", WORKLEASE_BRIDGE_ALLOW_HTTP=True,
    )  # fmt: skip
    try:
        yield servers
    finally:
        servers.stop()


@contextmanager
def _database(postgres: str) -> Iterator[str]:
    """An empty database on this PostgreSQL."""
    name = sql.Identifier(f"worklease_mutant_{token_hex(6)}")
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(sql.SQL("create database {} template template0").format(name))
        try:
            yield make_conninfo(postgres, dbname=name.as_string().strip('"'))
        finally:
            connection.execute(sql.SQL("drop database {} with (force)").format(name))
