"""The embedded PostgreSQL: found again, shared, stopped by the last, and private."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from psycopg import pq

from server.db import embedded
from server.db.binaries import EmbeddedError
from server.db.keyfile import read_or_make

KILLED_PARENT = """
import pathlib, sys, time
from server.db import embedded
from server.db.binaries import EmbeddedError
server = embedded.join(pathlib.Path(sys.argv[1]), durable=False)
print(server.conninfo, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "it's data"
    embedded.discard(tmp_path / "it's data")


def _ask(server: embedded.Embedded, question: str) -> object:
    with psycopg.connect(server.conninfo) as connection:
        row = connection.execute(question).fetchone()
        return row[0] if row else None


def _postmaster(data_dir: Path) -> int:
    return int((data_dir / "postgres/cluster/postmaster.pid").read_text().split()[0])


def test_it_listens_on_a_private_socket_only_and_wants_the_password(data_dir: Path) -> None:
    server = embedded.join(data_dir, durable=False)
    try:
        assert _ask(server, "show listen_addresses") == ""
        assert _ask(server, "show server_encoding") == "UTF8"
        assert (data_dir / "database.key").stat().st_mode & 0o777 == 0o600
        assert (data_dir / "postgres/cluster").stat().st_mode & 0o777 == 0o700
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(server.conninfo, password="guessed")
    finally:
        server.leave()


def test_what_was_written_is_there_after_a_restart(data_dir: Path) -> None:
    first = embedded.join(data_dir, durable=False)
    with psycopg.connect(first.conninfo) as connection:
        connection.execute("create table kept as select 42 as answer")
    first.leave()
    again = embedded.join(data_dir, durable=False)
    assert _ask(again, "select answer from kept") == 42
    again.leave()


def test_a_server_that_outlived_its_killed_parent_is_found(data_dir: Path) -> None:
    command = [sys.executable, "-c", KILLED_PARENT, str(data_dir)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline()
        parent.kill()
    before = _postmaster(data_dir)
    server = embedded.join(data_dir)
    assert _postmaster(data_dir) == before
    server.leave()
    assert not (data_dir / "postgres/cluster/postmaster.pid").exists()


def test_a_killed_server_recovers_at_the_next_start(data_dir: Path) -> None:
    abandoned = embedded.join(data_dir)
    with psycopg.connect(abandoned.conninfo) as connection:
        connection.execute("create table kept as select 42 as answer")
        connection.commit()
        os.kill(_postmaster(data_dir), signal.SIGKILL)
        # The backend notices that its parent is gone; only then is the cluster free again.
        with pytest.raises(psycopg.OperationalError):
            connection.execute("select pg_sleep(30)")
    server = embedded.join(data_dir, durable=False)
    assert _ask(server, "select answer from kept") == 42
    abandoned.leave()
    server.leave()


def test_processes_that_start_at_once_share_one_server_and_the_last_stops_it(
    data_dir: Path,
) -> None:
    with ThreadPoolExecutor(4) as pool:
        joined = list(pool.map(lambda _: embedded.join(data_dir, durable=False), range(4)))
    for server in joined[:-1]:
        server.leave()
    assert _ask(joined[-1], "select 1") == 1
    joined[-1].leave()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(joined[-1].conninfo)


def test_a_server_that_ends_while_it_is_looked_at_is_started_again(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded.join(data_dir, durable=False).leave()
    seen, ping = iter([pq.Ping.REJECT]), embedded._ping
    monkeypatch.setattr(embedded, "_ping", lambda conninfo: next(seen, None) or ping(conninfo))
    server = embedded.join(data_dir, durable=False)
    assert _ask(server, "select 1") == 1
    server.leave()


def test_a_pid_file_of_some_other_process_does_not_hinder_the_start(data_dir: Path) -> None:
    embedded.join(data_dir, durable=False).leave()
    stale = data_dir / "postgres/cluster/postmaster.pid"
    stale.write_text(f"{os.getpid()}\n")
    server = embedded.join(data_dir, durable=False)
    assert _ask(server, "select 1") == 1
    server.leave()


def test_discard_leaves_nothing_and_does_nothing_while_a_server_runs(data_dir: Path) -> None:
    server = embedded.join(data_dir, durable=False)
    home = (data_dir / "postgres").resolve()
    with pytest.raises(EmbeddedError, match="stop it first"):
        embedded.discard(data_dir)
    assert _ask(server, "select 1") == 1
    server.leave()
    (data_dir / "notes.txt").write_text("of the owner")
    embedded.discard(data_dir)
    assert not home.exists()
    assert [entry.name for entry in data_dir.iterdir()] == ["notes.txt"]


def test_discard_stops_a_server_that_outlived_those_who_started_it(data_dir: Path) -> None:
    command = [sys.executable, "-c", KILLED_PARENT, str(data_dir)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        conninfo = parent.stdout.readline().decode()
        parent.kill()
    with psycopg.connect(conninfo) as connection:
        embedded.discard(data_dir)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("select 1")
    assert not data_dir.exists()


def test_a_key_file_is_made_once_whoever_comes_first(tmp_path: Path) -> None:
    path = tmp_path / "new" / "admin.key"
    with ThreadPoolExecutor(8) as pool:
        texts = set(pool.map(lambda n: read_or_make(path, lambda: f"key {n}"), range(32)))
    assert len(texts) == 1
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["admin.key"]
