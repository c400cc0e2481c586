"""Every endpoint asked by every kind of caller: what comes is what is due."""

import random
from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.factories import Workspace
from tests.proof.access.asking import Keys, ask, headers_of
from tests.proof.access.callers import ANONYMOUS, CALLERS, INVALID, OK, Caller, Due, due
from tests.proof.access.stages import Stage, staged
from tests.proof.access.table import ROWS, Row
from tests.world import World


class Cell(NamedTuple):
    """One endpoint asked by one kind of caller."""

    row: Row
    caller: Caller

    @property
    def due(self) -> Due:
        return due(self.row, self.caller)


def cells(luck: random.Random, share: float = 1) -> list[list[Cell]]:
    """The cells row by row, or so many of them by chance."""
    return [
        [Cell(row, caller) for caller in CALLERS if luck.random() < share] for row in ROWS
    ]  # fmt: skip


def breaches(world: World, rows: list[list[Cell]]) -> Iterator[str]:
    """What does not come as it is due; P2, P12: refused calls change nothing."""
    keys = Keys(world)
    refused = [[cell for cell in row if cell.due.code != OK] for row in rows]
    stages = [(row, _stage(keys, row[0])) for row in refused if row]
    before = kept(keys.here)
    for row, stage in stages:
        for cell in row:
            yield from _breach(keys, cell, stage)
    yield from changes(keys.here, before)
    for row in rows:
        for cell in row:
            if cell.due.code == OK:
                yield from _breach(keys, cell, _stage(keys, cell))
        if row and "scheduler" in row[0].row.path:
            for named in ("*", keys.here.id, keys.there.id):
                world.admin.also(X_Workspace=named).post("/api/scheduler/resume")


def kept(workspace: Workspace) -> dict[str, Any]:
    """All that refused calls may not change; sessions are seen, and that is noted."""
    return workspace.snapshot() | {"agent_session": []}


def changes(workspace: Workspace, before: dict[str, Any]) -> Iterator[str]:
    """What refused calls changed nevertheless."""
    for table, rows in kept(workspace).items():
        if rows != before[table]:
            new = [row for row in rows if row not in before[table]]
            yield f"refused calls changed {table}: {new[:3]}"


def _stage(keys: Keys, cell: Cell) -> Stage:
    # People end by hand what they claimed by hand.
    by_hand = "hand" in cell.row.marks and cell.caller.credential in ("operator", "admin")
    return staged("by hand" if by_hand else cell.row.stage, keys.here)


def _breach(keys: Keys, cell: Cell, stage: Stage) -> Iterator[str]:
    row, caller, wanted = cell.row, cell.caller, cell.due
    headers = headers_of(keys, row, caller, stage)
    query = {"workspace": keys.named(caller)} if caller.by == "query" else None
    people = caller.credential in ("operator", "admin") and not row.agents
    drop = frozenset({"claim_token"} if people else ())
    came, answer = ask(keys.world.http, row, stage.ids, headers, query, drop)
    if came != wanted:
        yield f"{row.endpoint}, {caller.name}: {wanted} is due, {came} came ({_again(answer)})"
    outside = (
        caller.acts_in == "there" and caller.key_of != "all"
    ) or caller.credential in ANONYMOUS | INVALID
    if outside and came.code == OK and row.roles and "stream" not in row.marks:
        named = {kind: known for kind, known in stage.ids.items() if kind not in OWN_WORDS}
        told = [kind for kind, known in named.items() if known and known in answer.text]
        if told and not row.about:
            yield f"{row.endpoint}, {caller.name}: was told the {', '.join(told)} of another"


OWN_WORDS = frozenset({"nonce", "session"})


def _again(answer: object) -> str:
    request = getattr(answer, "request", None)
    if request is None:
        return ""
    said = " ".join(f"-H '{k}: {v}'" for k, v in request.headers.items() if k.startswith("x-"))
    return f"curl -X {request.method} '{request.url}' {said}"
