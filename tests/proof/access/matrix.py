"""Every endpoint asked by every kind of caller: what comes is what is due."""

import random
from collections.abc import Iterator
from typing import NamedTuple

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
    """What does not come as it is due; refused calls change nothing."""
    keys = Keys(world)
    for row in rows:
        refused = [cell for cell in row if cell.due.code != OK]
        if refused:
            stage = _stage(keys, refused[0])
            before = keys.here.snapshot() | {"agent_session": []}
            for cell in refused:
                yield from _breach(keys, cell, stage)
            after = keys.here.snapshot() | {"agent_session": []}
            changed = [table for table in before if before[table] != after[table]]
            if changed:
                yield f"{refused[0].row.endpoint}: refused calls changed {', '.join(changed)}"
        for cell in row:
            if cell.due.code == OK:
                yield from _breach(keys, cell, _stage(keys, cell))
        if row and "scheduler" in row[0].row.path:
            for named in ("*", keys.here.id, keys.there.id):
                world.admin.also(X_Workspace=named).post("/api/scheduler/resume")


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
    outside = caller.acts_in == "there" or caller.credential in ANONYMOUS | INVALID
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
