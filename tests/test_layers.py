"""The layer rule: a module imports from a lower layer or its own package, never upwards."""

import ast
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
LAYERS = (
    {"codes", "limits"},
    {"errors"},
    {"contract", "rules", "config", "telemetry"},
    {"db", "net"}, {"store"}, {"loops", "api"}, {"app", "protocol"}, {"serve"}, {"cli"},
    {"__main__"},
)  # fmt: skip
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
# Parts of a layer that belong to no noun: every noun may use them.
SHARED = {"base", "endpoint", "context", "routes", "openapi", "middleware", "hub", "batch", "every"}
ONLY_IN = {
    "psycopg": {"db", "store"},
    "starlette": {"api", "app"},
    "httpx2": {"cli", "net"},
    "uvicorn": {"serve", "protocol"},
}
MODULES = sorted((TOP / "server").rglob("*.py")) + sorted((TOP / "agent_sdk").rglob("*.py"))


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(TOP).as_posix())
def test_a_module_imports_downwards_only(path: Path) -> None:
    package, layer, *_ = path.relative_to(TOP).with_suffix("").parts
    for name in _imports(path):
        top, *rest = [*name.split("."), ""]
        assert {top, package} != {"server", "agent_sdk"}, f"{name}: the two never meet"
        if package == "server" and top in ONLY_IN:
            assert layer in ONLY_IN[top], f"{name} belongs into {ONLY_IN[top]}"
        if top == package == "server" and rest[0] in RANK and layer in RANK and rest[0] != layer:
            assert RANK[rest[0]] < RANK[layer], f"{name} is not below {layer}"
        if top == package == "server" and rest[0] == layer in {"store", "loops"}:
            assert rest[1] in SHARED, f"{name}: a noun never imports a sibling noun"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(TOP).as_posix())
def test_only_config_and_cli_read_the_environment(path: Path) -> None:
    allowed = path.parent.name == "agent_sdk" or path.name in {"config.py", "cli.py"}
    assert allowed or "environ" not in path.read_text().replace("environment", "")
