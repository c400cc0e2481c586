"""The settings table of the README is the one the server reads."""

from pathlib import Path

from server.config import SETTINGS

README = Path(__file__).parents[1] / "README.md"


def test_the_readme_lists_every_setting_with_its_default_and_meaning() -> None:
    rows = [line for line in README.read_text().splitlines() if line.startswith("| `")]
    wanted = [f"| `{name}` | {default} | {meaning} |" for name, default, meaning in SETTINGS]
    assert [row for row in rows if row.startswith(("| `WORKLEASE_", "| `DATABASE_"))] == wanted
