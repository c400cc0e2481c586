"""The command line: what an operator types, and what is answered when it cannot be done."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from server.cli import main
from server.db import embedded


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith(("WORKLEASE_", "DATABASE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WORKLEASE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("WORKLEASE_SECRET", "s" * 32)


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "data"
    embedded.discard(tmp_path / "data")


def test_discard_removes_an_embedded_database_and_no_other_directory(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data_dir.mkdir()
    (data_dir / "notes.txt").write_text("of the owner")
    assert main(["discard", str(data_dir)]) == 1
    assert "has no embedded database" in capsys.readouterr().err
    assert main(["schema", "apply"]) == 0
    assert main(["discard", str(data_dir)]) == 0
    assert [entry.name for entry in data_dir.iterdir()] == ["notes.txt"]


def test_the_schema_is_made_and_its_version_shown(
    empty_database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", empty_database)
    assert main(["schema", "version"]) == 1
    assert "worklease schema apply" in capsys.readouterr().err
    assert main(["schema", "apply"]) == 0
    assert main(["schema", "version"]) == 0
    assert main(["schema", "restored"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "raised the fence of 0 tasks"


def test_the_clock_moves_only_where_tests_are_meant(
    fresh_database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", fresh_database)
    assert main(["clock", "advance", "90"]) == 1
    assert "WORKLEASE_TEST_CLOCK" in capsys.readouterr().err
    monkeypatch.setenv("WORKLEASE_TEST_CLOCK", "true")
    assert main(["clock", "advance", "90"]) == 0
    assert capsys.readouterr().out == "the clock is 90 s ahead\n"


def test_a_wrong_setting_stops_every_command_with_its_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORKLEASE_PORT", "none")
    assert main(["serve"]) == 1
    assert capsys.readouterr().err.startswith("worklease: WORKLEASE_PORT: ")


def test_doctor_names_what_is_wrong(
    fresh_database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", fresh_database)
    monkeypatch.setenv("WORKLEASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WORKLEASE_PROT", "80")
    assert main(["doctor"]) == 1
    shown = capsys.readouterr().out
    assert "FAULT  WORKLEASE_PROT is no setting, did you mean WORKLEASE_PORT?" in shown
    assert "ok     its schema is version 1" in shown
    assert "FAULT  no server answers at http://127.0.0.1:9" in shown


@pytest.mark.parametrize("workers", ["1", "2"])
def test_serve_says_where_it_is_and_stops_with_everything_it_started(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, workers: str
) -> None:
    monkeypatch.setenv("WORKLEASE_PORT", "0")
    monkeypatch.setenv("WORKLEASE_WORKERS", workers)
    monkeypatch.setenv("WORKLEASE_SHUTDOWN_SECONDS", "5")
    command = [sys.executable, "-m", "server"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = server.stdout.readline().split()[-1]
        # The socket listens before the greeting: the request waits until somebody serves it.
        assert httpx2.get(f"{url}/healthz", timeout=30).json() == {"status": "ok"}
        assert httpx2.get(f"{url}/readyz", timeout=30).json()["ready"] is True
        assert b"worklease_build_info" in httpx2.get(f"{url}/metrics").content
        server.terminate()
        assert server.wait(30) == 0
    finally:
        server.kill()
        server.communicate()
    assert (data_dir / "admin.key").stat().st_mode & 0o777 == 0o600
    assert not (data_dir / "postgres/cluster/postmaster.pid").exists()
