"""The schema: made once however many servers start, and refused when it does not fit."""

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from server.db import schema


def _run(conninfo: str, statement: str) -> None:
    with psycopg.connect(conninfo) as connection:
        connection.execute(statement)


def test_servers_that_start_at_once_make_the_schema_once(empty_database: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(schema.apply, [empty_database] * 4))
    assert [version.version for version in found] == [schema.EXPECTED]


def test_an_empty_database_is_told_apart_from_an_old_one(empty_database: str) -> None:
    with pytest.raises(schema.SchemaError, match="schema apply"):
        schema.check(empty_database)


def test_a_schema_from_the_future_is_refused_unless_it_says_it_is_compatible(
    fresh_database: str,
) -> None:
    _run(fresh_database, "update schema_version set version = 99")
    assert schema.check(fresh_database).version == 99
    _run(fresh_database, "update schema_version set compatible_from = 99")
    for use in (schema.check, schema.apply):
        with pytest.raises(schema.SchemaError, match="version 99"):
            use(fresh_database)


def test_a_database_that_does_not_answer_is_one_sentence(tmp_path: object) -> None:
    with pytest.raises(schema.SchemaError, match="does not answer"):
        schema.check(f"host={tmp_path} dbname=nobody")


def test_the_clock_moves_forward_by_what_is_asked(fresh_database: str) -> None:
    assert schema.move_clock(fresh_database, 60) == 60
    assert schema.move_clock(fresh_database, 0.5) == 60.5
    with psycopg.connect(fresh_database) as connection:
        row = connection.execute("select lease_now() - clock_timestamp() > '59 s'").fetchone()
    assert row == (True,)
