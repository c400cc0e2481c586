"""Every endpoint that takes the proof of a lease, asked with one that is another's, old or made
up."""

import random
from collections.abc import Iterator
from typing import Final, NamedTuple

from server.rules.tokens import claim_token
from tests.factories import Agent, Workspace
from tests.proof.access.asking import ask
from tests.proof.access.callers import OK, Due
from tests.proof.access.matrix import changes, kept
from tests.proof.access.stages import Ids, Stage, reclaimed, staged
from tests.proof.access.table import ROWS, Row
from tests.world import World

# With which proof, and how that is answered (section 5.6).
PROOFS: Final = {
    "own": OK,
    "another session, right token": "403 foreign_run",
    "another session, no token": "403 foreign_run",
    "another agent, same session": "403 identity_mismatch",
    "a token of no server": "409 invalid_claim_token",
    "a token of another thing": "409 invalid_claim_token",
    "a token without its form": "409 invalid_claim_token",
    "a token of an older claim": "409 stale_fence",
    "an agent of there, right token": "404 {thing}_not_found",
}
# As headers of another call: both or neither.
GUARDS: Final = {
    **{proof: told for proof, told in PROOFS.items() if "no token" not in proof},
    "a token without its run": "400 invalid_query",
    "a run without its token": "400 invalid_query",
}


class Hold(NamedTuple):
    """A row, and the proof with which it is asked."""

    row: Row
    proof: str

    @property
    def due(self) -> Due:
        marks = self.row.marks.split()
        told = (GUARDS if "guard" in marks else PROOFS)[self.proof]
        if self.row.template.endswith("reviews/{}/release") and "older" in self.proof:
            # The older claim ended by the session's own release: this repeats it (section 5.6).
            told = OK
        if told == OK:
            return Due(self.row.ok)
        thing = "review" if "review" in marks else "task" if "own" in marks else "run"
        status, _, code = told.format(thing=thing).partition(" ")
        # Who calls is asked before there are items.
        in_item = "bulk" in marks and code != "identity_mismatch"
        return Due(200 if in_item else int(status), code, in_item)


def holds(luck: random.Random, share: float = 1) -> list[Hold]:
    """Each row that takes a proof with each proof, or so many of them by chance."""
    made = []
    for row in ROWS:
        marks = {*row.marks.split()}
        if marks & {"lease", "review", "hand"}:
            made += [Hold(row, proof) for proof in PROOFS]
        elif "guard" in marks:
            made += [Hold(row, proof) for proof in GUARDS]
    return [hold for hold in made if luck.random() < share]


def breaches(world: World, cells: list[Hold]) -> Iterator[str]:
    """What does not come as it is due; P2: a call that is refused changes nothing."""
    here, there = world.workspace(), world.workspace()
    calls = [(hold, _call(hold, here, there)) for hold in cells]
    # What is refused first, since what is not changes something.
    calls.sort(key=lambda call: call[0].due.code == OK)
    before = kept(here)
    for hold, (ids, headers, drop) in calls:
        if hold.due.code == OK and before:
            yield from changes(here, before)
            before = {}
        came, _ = ask(world.http, hold.row, ids, headers, drop=drop)
        if came != hold.due:
            yield f"{hold.row.endpoint}, {hold.proof}: {hold.due} is due, {came} came"
    if before:
        yield from changes(here, before)


def _call(hold: Hold, here: Workspace, there: Workspace) -> tuple[Ids, Ids, frozenset[str]]:
    """The ids, the headers, and the fields of the body that are left out."""
    row, guards = hold.row, "guard" in hold.row.marks
    stage = staged("held" if guards else row.stage, here)
    run = stage.ids.get("run", "")
    if guards:
        stage.ids |= staged(row.stage, here).ids | {"token": stage.ids["token"]}
    by, token = _shown(hold.proof, stage, there)
    headers = by.sent()
    if guards:
        pair = {"X-Run-ID": run, "X-Claim-Token": token}
        left_out = {"a token without its run": "X-Run-ID", "a run without its token": "X-Claim"}
        out = left_out.get(hold.proof, "none")
        headers |= {name: text for name, text in pair.items() if not name.startswith(out)}
    drop = frozenset(() if token else {"claim_token"})
    return stage.ids | {"token": token}, headers, drop


def _shown(proof: str, stage: Stage, there: Workspace) -> tuple[Agent, str]:
    """Who calls, and with which token; none is empty."""
    here, holder, token = stage.workspace, stage.agent, stage.ids["token"]
    name = holder.headers["X-Agent-Name"]
    if proof.startswith("another session"):
        return here.agent(name), "" if "no token" in proof else token
    if proof == "another agent, same session":
        return here.agent("another", holder.session), token
    if proof == "an agent of there, right token":
        return there.agent(name), token
    if proof == "a token of no server":
        thing = stage.ids.get("review", stage.ids.get("run", ""))
        fence = int(token.split("_")[1])
        return holder, claim_token(b"another server", here.id, thing, fence)
    if proof == "a token of another thing":
        other = "judging" if "review" in stage.ids else "held"
        return holder, staged(other, here).ids["token"]
    if proof == "a token without its form":
        return holder, f"{token}!"
    if proof == "a token of an older claim":
        reclaimed(stage)
    return holder, token
