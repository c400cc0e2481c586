"""The command line: serve, schema, key, openapi, doctor, discard, clock."""

import argparse
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from server.config import Config, ConfigError, unknown_variables
from server.db.keyfile import make_directory, secrets_in_use

ROLES = ("viewer", "agent", "operator", "admin")
Command = Callable[[Config, argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; the exit status. What went wrong is one sentence on stderr."""
    chosen = _parser().parse_args(arguments)
    command: Command = chosen.command
    # Late, so that --help needs neither PostgreSQL nor httpx2.
    from httpx2 import HTTPError

    from server.db.binaries import EmbeddedError
    from server.db.schema import SchemaError

    try:
        return command(Config.from_env(os.environ), chosen)
    except (ConfigError, EmbeddedError, SchemaError, HTTPError, OSError) as wrong:
        print(f"worklease: {wrong}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="worklease", description="Leases for agent workers.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(parent: Any, name: str, summary: str, command: Command) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = parent.add_parser(name, help=summary, description=summary)
        added.set_defaults(command=command)
        return added

    def group(name: str, summary: str) -> Any:
        made = commands.add_parser(name, help=summary, description=summary)
        return made.add_subparsers(required=True, metavar="ACTION")

    add(commands, "serve", "run the server, its database included", _serve)
    schema = group("schema", "the database's schema")
    add(schema, "apply", "make it, or bring it up to date", _schema_apply)
    add(schema, "version", "show which version the database has", _schema_version)
    add(schema, "restored", "run this after a restore: claims since the backup are void", _restored)
    key = group("key", "API keys of a running server")
    listed = add(key, "list", "show the keys, without their secrets", _key_list)
    listed.add_argument("--workspace", help="whose keys; * is all (default: the caller's own)")
    create = add(key, "create", "make a key; its secret is shown once", _key_create)
    create.add_argument("name")
    create.add_argument("--role", default="agent", choices=ROLES, help="(default: agent)")
    create.add_argument("--workspace", help="where it is valid; * is all, for the role admin")
    create.add_argument(
        "--agent-name", help="the agent it is for; may end in * (default: the key's name)"
    )
    create.add_argument("--expires-at", help="RFC 3339 time")
    add(commands, "openapi", "print the OpenAPI document", _openapi)
    add(commands, "doctor", "check settings, files, database and server", _doctor)
    discard = add(commands, "discard", "remove an embedded database, for good", _discard)
    discard.add_argument("directory", type=Path, help="the data directory that it belongs to")
    clock = group("clock", "the test clock; needs WORKLEASE_TEST_CLOCK")
    advance = add(clock, "advance", "move the clock forward", _clock_advance)
    advance.add_argument("seconds", type=float)
    return parser


# ── serve ───────────────────────────────────────────────────────────────────────────────────────


def _serve(config: Config, _: argparse.Namespace) -> int:
    from server import serve
    from server.db import schema

    serve.stop_on_terminate()
    for name, meant in unknown_variables(os.environ):
        hint = f", did you mean {meant}?" if meant else ""
        print(f"worklease: {name} is no setting{hint}", file=sys.stderr)
    with serve.bind(config) as listener, _database(config) as conninfo:
        # Whoever asked for any port learns which, in every address that is told.
        config = replace(config, port=listener.getsockname()[1])
        # Here as well as in every process, so that a fault is one sentence before anything starts.
        (schema.apply if config.migrate else schema.check)(conninfo)
        schema.admit(conninfo, secrets_in_use(config))
        _greet(config, schema.has_keys(conninfo))
        if config.workers == 1:
            serve.work(config, listener)
            return 0
        with tempfile.TemporaryDirectory(prefix="worklease-metrics-") as directory:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory
            from prometheus_client.multiprocess import mark_process_dead

            return serve.supervise(config, listener, mark_process_dead)


def _greet(config: Config, has_keys: bool) -> None:
    print(f"Worklease serves {config.url}")
    keys = {
        config.data_dir / "admin.key": "admin key  {}",
        config.data_dir / "agent.key": "agent key  {} (agent_sdk finds it)",
    }
    if config.admin_key:
        del keys[config.data_dir / "admin.key"]
    there = [path for path in keys if path.exists()]
    # The first server of a database makes them.
    for path in there if has_keys else keys:
        print(f"  {keys[path].format(path)}")
    if has_keys and not there:
        print("  keys       as they were made before; none is kept in this data directory")
    sys.stdout.flush()


@contextmanager
def _database(config: Config) -> Iterator[str]:
    if config.database_url:
        from server.db import schema

        schema.understood("DATABASE_URL", config.database_url)
        schema.understood("DATABASE_DIRECT_URL", config.database_direct_url)
        yield config.database_direct_url or config.database_url
        return
    from server.db import embedded

    try:
        make_directory(config.data_dir)
    except OSError as wrong:
        raise ConfigError(f"WORKLEASE_DATA_DIR: {wrong}") from None
    joined = embedded.join(config.data_dir)
    try:
        yield joined.conninfo
    finally:
        joined.leave()


# ── schema, clock, discard ──────────────────────────────────────────────────────────────────────


def _schema_apply(config: Config, _: argparse.Namespace) -> int:
    from server.db import schema

    with _database(config) as conninfo:
        print(f"schema version {schema.apply(conninfo).version}")
    return 0


def _schema_version(config: Config, _: argparse.Namespace) -> int:
    from server.db import schema

    with _database(config) as conninfo:
        found = schema.check(conninfo)
    print(f"schema version {found.version}, for servers from {found.compatible_from} on")
    return 0


def _restored(config: Config, _: argparse.Namespace) -> int:
    from server.db import schema

    with _database(config) as conninfo:
        print(f"raised the fence of {schema.restored(conninfo)} tasks")
    return 0


def _clock_advance(config: Config, chosen: argparse.Namespace) -> int:
    from server.db import schema

    if not config.test_clock:
        raise ConfigError("WORKLEASE_TEST_CLOCK: must be true to move the clock")
    with _database(config) as conninfo:
        print(f"the clock is {schema.move_clock(conninfo, chosen.seconds):g} s ahead")
    return 0


def _discard(_: Config, chosen: argparse.Namespace) -> int:
    from server.db import embedded

    if not (chosen.directory / "database.key").exists():
        raise ConfigError(f"{chosen.directory} has no embedded database")
    embedded.discard(chosen.directory)
    return 0


# ── key ─────────────────────────────────────────────────────────────────────────────────────────


def _key_list(config: Config, chosen: argparse.Namespace) -> int:
    cursor: str | None = ""
    headers = {"X-Workspace": chosen.workspace} if chosen.workspace else {}
    while cursor is not None:
        page = _call(config, "GET", "/api/keys", headers, params={"cursor": cursor})
        for key in page["keys"]:
            agent = key["agent_name"] or "-"
            place = key["workspace_id"] or "*"
            print(f"{key['id']}  {key['role']:<8}  {place:<39}  {agent:<24}  {key['name']}")
        cursor = page["next_cursor"]
    return 0


def _key_create(config: Config, chosen: argparse.Namespace) -> int:
    wanted = {
        "name": chosen.name, "role": chosen.role, "workspace": chosen.workspace,
        "agent_name": chosen.agent_name, "expires_at": chosen.expires_at,
    }  # fmt: skip
    made = _call(config, "POST", "/api/keys", {}, json=wanted)
    print(f"{made['key']['id']}, whose text is shown this once:", file=sys.stderr)
    print(made["key"]["secret"])
    return 0


def _call(config: Config, method: str, path: str, headers: dict[str, str], **request: Any) -> Any:
    import httpx2

    base = os.environ.get("WORKLEASE_URL") or config.url
    headers = {"Authorization": f"Bearer {_admin_key(config)}"} | headers
    try:
        answer = httpx2.request(method, base.rstrip("/") + path, headers=headers, **request)
    except httpx2.TransportError as wrong:
        raise ConfigError(f"no server answers at {base} (WORKLEASE_URL): {wrong}") from None
    if answer.is_error:
        try:
            told = answer.json()["diagnostic"]
            reason = f"{told['message']} ({told['code']}, {told['evidence']})"
        except (ValueError, KeyError):
            reason = f"{base} answered {answer.status_code}"
        raise httpx2.HTTPError(reason)
    return answer.json()


def _admin_key(config: Config) -> str:
    given = os.environ.get("WORKLEASE_API_KEY") or config.admin_key
    path = config.data_dir / "admin.key"
    if not given and not path.exists():
        raise ConfigError(f"WORKLEASE_API_KEY: is not set, and there is no {path}")
    return given or path.read_text().strip()


# ── openapi, doctor ─────────────────────────────────────────────────────────────────────────────


def _openapi(_: Config, __: argparse.Namespace) -> int:
    from server.api.openapi import document_yaml

    sys.stdout.write(document_yaml())
    return 0


def _doctor(config: Config, _: argparse.Namespace) -> int:
    import httpx2

    from server.db import schema
    from server.db.binaries import EmbeddedError

    faults = 0

    def report(good: bool, what: str) -> None:
        nonlocal faults
        faults += not good
        print(f"{'ok   ' if good else 'FAULT'}  {what}")

    for name, meant in unknown_variables(os.environ):
        report(False, f"{name} is no setting" + (f", did you mean {meant}?" if meant else ""))
    for name in ("secret", "database.key", "admin.key", "agent.key"):
        path = config.data_dir / name
        if path.exists():
            report(_private(path), f"{path} is readable by its owner only")
    try:
        with _database(config) as conninfo:
            report(True, "the database answers")
            report(True, f"its schema is version {schema.check(conninfo).version}")
    except (EmbeddedError, schema.SchemaError) as wrong:
        report(False, str(wrong).strip())
    base = os.environ.get("WORKLEASE_URL") or config.url
    try:
        answer = httpx2.get(f"{base}/readyz")
        report(answer.is_success, f"{base}/readyz: {answer.text}")
    except httpx2.HTTPError:
        report(False, f"no server answers at {base}")
    return 1 if faults else 0


def _private(path: Path) -> bool:
    return not stat.S_IMODE(path.stat().st_mode) & 0o077
