"""The rules of the code base that a machine can check: sizes, and calls that have no place."""

import ast
import re
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
PACKAGES = ("server", "agent_sdk", "tests", "bench")
MODULES = sorted(path for package in PACKAGES for path in (TOP / package).rglob("*.py"))
PRODUCT = [path for path in MODULES if path.relative_to(TOP).parts[0] in {"server", "agent_sdk"}]

SLEEPERS = {"server/loops/every.py", "agent_sdk/worker.py"}
TOP_LOOPS = {
    "server/loops/every.py", "server/api/endpoint.py", "agent_sdk/worker.py",
    "agent_sdk/heartbeats.py",
}  # fmt: skip
# The call, where it may stand nevertheless, and what to do instead.
BANNED: tuple[tuple[str, Collection[str], str], ...] = (
    (r"datetime\.(now|utcnow)\(", (), "time is an argument, or the database's"),
    (r"\b(time|asyncio)\.sleep\(", SLEEPERS, "wait for what you wait for"),
    (r"except( Exception| BaseException)?( as \w+)?:", TOP_LOOPS, "name what you expect"),
    (r"BaseHTTPMiddleware", (), "write plain ASGI"),
    (r"^import json\b|^from json\b", (), "msgspec speaks JSON here"),
)  # fmt: skip


def _name(path: Path) -> str:
    return path.relative_to(TOP).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_a_module_and_its_functions_keep_their_size(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 300, "split it by noun"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            limit = 25 if node.name.startswith("test_") else 60
            assert lines <= limit, f"{node.name} has {lines} lines, more than {limit}"


def _banned(path: Path) -> Iterator[str]:
    for number, line in enumerate(path.read_text().splitlines(), 1):
        for pattern, allowed, instead in BANNED:
            if re.search(pattern, line) and _name(path) not in allowed:
                yield f"line {number}: {line.strip()} - {instead}"


@pytest.mark.parametrize("path", PRODUCT, ids=_name)
def test_no_banned_call_stands_in_the_product(path: Path) -> None:
    assert list(_banned(path)) == []


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_an_ignored_type_error_says_which_and_why(path: Path) -> None:
    for line in path.read_text().splitlines():
        if "type: ignore" in line and "test_tidy" not in path.name:
            assert re.search(r"# type: ignore\[[\w, -]+\] +(#|-) *\w+", line), line


@pytest.mark.parametrize("path", [TOP / "schema.sql", *TOP.glob("server/db/sql/*.sql")], ids=_name)
def test_only_lease_now_reads_the_clock_in_sql(path: Path) -> None:
    text = re.sub(r"--.*", "", path.read_text())
    assert len(text.splitlines()) <= 3500
    assert not re.search(r"(?<![\w.])now\(\)|\bcurrent_timestamp\b", text)
