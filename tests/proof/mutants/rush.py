"""Everybody does the same step at the same moment, at several servers: nothing is done twice."""

import random
from collections.abc import Sequence
from typing import Any, Final

from tests.crowd import Crowd, Reply, crowd, request
from tests.factories import Agent, Workspace
from tests.proof.mutants.trial import Trial
from tests.replay import replay

ROUNDS: Final = 60
AGENTS: Final = 24
OPERATORS: Final = 12
ROOTS: Final = 8
CLAIM: Final = "/api/agent/tasks/claim-next"
# Between a look and the lock that follows it, others get their turn: what is wrong with that shows.
DAWDLE: Final = """
create function dawdle() returns trigger language plpgsql as $$
begin
  perform pg_sleep(0.004 * random() ^ 3);
  return null;
end $$;
create trigger dawdle before update on task for each statement execute function dawdle();
create trigger dawdle before insert or update on dependency for each statement
  execute function dawdle();
create trigger dawdle before insert on event for each statement execute function dawdle();
create trigger dawdle before delete on offer for each statement execute function dawdle();
"""


def rush(trial: Trial) -> None:
    """Rounds of claims, then of completions beside those who plan and steer, all at once."""
    world, workspace = trial.world, trial.world.workspace()
    world.db.execute(DAWDLE)
    further = trial.servers.start().server.url
    dice = random.Random(trial.seed)
    agents = [workspace.agent() for _ in range(AGENTS)]
    with crowd([world.server.url, further], AGENTS + OPERATORS) as callers:
        for _ in range(ROUNDS):
            Round(trial, workspace, callers, agents, dice).play()
    faults = workspace.faults()
    assert not faults, f"books: {', '.join(faults)}"
    replay(world, workspace.id, workspace.log())


class Round:
    """Some tasks, and others that wait for two or three of them."""

    def __init__(
        self, trial: Trial, workspace: Workspace, callers: Crowd, agents: list[Agent],
        dice: random.Random,
    ) -> None:  # fmt: skip
        self.trial, self.workspace, self.callers = trial, workspace, callers
        self.agents, self.dice = agents, dice

    def play(self) -> None:
        """Makes the tasks, and does everything that there is to do, in as few steps as it goes."""
        roots = [f"r{n}" for n in range(ROOTS)]
        items: list[dict[str, Any]] = [{"ref": ref, "title": ref} for ref in roots]
        for n in range(ROOTS):
            waits = self.dice.sample(roots, self.dice.randint(2, 3))
            items.append({"ref": f"d{n}", "title": "d", "depends_on_refs": waits})
        ids = self.workspace.operator.post("/api/tasks/bulk", tasks=items).ids
        held = self._claims([ids[ref] for ref in roots])
        self._ends(held, [ids[ref] for ref in roots])
        self._finish()

    def _at_once(self, requests: Sequence[bytes]) -> list[Reply]:
        self.trial.operations += len(requests)
        replies = self.callers.at_once(requests)
        assert all(reply.status < 500 for reply in replies), "the server had a fault"
        return replies

    def _claims(self, due: list[str]) -> list[tuple[Agent, Any]]:
        replies = self._at_once([request(agent, "POST", CLAIM, {}) for agent in self.agents])
        held = []
        for agent, reply in zip(self.agents, replies, strict=False):
            if reply.status == 200:
                claim = reply.told["claim"]
                lease = claim["lease"]
                assert lease["session_id"] == agent.session, "a claim was told to somebody else"
                held.append((agent, claim))
        taken = [claim["run"]["id"] for _, claim in held]
        assert len(taken) == len(set(taken)), "P1: two callers hold one run"
        assert sorted(claim["task"]["id"] for _, claim in held) == sorted(due), (
            "P7: a run that could be claimed was not, while many asked"
        )
        return held

    def _ends(self, held: list[tuple[Agent, Any]], roots: list[str]) -> None:
        """All leases end at the same moment, while others make tasks that wait for their tasks."""
        operator = self.workspace.operator
        ends = [_end(agent, claim, self.dice) for agent, claim in held]
        plans = [
            request(operator, "POST", "/api/tasks", {
                "title": "planned", "auto_enqueue_on_ready": True,
                "depends_on": self.dice.sample(roots, 2),
            }) for _ in range(OPERATORS)
        ]  # fmt: skip
        several = ends + plans
        self.dice.shuffle(several)
        assert {reply.status for reply in self._at_once(several)} <= {200, 201, 409}

    def _finish(self) -> None:
        """What waited is claimed and completed, until nothing is left."""
        while True:
            replies = self._at_once([request(agent, "POST", CLAIM, {}) for agent in self.agents])
            held = [
                (agent, reply.told["claim"])
                for agent, reply in zip(self.agents, replies, strict=False)
                if reply.status == 200
            ]
            if not held:
                return
            self._at_once([_complete(agent, claim) for agent, claim in held])


def _complete(agent: Agent, claim: Any) -> bytes:
    lease = claim["lease"]
    path = f"/api/agent/tasks/{lease['run_id']}/complete"
    return request(agent, "POST", path, {"claim_token": lease["claim_token"]})


def _end(agent: Agent, claim: Any, dice: random.Random) -> bytes:
    if dice.random() < 0.8:
        return _complete(agent, claim)
    lease = claim["lease"]
    path = f"/api/agent/tasks/{lease['run_id']}/release"
    return request(agent, "POST", path, {"claim_token": lease["claim_token"]})
