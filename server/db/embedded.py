"""An embedded PostgreSQL for one data directory, shared by every server process on it."""

import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from secrets import token_hex, token_urlsafe
from shlex import quote
from typing import IO

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo

from server.db.binaries import (
    SYSTEM_DIRECTORY,
    Account,
    EmbeddedError,
    execute,
    make_system_directory,
)
from server.db.keyfile import make_directory, read_or_make

NAME = "worklease"
# sun_path holds 104 bytes on the shortest platform; the socket's own name takes 15 of them.
SOCKET_DIRECTORY_BYTES = 85
# Recovery after a crash may take as long as it takes; pg_ctl sees when the server gives up.
START_SECONDS = 86_400
STOP_SECONDS = 120

SETTINGS = """\
# Written at every start; your own settings belong into custom.conf beside this file.
listen_addresses = ''
unix_socket_directories = {socket}
unix_socket_permissions = 0700
password_encryption = 'scram-sha-256'
max_connections = 200
shared_buffers = '256MB'
max_wal_size = '4GB'
min_wal_size = '256MB'
checkpoint_timeout = '15min'
random_page_cost = 1.1
jit = off
max_parallel_workers_per_gather = 0
autovacuum_naptime = '30s'
autovacuum_vacuum_scale_factor = 0.05
autovacuum_analyze_scale_factor = 0.1
idle_in_transaction_session_timeout = '5min'
timezone = 'UTC'
log_timezone = 'UTC'
# Refusals reach the server as SQL errors, by design; its own log tells of the real ones.
log_min_messages = 'log'
log_checkpoints = off
{durability}include_if_exists = 'custom.conf'
"""
FAST_AND_LOOSE = "fsync = off\nsynchronous_commit = off\nfull_page_writes = off\n"


