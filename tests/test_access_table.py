"""The table of who may call what has a row for every endpoint, and no other."""

from pathlib import Path

from server.api.routes import ROUTES
from tests.proof.access.table import PLACE, ROWS

DOCUMENT = Path(__file__).parents[1] / "openapi.yaml"


def test_every_endpoint_has_a_row_that_says_who_may_call_it() -> None:
    rows = [row.template for row in ROWS]
    assert len(set(rows)) == len(rows)
    assert sorted(rows) == sorted(PLACE.sub("{}", f"{r.method} {r.path}") for r in ROUTES)


def test_a_row_says_the_roles_that_its_endpoint_says() -> None:
    said = {PLACE.sub("{}", f"{route.method} {route.path}"): route.roles for route in ROUTES}
    assert said == {row.template: row.roles for row in ROWS}
    paths = [line.strip().rstrip(":") for line in DOCUMENT.read_text().splitlines()
             if line.startswith("  /")]  # fmt: skip
    assert {PLACE.sub("{}", path) for path in paths} == {
        row.template.partition(" ")[2] for row in ROWS
    }
