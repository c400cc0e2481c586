"""Nobody gets in: every endpoint, every kind of caller; and secrets looked for everywhere."""

import random
from pathlib import Path

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
            told.breaches += matrix.breaches(world, rows)
            told.breaches += leases.breaches(world, holds)
            told.breaches += tickets.breaches(world)
            told.breaches += wording.breaches(world, luck)
            told.breaches += statements.breaches(world, bounds.directory, luck)
            told.breaches += [f"logged as an error: {line}" for line in world.server.errors()]
        told.breaches += canary.breaches(conninfo, bounds.directory / "canary", bounds.seed, 0.2)
    told.tried = {
        "endpoints": len(rows), "kinds of callers": max(map(len, rows)),
        "cells of the matrix": sum(map(len, rows)), "cells of leases": len(holds),
        "kinds of secrets looked for": len(canary.KINDS) + len(canary.SETTLED),
    }  # fmt: skip
    return told


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
