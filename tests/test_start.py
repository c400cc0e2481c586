"""What keeps a server from starting is one sentence that names the setting, and nothing secret."""

import socket
from pathlib import Path

import pytest

from server.cli import main
from server.db import schema


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fresh_database: str) -> None:
    monkeypatch.setenv("DATABASE_URL", fresh_database)
    monkeypatch.setenv("WORKLEASE_SECRET", "s" * 32)
    monkeypatch.setenv("WORKLEASE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("WORKLEASE_PORT", "0")


def _refused(capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["serve"]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    return told.err


@pytest.mark.parametrize(
    "url", ["worklease:hunter2@db/worklease", "postgresql://worklease:hun%ter2@db/worklease"]
)
@pytest.mark.parametrize("name", ["DATABASE_URL", "DATABASE_DIRECT_URL"])
def test_a_connection_string_that_is_none_is_named_and_not_shown(
    name: str, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """P12: the password stands in neither output."""
    monkeypatch.setenv(name, url)
    told = _refused(capsys)
    assert told == f"worklease: {name}: is not a PostgreSQL connection string\n"


def test_a_port_that_is_taken_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("WORKLEASE_PORT", str(port))
        assert f"WORKLEASE_PORT: {port} on 127.0.0.1 is taken" in _refused(capsys)


def test_an_address_of_another_machine_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORKLEASE_HOST", "192.0.2.1")
    assert "WORKLEASE_HOST and WORKLEASE_PORT: 192.0.2.1, 0: " in _refused(capsys)


def test_an_address_that_is_none_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORKLEASE_HOST", "300.1.1.1")
    assert "WORKLEASE_HOST: 300.1.1.1" in _refused(capsys)


def test_a_data_directory_that_cannot_be_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DATABASE_URL")
    monkeypatch.setenv("WORKLEASE_DATA_DIR", "/proc/worklease")
    assert "WORKLEASE_DATA_DIR: " in _refused(capsys)


def test_a_server_whose_secret_the_others_do_not_share_stays_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fresh_database: str
) -> None:
    """P5: else a repeated claim would be answered with a token that no server takes."""
    schema.admit(fresh_database, [b"the first secret"])
    assert "WORKLEASE_SECRET_PREVIOUS" in _refused(capsys)


def test_a_new_secret_is_let_in_beside_the_one_before(fresh_database: str) -> None:
    old, new = b"the old secret", b"the new secret"
    schema.admit(fresh_database, [old])
    with pytest.raises(schema.SchemaError, match="another one"):
        schema.admit(fresh_database, [new])
    schema.admit(fresh_database, [new, old])
    schema.admit(fresh_database, [new])
