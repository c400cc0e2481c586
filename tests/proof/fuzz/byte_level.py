"""Valid requests to every endpoint, spoiled in every way, sent as bytes."""

import asyncio
import random
import re
import time
from collections import Counter
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from tests.factories import Workspace
from tests.proof.access.asking import filled
from tests.proof.access.stages import Stage, staged
from tests.proof.access.table import ROWS, Row
from tests.proof.fuzz.spoil import Said, spoiled
from tests.proof.fuzz.wire import faults, say
from tests.proof.part import Told
from tests.serving import ADMIN_KEY
from tests.world import World

CONNECTIONS: Final = 16
# So many requests use the same things; then there are new ones.
BATCH: Final = 1000
GROWTH_LIMIT_BYTES: Final = 128 * 2**20
# It waits for up to a minute, as it should, where a spoiled body leaves out that it should not.
PATIENT: Final = "POST /api/scheduler/drain"
RESIDENT: Final = re.compile(r"VmRSS:\s+(\d+) kB")


class Case(NamedTuple):
    """The n-th request of a seed."""

    n: int
    raw: bytes


def fuzz(world: World, seed: int, count: int, seconds: float) -> Told:
    """Sends so many requests, or as many as there is time for."""
    told, statuses = Told(), Counter[int]()
    own = world.workspace()
    began, log = time.monotonic(), world.server.log.stat().st_size
    n, grown_from = 0, 0
    while n < count and time.monotonic() - began < seconds:
        stages = [(row, staged(row.stage, own)) for row in ROWS if row.endpoint != PATIENT]
        cases = [_case(seed, n + k, stages) for k in range(min(BATCH, count - n))]
        asyncio.run(_send(world.server.url, seed, cases, statuses, told))
        n += len(cases)
        for named in ("*", own.id):
            world.admin.also(X_Workspace=named).post("/api/scheduler/resume")
        # Its caches fill first.
        grown_from = grown_from or _resident_bytes(world)
    grown = _resident_bytes(world) - grown_from
    if grown > GROWTH_LIMIT_BYTES:
        told.breaches.append(f"the server grew by {grown >> 20} MiB in {n} requests")
    told.breaches += [f"logged as an error: {line}" for line in world.server.errors(since=log)]
    told.tried = {
        "requests of bytes": n, "answered": sum(statuses.values()),
        "statuses": ", ".join(f"{seen} of {status}" for status, seen in sorted(statuses.items())),
        "growth in MiB": grown >> 20,
    }  # fmt: skip
    return told


def _case(seed: int, n: int, stages: list[tuple[Row, Stage]]) -> Case:
    luck = random.Random(f"{seed} {n}")
    row, stage = luck.choice(stages)
    return Case(n, spoiled(luck, _said(row, stage)))


def _said(row: Row, stage: Stage) -> Said:
    """A call that keeps to all rules."""
    own: Workspace = stage.workspace
    key = ADMIN_KEY if row.roles == "M" else own.key("operator")
    headers = {
        "Host": "worklease", "Authorization": f"Bearer {key}", "Content-Type": "application/json",
        "X-Workspace": own.id,
    }  # fmt: skip
    if row.agents:
        headers |= {"X-Agent-Name": stage.agent.headers["X-Agent-Name"]}
        headers |= {"X-Session-ID": stage.agent.session}
    body = b"" if row.body is None else msgspec.json.encode(filled(row.body, stage.ids))
    pairs = tuple((name.encode(), text.encode()) for name, text in headers.items())
    return Said(row.method.encode(), filled(row.path, stage.ids).encode(), pairs, body)


async def _send(url: str, seed: int, cases: list[Case], statuses: Counter[int], told: Told) -> None:
    left = iter(cases)

    async def one_by_one() -> None:
        for case in left:
            several = case.raw.count(b" HTTP/1.") > 1
            try:
                answers = await say(url, case.raw, several)
            except TimeoutError:
                told.breaches.append(f"no answer and no end: {_again(seed, case, url)}")
                continue
            for answer in answers:
                statuses[answer.status] += 1
                for fault in faults(answer, case.raw.startswith(b"HEAD")):
                    told.breaches.append(f"{fault}: {_again(seed, case, url)}")

    await asyncio.gather(*(one_by_one() for _ in range(CONNECTIONS)))


def _again(seed: int, case: Case, url: str) -> str:
    """How to send it again."""
    host, _, port = url.removeprefix("http://").partition(":")
    raw = "".join(chr(b) if 32 <= b < 127 and b not in b"\\'%" else f"\\{b:03o}" for b in case.raw)
    return f"seed {seed}, request {case.n}: printf '{raw[:4000]}' | nc {host} {port}"


def _resident_bytes(world: World) -> int:
    told = Path(f"/proc/{world.server.process.pid}/status")
    # Elsewhere than on Linux nobody tells.
    found = RESIDENT.search(told.read_text()) if told.exists() else None
    return int(found[1]) * 1024 if found else 0
