"""P12: a secret is in the answer that hands it out and nowhere else: in no other answer, event,
log line, metric, row, error or notification."""

import os
import random
import re
import subprocess
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_urlsafe
from typing import Any, Final, NamedTuple

import httpx2
import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests import receiver
from tests.client import Client, RefusedError
from tests.proof.access import leases, matrix, tickets
from tests.proof.ground import world_on
from tests.serving import ADMIN_KEY, SECRET, START, until
from tests.streams import subscribed
from tests.test_secrets import stored
from tests.walk import walk
from tests.world import World

# What a secret of a kind looks like, and the answers that hand it out.
KINDS: Final = {
    "claim token": (
        re.compile(r"wlt_\d+_([\w-]{43})"),
        re.compile(r"POST .*/(claim-next|claim|attach-session|complete)"),
    ),
    "key": (
        re.compile(r"wl_key_[\w-]{36}_([\w-]{43})"),
        re.compile(r"POST /api/keys(/[^/]+/rotate)?"),
    ),
    "signing secret": (
        re.compile(r"whsec_([\w+/=]{44})"),
        re.compile(r"(POST|PATCH) /api/bridges(/[^/]+)?"),
    ),
    "ticket": (re.compile(r"wls_([\w.-]+)"), re.compile(r"POST /api/auth/stream-ticket")),
}
NOWHERE: Final = re.compile("(?!)")
SETTLED: Final = (
    "metrics token", "former secret", "secret", "admin key", "database password",
)  # fmt: skip
SHOWN_ONCE: Final = ("key", "signing secret")
TERMINATE: Final = """
select pg_terminate_backend(pid) from pg_stat_activity
 where datname = %s and pid <> %s
"""


class Told(NamedTuple):
    """Something that left the server, and where it was seen."""

    where: str
    text: str


def breaches(conninfo: str, directory: Path, seed: int, share: float) -> Iterator[str]:
    """Secrets where they have no place; `share` of all refusals is looked at."""
    made = {name: f"canary-{token_urlsafe(24)}" for name in SETTLED[:2]}
    settings = {
        "WORKLEASE_METRICS_TOKEN": made["metrics token"],
        "WORKLEASE_SECRET_PREVIOUS": made["former secret"], "WORKLEASE_LOG_LEVEL": "debug",
        "WORKLEASE_BRIDGE_ALLOW_CIDRS": "127.0.0.0/8", "WORKLEASE_BRIDGE_ALLOW_HTTP": True,
        "WORKLEASE_TRUSTED_PROXIES": "127.0.0.1/32",
    }  # fmt: skip
    password = str(conninfo_to_dict(conninfo)["password"])
    settled = made | dict(
        zip(SETTLED[2:], (SECRET, ADMIN_KEY.split("_", 3)[3], password), strict=True)
    )
    with world_on(conninfo, directory, **settings) as world, _recording(world.http) as told:
        _live(world, seed, share, told)
        metrics = Client(world.http, made["metrics token"]).get("/metrics")
        told.append(Told("metrics", metrics))
        _outage(world)
        told += [Told("a row", stored(world)), Told("the log", world.server.log.read_text())]
    told.append(Told("the log of a start that failed", _failed_start(conninfo, directory)))
    yield from found(told, settled)


def found(told: list[Told], settled: dict[str, str]) -> Iterator[str]:
    """Each secret that is where it has no place; `settled` ones have a place nowhere."""
    secrets = set(settled.items())
    for kind, (form, hands_out) in KINDS.items():
        answers = [one for one in told if hands_out.fullmatch(one.where)]
        shown = [secret for one in answers for secret in set(form.findall(one.text))]
        secrets |= {(kind, secret) for secret in shown}
        if not shown:
            yield f"no {kind} was handed out: nothing was looked for"
        if kind in SHOWN_ONCE and len(set(shown)) < len(shown):
            yield f"a {kind} was shown twice"
    for kind, secret in sorted(secrets):
        place = KINDS[kind][1] if kind in KINDS else NOWHERE
        for one in told:
            if secret in one.text and not place.fullmatch(one.where):
                yield f"a {kind} stands in {one.where}"


