"""The description of the interface is made from the table of routes and is kept up to date."""

from pathlib import Path

from server.api.openapi import document, document_yaml
from server.api.routes import ROUTES
from server.codes import CODES

TOP = Path(__file__).parents[1]


def test_openapi_yaml_equals_what_the_route_table_generates() -> None:
    kept = (TOP / "openapi.yaml").read_text()
    assert kept == document_yaml(), "run: worklease openapi > openapi.yaml"


def test_every_route_is_described_with_a_name_of_its_own() -> None:
    told = [operation for path in document()["paths"].values() for operation in path.values()]
    assert len(told) == len(ROUTES)
    assert all(operation["summary"] for operation in told)
    names = [operation["operationId"] for operation in told]
    assert len(set(names)) == len(names)


def test_routes_name_only_codes_that_exist() -> None:
    assert {code for route in ROUTES for code in route.errors} <= set(CODES)
