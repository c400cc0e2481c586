"""The SQL of server/store and schema.sql fit each other."""

import re
from collections import Counter
from importlib import import_module
from pathlib import Path

import psycopg
import pytest

from server.db.schema import schema_sql

TOP = Path(__file__).parents[1]
STORE = sorted(path for path in (TOP / "server/store").glob("*.py") if path.stem != "__init__")
VERBS = r"\s*(select|insert|update|delete|with)\b"
STATEMENTS = {
    f"{path.stem}.{name}": text
    for path in STORE
    for name, text in vars(import_module(f"server.store.{path.stem}")).items()
    if name.isupper() and isinstance(text, str) and re.match(VERBS, text)
}
# What schema.sql and other statements call besides, each for a reason of its own.
SHARED = {
    "lease_now": "the clock of all",
    "promote_runs": "a claim promotes what is due",
    "create_key": "a start admits the administrator's key",
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_of_the_store_fits_the_schema(name: str, database: str) -> None:
    parameters: dict[str, str] = {}
    for found in re.findall(r"%\((\w+)\)s", STATEMENTS[name]):
        parameters.setdefault(found, f"${len(parameters) + 1}")
    text = re.sub(r"%\((\w+)\)s", lambda found: parameters[found[1]], STATEMENTS[name])
    with psycopg.connect(database) as connection:
        connection.execute(f"prepare it as {text.replace('%%', '%')}".encode())


def test_a_function_of_the_schema_is_called_by_one_statement() -> None:
    schema = schema_sql()
    functions = re.findall(r"create function ([a-z]\w*)\(", schema)
    calls = Counter(
        name for text in STATEMENTS.values() for name in set(re.findall(r"\b([a-z]\w*)\(", text))
    )
    assert {name: calls[name] for name in functions if name not in SHARED} == {
        name: 1 for name in functions if name not in SHARED
    }


def test_no_function_of_the_schema_is_left_without_a_use() -> None:
    schema = re.sub(r"--.*", "", schema_sql())
    used = Counter(re.findall(r"\b(\w+)\(", schema + "".join(STATEMENTS.values())))
    assert [f for f in re.findall(r"create function (\w+)\(", schema) if used[f] < 2] == []
