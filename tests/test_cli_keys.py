"""`worklease key`: what an operator types, and what is answered when it cannot be done."""

import socket
from pathlib import Path

import pytest

from server.cli import main
from tests.factories import Workspace
from tests.serving import ADMIN_KEY
from tests.world import World

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, world: World) -> None:
    monkeypatch.setenv("WORKLEASE_URL", world.server.url)
    monkeypatch.setenv("WORKLEASE_API_KEY", ADMIN_KEY)
    monkeypatch.setenv("WORKLEASE_DATA_DIR", str(tmp_path / "data"))


def test_a_key_is_made_and_listed_by_its_workspace(workspace: Workspace, capsys: Capture) -> None:
    """Its text goes where a script takes it from, alone."""
    assert main(["key", "create", "fleet", "--workspace", workspace.name]) == 0
    made = capsys.readouterr()
    assert made.out.startswith("wl_key_")
    key_id = made.err.partition(",")[0]
    assert main(["key", "list", "--workspace", workspace.name]) == 0
    listed = capsys.readouterr().out
    told = [key_id, "agent", workspace.id, "fleet", "fleet"]
    assert told in [line.split() for line in listed.splitlines()]
    assert made.out.strip() not in listed


def test_an_admin_lists_the_keys_of_all_workspaces(workspace: Workspace, capsys: Capture) -> None:
    assert main(["key", "create", workspace.name, "--workspace", workspace.name]) == 0
    key_id = capsys.readouterr().err.partition(",")[0]
    assert main(["key", "list", "--workspace", "*"]) == 0
    assert key_id in capsys.readouterr().out


def test_what_is_refused_is_told_with_what_it_is_about(capsys: Capture) -> None:
    assert main(["key", "create", "fleet", "--workspace", "nowhere"]) == 1
    told = capsys.readouterr().err
    assert "workspace_not_found" in told
    assert "nowhere" in told


def test_a_server_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        monkeypatch.setenv("WORKLEASE_URL", url)
        assert main(["key", "list"]) == 1
    assert f"no server answers at {url}" in capsys.readouterr().err


def test_who_has_no_key_is_told_where_one_is_looked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, tmp_path: Path
) -> None:
    monkeypatch.delenv("WORKLEASE_API_KEY")
    assert main(["key", "list"]) == 1
    told = capsys.readouterr().err
    assert "WORKLEASE_API_KEY" in told
    assert str(tmp_path / "data" / "admin.key") in told