@contextmanager
def _recording(http: httpx2.Client) -> Iterator[list[Told]]:
    """Every answer that this client gets, by method and path."""
    told: list[Told] = []

    def note(answer: httpx2.Response) -> None:
        if answer.headers.get("content-type") != "text/event-stream":
            answer.read()
            where = f"{answer.request.method} {answer.request.url.path}"
            told.append(Told(where, f"{answer.headers} {answer.text}"))

    http.event_hooks = {"response": [note]}
    yield told
    http.event_hooks = {}


def _live(world: World, seed: int, share: float, told: list[Told]) -> None:
    """Calls every endpoint, well and badly, while a receiver and a subscriber listen."""
    own = world.workspace()
    with receiver.receiving() as there:
        bridge = receiver.bridge(own, there.url, workspace_event_types=["task.run_claimed"])
        own.operator.patch(f"/api/bridges/{bridge.id}", rotate_secret=True)
        there.answer(500, b"no")
        walk(own)
        _keys(own.operator, world.admin, own.id)
        world.deliver()
        told += [Told("a notification", f"{got.headers} {got.body!r}") for got in there.got]
    ticket = own.agent().post("/api/auth/stream-ticket").ticket
    for query in ({"ticket": ticket}, {}):
        by = own.operator if not query else Client(world.http, "")
        with subscribed(by, "/api/observe/stream", after_sequence=0, **query) as stream:
            told.append(Told("a stream", str(stream.until("ready"))))
    luck = random.Random(seed)
    # Whether they are answered as is due is asked elsewhere.
    for asked in (
        matrix.breaches(world, matrix.cells(luck, share)),
        leases.breaches(world, leases.holds(luck, share)), tickets.breaches(world),
    ):  # fmt: skip
        deque(asked, maxlen=0)


def _keys(operator: Client, admin: Client, workspace_id: str) -> None:
    """Makes keys again and again under one Idempotency-Key, and shows them in wrong places."""
    body: dict[str, Any] = {"name": "canary", "role": "viewer", "workspace": workspace_id}
    key = admin.post("/api/keys", "one-key", **body).key
    admin.post("/api/keys", "one-key", **body)
    admin.post(f"/api/keys/{key.id}/rotate", "one-rotation")
    admin.post(f"/api/keys/{key.id}/rotate", "one-rotation")
    for query in ({"api_key": key.secret}, {"ticket": key.secret}, {"limit": key.secret[-43:]}):
        with suppress(RefusedError):
            operator.get("/api/observe/stream", **query)


def _outage(world: World) -> None:
    """The database is away for a while, and the server says so."""
    name = str(conninfo_to_dict(world.server.conninfo)["dbname"])
    with psycopg.connect(world.server.conninfo, dbname="postgres", autocommit=True) as beside:
        beside.execute(f'alter database "{name}" with allow_connections false'.encode())
        beside.execute(TERMINATE, [name, world.db.info.backend_pid])
        with suppress(RefusedError):
            world.admin.get("/api/tasks")
        beside.execute(f'alter database "{name}" with allow_connections true'.encode())
    until(lambda: world.http.get("/readyz").status_code == 200)


def _failed_start(conninfo: str, directory: Path) -> str:
    """What a server says that cannot reach its database."""
    told = {
        "DATABASE_URL": make_conninfo(conninfo, port=1), "WORKLEASE_SECRET": SECRET,
        "WORKLEASE_ADMIN_KEY": ADMIN_KEY, "WORKLEASE_DATA_DIR": str(directory),
        "WORKLEASE_PORT": "0",
    }  # fmt: skip
    environ = os.environ | told
    done = subprocess.run(START, env=environ, capture_output=True, timeout=60, check=False)
    return f"{done.stdout!r} {done.stderr!r}"
