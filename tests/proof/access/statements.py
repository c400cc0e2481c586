"""P12: what an answer costs does not tell whether a thing exists elsewhere: the database does the
same statements, step by step, for a thing of another workspace and for one that never was."""

import asyncio
import random
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import httpx2
import msgspec
import psycopg
from psycopg.conninfo import make_conninfo
from starlette.applications import Starlette

from server.app import create_app
from server.config import Config
from tests.asgi import client_of
from tests.proof.access.asking import filled
from tests.proof.access.stages import Ids
from tests.proof.access.wording import Asked, asked
from tests.serving import ADMIN_KEY, SECRET
from tests.world import World

# Every statement of every connection is told with its plan and the rows that each step gave.
TELLING: Final = " ".join(
    f"-c {setting}"
    for setting in (
        "session_preload_libraries=auto_explain", "client_min_messages=notice",
        "auto_explain.log_level=notice", "auto_explain.log_min_duration=0",
        "auto_explain.log_nested_statements=on", "auto_explain.log_analyze=on",
        "auto_explain.log_timing=off",
    )
)  # fmt: skip
# Of a plan: its steps with the rows of each, without costs, times and the values looked for.
NOISE: Final = (
    (re.compile(r"duration: [\d.]+ ms"), ""),
    (re.compile(r"\(cost=\S+ rows=\d+ width=\d+\) "), ""),
    (re.compile(r"'[^']*'"), "''"),
    # How the planner was set when a plan was made that is kept for the connection.
    (re.compile(r"\n\s+Disabled: true"), ""),
    (re.compile(r"(Heap Fetches|Buffers|Planning|Execution|Memory).*"), ""),
)  # fmt: skip
REMOVED: Final = re.compile(r"\s+Rows Removed by Filter: \d+")
ATTEMPTS: Final = 4


def breaches(world: World, directory: Path, luck: random.Random, share: float = 1) -> Iterator[str]:
    """Calls whose work in the database differs."""
    calls = [call for call in asked(world, luck, share) if "stream" not in call.row.marks]
    yield from asyncio.run(_breaches(world, directory, calls))


async def _breaches(world: World, directory: Path, calls: list[Asked]) -> list[str]:
    found, done = [], 0
    told: list[str] = []

    connect = psycopg.AsyncConnection.connect

    async def listening(*args: Any, **how: Any) -> Any:
        connection = await connect(*args, **how)
        connection.add_notice_handler(lambda notice: told.append(notice.message_primary or ""))
        return connection

    with patch.object(psycopg.AsyncConnection, "connect", listening):
        async with _in_process(world, directory) as http:
            for call in calls:
                for _ in range(ATTEMPTS):  # what a loop does in between is told as well
                    work = {known: await _work(http, call, ids, told)
                            for known, ids in call.ids.items()}  # fmt: skip
                    done += len(work["never"])
                    if work["elsewhere"] == work["never"]:
                        break
                else:
                    found.append(f"{call.row.endpoint}: the database works differently: {work}")
    return found if done > len(calls) else ["no statement was told"]


async def _work(http: httpx2.AsyncClient, call: Asked, ids: Ids, told: list[str]) -> list[str]:
    """The statements of one call, with their steps."""
    told.clear()
    row = call.row
    body = None if row.body is None else msgspec.json.encode(filled(row.body, ids))
    await http.request(row.method, filled(row.path, ids), content=body, headers=call.by.sent())
    # What servers tell one another is sent once the answer is on its way.
    return [_bare(text, row.about == "key") for text in told if "pg_notify" not in text]


def _bare(text: str, keys: bool) -> str:
    # A key's text names no workspace: its row is read before it is known whose it is.
    for noise, instead in (*NOISE, (REMOVED, "")) if keys else NOISE:
        text = noise.sub(instead, text)
    return text


@asynccontextmanager
async def _in_process(world: World, directory: Path) -> AsyncIterator[httpx2.AsyncClient]:
    """A server in this process, on the same database."""
    conninfo = make_conninfo(world.server.conninfo, options=TELLING)
    settings = {
        "DATABASE_URL": conninfo, "WORKLEASE_DATA_DIR": str(directory),
        "WORKLEASE_SECRET": SECRET, "WORKLEASE_ADMIN_KEY": ADMIN_KEY, "WORKLEASE_LOOPS": "false",
        "WORKLEASE_MIGRATE": "false",
    }  # fmt: skip
    app = create_app(Config.from_env(settings))
    async with app._lifespan(Starlette()), client_of(app) as http:
        yield http
