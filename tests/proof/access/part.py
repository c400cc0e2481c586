"""Nobody gets in: every endpoint, every kind of caller; and secrets looked for everywhere."""

import random
from collections.abc import Iterator
from pathlib import Path

from httpx2 import HTTPError

from tests.client import RefusedError
from tests.proof.access import canary, leases, matrix, statements, tickets, wording
from tests.proof.ground import database, world_on
from tests.proof.part import Bounds, Told


def prove(bounds: Bounds) -> Told:
    """All cells of the matrix, however long they take: it is about two minutes."""
    told = Told()
    with database() as conninfo:
        settings = {"WORKLEASE_TRUSTED_PROXIES": "127.0.0.1/32"}
        with world_on(conninfo, bounds.directory / "server", **settings) as world:
            luck = random.Random(bounds.seed)
            rows, holds = matrix.cells(luck), leases.holds(luck)
            for found in (
                matrix.breaches(world, rows), leases.breaches(world, holds),
                tickets.breaches(world), wording.breaches(world, luck),
                statements.breaches(world, bounds.directory, luck),
            ):  # fmt: skip
                told.breaches += _until_broken(found)
            told.breaches += [f"logged as an error: {line}" for line in world.server.errors()]
        canaries = canary.breaches(conninfo, bounds.directory / "canary", bounds.seed, 0.2)
        told.breaches += _until_broken(canaries)
    told.tried = {
        "endpoints": len(rows), "kinds of callers": max(map(len, rows)),
        "cells of the matrix": sum(map(len, rows)), "cells of leases": len(holds),
        "kinds of secrets looked for": len(canary.KINDS) + len(canary.SETTLED),
    }  # fmt: skip
    return told


def _until_broken(found: Iterator[str]) -> Iterator[str]:
    """Breaches, the last of which may be that nothing more can be tried."""
    try:
        yield from found
    except (AssertionError, RefusedError, ValueError, HTTPError) as broken:
        yield f"what was to be tried could not be set up: {broken!r}"


def glance(conninfo: str, directory: Path, seed: int) -> list[str]:
    """A slice of it: some cells of every row."""
    luck = random.Random(seed)
    settings = {"WORKLEASE_TRUSTED_PROXIES": "127.0.0.1/32"}
    with world_on(conninfo, directory / "server", **settings) as world:
        return [
            *matrix.breaches(world, matrix.cells(luck, 0.05)),
            *leases.breaches(world, leases.holds(luck, 0.1)),
            *tickets.breaches(world),
            *wording.breaches(world, luck, 0.3),
            *statements.breaches(world, directory, luck, 0.3),
        ]