@dataclass(frozen=True, slots=True)
class Embedded:
    """A running server that this process takes part in; `leave` it at the end."""

    conninfo: str
    _home: Path
    _account: Account
    _membership: IO[bytes]

    def leave(self) -> None:
        """Ends this process's part; the last one to leave stops the server."""
        with _alone(self._home):
            self._membership.close()
            with _lock_file(self._home, "members.lock") as members:
                try:
                    fcntl.flock(members, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return
                if _ping(self.conninfo) != pq.Ping.NO_RESPONSE:
                    _stop(self._home, self._account)


def join(data_dir: Path, *, durable: bool = True) -> Embedded:
    """Starts the server of this data directory, or finds it running; blocks until it answers."""
    make_directory(data_dir)
    account = Account.find()
    password = read_or_make(data_dir / "database.key", lambda: token_urlsafe(32))
    home = _home(data_dir, account)
    with _alone(home):
        socket = _socket_directory(home, account)
        conninfo = make_conninfo(host=str(socket), port=5432, user=NAME, password=password)
        _initialise(home, account, password)
        if (state := _ping(conninfo)) == pq.Ping.REJECT:
            # Still in recovery, and whoever started it was killed: begin again, to see it through.
            _stop(home, account)
        if state != pq.Ping.OK:
            _start(home, account, socket, durable)
        _make_database(conninfo)
        membership = _lock_file(home, "members.lock")
        fcntl.flock(membership, fcntl.LOCK_SH)
    return Embedded(make_conninfo(conninfo, dbname=NAME), home, account, membership)


def discard(data_dir: Path) -> None:
    """Removes the cluster of a data directory for good, and the directory if nothing else is in it.

    Raises EmbeddedError while a server runs on it.
    """
    account, home = Account.find(), data_dir / "postgres"
    if home.exists():
        found = home.resolve()
        with _alone(found), _lock_file(found, "members.lock") as members:
            try:
                fcntl.flock(members, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise EmbeddedError(f"a server runs on {data_dir}: stop it first") from None
            socket = _socket_path(found, account)
            if _ping(make_conninfo(host=str(socket), port=5432)) != pq.Ping.NO_RESPONSE:
                _stop(found, account)  # it outlived servers that were killed
            shutil.rmtree(socket, ignore_errors=True)
            shutil.rmtree(found)
    if home.is_symlink():
        home.unlink()
    (data_dir / "database.key").unlink(missing_ok=True)
    with suppress(OSError):  # it is not empty, or not there
        data_dir.rmdir()


def _home(data_dir: Path, account: Account) -> Path:
    """The directory of cluster, socket and locks: in the data directory, for root elsewhere."""
    home = data_dir / "postgres"
    if account.name is None:
        make_directory(home)
    elif not home.is_symlink() and not home.exists():
        # Root may enter its data directory and the database's user may not: the link leads out.
        target = SYSTEM_DIRECTORY / token_hex(8)
        make_system_directory(target)
        try:
            home.symlink_to(target)
        except FileExistsError:
            target.rmdir()
    if not home.exists():
        raise EmbeddedError(f"{home} points to {home.readlink()}, which is gone: restore it")
    if (owner := home.stat().st_uid) != os.geteuid():
        raise EmbeddedError(f"{home} belongs to user {owner}: start the server as that user")
    return home.resolve()


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Keeps starting and stopping one at a time; a killed holder frees the lock."""
    with _lock_file(home, "start.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _lock_file(home: Path, name: str) -> IO[bytes]:
    return os.fdopen(os.open(home / name, os.O_RDWR | os.O_CREAT, 0o600), "r+b")


def _socket_path(home: Path, account: Account) -> Path:
    directory = home / "socket"
    if len(os.fsencode(directory)) <= SOCKET_DIRECTORY_BYTES:
        return directory
    digest = sha256(os.fsencode(home)).hexdigest()[:16]
    return Path(f"/tmp/worklease-{account.uid}-{digest}")  # noqa: S108 - its owner is checked


def _socket_directory(home: Path, account: Account) -> Path:
    directory = _socket_path(home, account)
    account.make_directory(directory)
    found = directory.lstat()
    if directory.is_symlink() or found.st_uid != account.uid or found.st_mode & 0o077:
        raise EmbeddedError(f"{directory} is not a directory of our own: remove it")
    return directory


def _initialise(home: Path, account: Account, password: str) -> None:
    """initdb beside the final place, so that a cluster is either whole or not there."""
    cluster, draft, secret = home / "cluster", home / "cluster.new", home / "password"
    if cluster.exists():
        return
    if draft.exists():
        shutil.rmtree(draft)  # an initdb that was killed
    account.make_directory(draft)
    secret.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            os.fchown(file.fileno(), account.uid, account.gid)
            file.write(password)
        execute(
            account, "initdb", "-D", str(draft), "--username", NAME, "--pwfile", str(secret),
            "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C",
            "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8", "--data-checksums",
        )  # fmt: skip
    finally:
        secret.unlink(missing_ok=True)
    draft.rename(cluster)


def _ping(conninfo: str) -> pq.Ping:
    return pq.Ping(pq.PGconn.ping(conninfo.encode()))


def _start(home: Path, account: Account, socket: Path, durable: bool) -> None:
    cluster, settings = home / "cluster", home / "postgresql.conf"
    settings.write_text(
        SETTINGS.format(socket=_quoted(socket), durability="" if durable else FAST_AND_LOOSE)
    )
    settings.chmod(0o644)
    locks = (cluster / "postmaster.pid", socket / ".s.PGSQL.5432.lock")
    log = cluster / "server.log"
    command = (
        "pg_ctl", "start", "-D", str(cluster), "--wait", "-t", str(START_SECONDS),
        "-l", str(log), "-o", f"-c config_file={quote(str(settings))}",
    )  # fmt: skip
    # A server that was killed a moment ago may still be dying at the first look: hence two.
    for last in (False, True):
        _forget_strangers(locks)
        try:
            execute(account, *command)
            break
        except EmbeddedError as failed:
            if last:
                words = log.read_text(errors="replace")[-2000:] if log.exists() else ""
                raise EmbeddedError(f"{failed}\n{words}") from None


def _quoted(path: Path) -> str:
    # A list of directories inside a string: either kind of quote is doubled.
    listed = str(path).replace('"', '""')
    return "'\"" + listed.replace("'", "''") + "\"'"


def _forget_strangers(locks: Iterable[Path]) -> None:
    """Drops lock files whose process is no PostgreSQL: a new container deals out old numbers."""
    for lock in locks:
        try:
            pid = int(lock.read_text().split(maxsplit=1)[0])
            process = Path(f"/proc/{pid}/stat").read_text()
        except (OSError, ValueError, IndexError):
            continue
        name, _, state = process.partition("(")[2].rpartition(") ")
        # A killed server nobody has waited for is a zombie (Z), which PostgreSQL takes for alive.
        if name != "postgres" or state[:1] in "ZX":
            lock.unlink()


def _stop(home: Path, account: Account) -> None:
    cluster = home / "cluster"
    try:
        execute(
            account, "pg_ctl", "stop", "-D", str(cluster), "--mode", "fast", "--wait",
            "-t", str(STOP_SECONDS),
        )  # fmt: skip
    except EmbeddedError:
        # Without this file it has ended by itself, in between.
        if (cluster / "postmaster.pid").exists():
            raise


def _make_database(conninfo: str) -> None:
    with psycopg.connect(conninfo, dbname="postgres", autocommit=True) as connection:
        known = connection.execute("select 1 from pg_database where datname = %s", [NAME])
        if not known.fetchone():
            connection.execute("create database worklease")
