"""A PostgreSQL for the session, and databases on it that tests may do with as they like."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from secrets import token_hex

import psycopg
import pytest
from hypothesis import settings
from psycopg import sql
from psycopg.conninfo import make_conninfo

from server.db import schema
from tests import serving
from tests.bouncer import Bouncer, found
from tests.factories import Agent, Workspace
from tests.identity import client_as, own_db  # noqa: F401 - fixtures
from tests.serving import Server, throwaway_postgres
from tests.world import Servers, World

pytest_plugins = ["agent_sdk.testing", "tests.agents"]

# For a search that takes minutes: pytest tests/test_model.py --hypothesis-profile=long
settings.register_profile("long", max_examples=300, stateful_step_count=80, deadline=None)


def pytest_configure() -> None:
    """A run that is told to stop clears up, as one that is interrupted does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Where the server is: TEST_DATABASE_URL, an image under Docker, else an embedded one."""
    if url := os.environ.get("TEST_DATABASE_URL"):
        yield url
    elif image := os.environ.get("TEST_POSTGRES_IMAGE"):
        yield from _container(image)
    else:
        with throwaway_postgres() as conninfo:
            yield conninfo


@pytest.fixture(scope="session")
def bouncer(postgres: str) -> Iterator[Bouncer]:
    """PgBouncer in front of it."""
    program = found()
    if program is None:
        pytest.skip("there is no pgbouncer here")
    between = Bouncer(program, postgres)
    yield between
    between.stop()


@pytest.fixture(scope="session", autouse=True)
def led(request: pytest.FixtureRequest) -> None:
    """Where a run asks for it (make test-pgbouncer), servers find their database through it."""
    if os.environ.get("TEST_PGBOUNCER"):
        between: Bouncer = request.getfixturevalue("bouncer")
        serving.leads = between.settings


def _container(image: str) -> Iterator[str]:
    from testcontainers.postgres import PostgresContainer

    with PostgresContainer(image, driver=None) as container:
        yield container.get_connection_url()


@pytest.fixture(scope="session")
def new_database(postgres: str) -> Iterator[Callable[[bool], str]]:
    """Makes a database, with the schema in it or empty, and gives its conninfo."""
    made: list[str] = []

    def make(with_schema: bool) -> str:
        # The first one with the schema is the template of the others: copying is quicker.
        name = f"worklease_test_{token_hex(6)}"
        template = made[0] if with_schema and made else "template0"
        _execute(postgres, "create database {} template {}", name, template)
        made.append(name)
        conninfo = make_conninfo(postgres, dbname=name)
        if with_schema and template == "template0":
            schema.apply(conninfo)
        return conninfo

    make(True)
    yield make
    for name in made:
        _execute(postgres, "drop database {} with (force)", name)


@pytest.fixture(scope="session")
def database(new_database: Callable[[bool], str]) -> str:
    """The database that the tests of a session share; each makes a workspace of its own."""
    return new_database(True)


@pytest.fixture
def fresh_database(new_database: Callable[[bool], str]) -> str:
    """A database with the schema and nothing else in it."""
    return new_database(True)


@pytest.fixture
def empty_database(new_database: Callable[[bool], str]) -> str:
    """A database with nothing in it at all."""
    return new_database(False)


@pytest.fixture(scope="session")
def world(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The server that most tests share. Its loops run when a test calls them, and never else."""
    server = Server(
        database, tmp_path_factory.mktemp("server"), WORKLEASE_LOOPS=False,
        WORKLEASE_BRIDGE_ALLOW_CIDRS="127.0.0.0/8", WORKLEASE_BRIDGE_ALLOW_HTTP=True,
    )  # fmt: skip
    shared = World(server)
    yield shared
    shared.close()
    server.stop()
    assert server.errors() == []


@pytest.fixture
def servers(database: str, tmp_path: Path) -> Iterator[Servers]:
    """Further servers on the database that most tests share."""
    further = Servers(database, tmp_path)
    yield further
    further.stop()


@pytest.fixture
def alone(fresh_database: str, tmp_path: Path) -> Iterator[Servers]:
    """Servers on a database that nobody else uses."""
    own = Servers(fresh_database, tmp_path)
    yield own
    own.stop()


@pytest.fixture
def lonely(alone: Servers) -> Iterator[World]:
    """A server on a database that nobody else uses."""
    own = World(alone.start().server)
    yield own
    own.close()


@pytest.fixture
def workspace(world: World) -> Iterator[Workspace]:
    """A workspace of this test's own, which must be in order when the test is done."""
    own = world.workspace()
    yield own
    assert own.faults() == {}


@pytest.fixture
def agent(workspace: Workspace) -> Agent:
    """An agent's session in the workspace of this test."""
    return workspace.agent()


def _execute(conninfo: str, statement: str, *names: str) -> None:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))
