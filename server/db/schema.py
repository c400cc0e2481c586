"""Brings the database's schema to the version this server was written for."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psycopg
from psycopg.conninfo import conninfo_to_dict

# The version that schema.sql inserts; a test holds the two together.
EXPECTED = 1
OLDEST_POSTGRESQL = 150000
# Any number will do, as long as every server takes the same.
LOCK = 0x776C7363

PACKAGE = Path(__file__).parents[1]
MIGRATIONS = Path(__file__).with_name("migrations")
# What schema.sql is followed by, in this order.
PARTS = (
    "budgets.sql",
    "wire.sql",
    "scheduler.sql",
    "reviews.sql",
    "review_leases.sql",
    "slots.sql",
    "backlog.sql",
    "starvation.sql",
    "gates.sql",
    "drafts.sql",
    "approvals.sql",
    "pauses.sql",
    "profiles.sql",
    "force.sql",
    "manual.sql",
    "streams.sql",
    "observe.sql",
    "inspect.sql",
    "bridges.sql",
    "digest.sql",
    "dashboard.sql",
    "inbox.sql",
    "retention.sql",
    "planner.sql",
)

TAKE_LOCK = "select pg_advisory_xact_lock(%(lock)s)"
KNOWN = "select to_regclass('schema_version') is not null"
VERSION = "select version, compatible_from from schema_version"
HAS_KEYS = "select exists (select from api_key)"
RESTORED = "update task set fence = fence + 1000000"
LOCK_SECRETS = "lock table server_secret in exclusive mode"
# A new secret is admitted beside one that is known already, and the first of all.
ADMIT = """
    insert into server_secret (fingerprint) select %(present)s
     where not exists (select from server_secret)
        or exists (select from server_secret where fingerprint = any (%(in_use)s))
        on conflict do nothing
"""
KNOWS_FINGERPRINT = "select exists (select from server_secret where fingerprint = %(present)s)"
LOCK_CLOCK = "lock table test_clock in exclusive mode"
SHOW_CLOCK = "insert into test_clock select interval '0' where not exists (select from test_clock)"
MOVE_CLOCK = """
    update test_clock set offset_by = offset_by + make_interval(secs => %(seconds)s)
    returning extract(epoch from offset_by)::float8
"""


class SchemaError(Exception):
    """The database cannot be used by this server; the message says why."""


class Version(NamedTuple):
    """What the database's schema is, and the oldest server that can still use it."""

    version: int
    compatible_from: int

    @property
    def fits(self) -> bool:
        """Whether this server can work on it."""
        return self.compatible_from <= EXPECTED <= self.version


def schema_sql() -> str:
    """schema.sql, from the package or from the checkout around it, and its further parts."""
    places = (PACKAGE / "schema.sql", PACKAGE.parent / "schema.sql")
    core = next(place for place in places if place.exists())
    parts = [Path(__file__).with_name("sql") / name for name in PARTS]
    return "\n".join(path.read_text() for path in (core, *parts))


def apply(conninfo: str) -> Version:
    """Makes an empty database, or runs the migrations it lacks, in one transaction."""
    with _connected(conninfo) as connection:
        if connection.info.server_version < OLDEST_POSTGRESQL:
            raise SchemaError("PostgreSQL 15 or later is needed")
        connection.execute(TAKE_LOCK, {"lock": LOCK})
        if not _known(connection):
            connection.execute(schema_sql())
        for number, migration in _migrations():
            if number > _version(connection).version:
                connection.execute(migration.read_text())
        return _checked(_version(connection))


def check(conninfo: str) -> Version:
    """The version found, without a change; raises SchemaError if this server cannot use it."""
    with _connected(conninfo) as connection:
        if not _known(connection):
            raise SchemaError("the database is empty: run `worklease schema apply`")
        return _checked(_version(connection))


def understood(name: str, conninfo: str | None) -> None:
    """Raises SchemaError for a connection string that is none, without a word of what is in it."""
    try:
        conninfo_to_dict(conninfo or "")
    except psycopg.ProgrammingError:
        raise SchemaError(f"{name}: is not a PostgreSQL connection string") from None


def admit(conninfo: str, in_use: Sequence[bytes]) -> None:
    """Keeps out a server whose secret the others do not share; raises SchemaError.

    in_use: its secret, then the one before it. The database keeps fingerprints only.
    """
    prints = [hashlib.sha256(b"worklease " + secret).digest() for secret in in_use]
    with _connected(conninfo) as connection:
        connection.execute(LOCK_SECRETS)
        connection.execute(ADMIT, {"present": prints[0], "in_use": prints})
        known = connection.execute(KNOWS_FINGERPRINT, {"present": prints[0]}).fetchone()
    if known != (True,):
        raise SchemaError(
            "WORKLEASE_SECRET: this database knows another one; all its servers share one secret"
            " (to change it, give the old one as WORKLEASE_SECRET_PREVIOUS)"
        )


def lent(conninfo: str) -> bool:
    """Whether a proxy lends connections: it tells of a backend, and another one answers.

    PgBouncer in session mode counts as well; nothing but speed is lost.
    """
    with _connected(conninfo) as connection:
        answered = connection.execute("select pg_backend_pid()").fetchone()
        return answered != (connection.info.backend_pid,)


def has_keys(conninfo: str) -> bool:
    """Whether a server has started on this database before, and made its first keys."""
    with _connected(conninfo) as connection:
        return connection.execute(HAS_KEYS).fetchone() == (True,)


def restored(conninfo: str) -> int:
    """After a restore: lifts the fence of every task above any that was handed out; their count."""
    with _connected(conninfo) as connection:
        return connection.execute(RESTORED).rowcount


def move_clock(conninfo: str, seconds: float) -> float:
    """Moves the test clock forward; the offset it has then, in seconds."""
    with _connected(conninfo) as connection:
        # Two first moves at once must make one row.
        connection.execute(LOCK_CLOCK)
        connection.execute(SHOW_CLOCK)
        moved = connection.execute(MOVE_CLOCK, {"seconds": seconds}).fetchone()
    return float(moved[0]) if moved else 0.0


@contextmanager
def _connected(conninfo: str) -> Iterator[psycopg.Connection]:
    try:
        # Nothing is asked often enough to be prepared, which no proxy between would stand.
        with psycopg.connect(conninfo, prepare_threshold=None) as connection:
            yield connection
    except psycopg.OperationalError as failed:
        raise SchemaError(f"the database does not answer: {failed}".strip()) from None


def _known(connection: psycopg.Connection) -> bool:
    return connection.execute(KNOWN).fetchone() == (True,)


def _version(connection: psycopg.Connection) -> Version:
    row = connection.execute(VERSION).fetchone()
    if row is None:
        raise SchemaError("the table schema_version is empty: this is no database of ours")
    return Version(*row)


def _checked(found: Version) -> Version:
    if not found.fits:
        raise SchemaError(
            f"the schema is version {found.version} (for servers from {found.compatible_from} on),"
            f" this server needs {EXPECTED}"
        )
    return found


def _migrations() -> list[tuple[int, Path]]:
    return sorted((int(path.stem), path) for path in MIGRATIONS.glob("[0-9][0-9][0-9].sql"))
