"""Everybody does the same step at the same moment, at several servers: nothing is done twice."""

import random
from collections.abc import Sequence
from typing import Any, Final

from tests.crowd import Crowd, Reply, crowd, request
from tests.factories import Agent, Workspace
from tests.proof.mutants.trial import Trial
from tests.replay import replay

ROUNDS: Final = 30
LOOK_EVERY: Final = 5
RACERS: Final = 3
RACES: Final = 400
ONE: Final = {"title": "wanted", "auto_enqueue_on_ready": True}
AGENTS: Final = 24
CALLERS: Final = 40
PLANS: Final = 8
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
    with crowd([world.server.url, further], CALLERS) as callers:
        for n in range(1, ROUNDS + 1):
            Round(trial, workspace, callers, agents, dice).play()
            if n % LOOK_EVERY == 0:
                _judge(trial, workspace)


def race(trial: Trial) -> None:
    """Of a few who ask several servers for one run at the same moment, one gets it."""
    world, workspace = trial.world, trial.world.workspace()
    urls = [world.server.url] + [trial.servers.start().server.url for _ in range(RACERS - 1)]
    claims = [request(workspace.agent(), "POST", CLAIM, {}) for _ in urls * 2]
    create = request(workspace.operator, "POST", "/api/tasks", ONE)
    taken = []
    with crowd(urls, len(claims)) as callers:
        for _ in range(RACES):
            assert callers.at_once([create])[0].status == 201
            replies = callers.at_once(claims)
            trial.operations += len(claims) + 1
            won = [reply.told["claim"]["run"]["id"] for reply in replies if reply.status == 200]
            assert {reply.status for reply in replies} <= {200, 204}, "a claim was refused"
            assert len(won) <= 1, f"P1: {len(won)} callers hold the run"
            assert won, "P7: a run that many asked for was not given to any"
            taken += won
    assert len(taken) == len(set(taken)), "P1: a run was given twice"
    _judge(trial, workspace)


def _judge(trial: Trial, workspace: Workspace) -> None:
    faults = workspace.faults()
    assert not faults, f"books: {', '.join(faults)}"
    replay(trial.world, workspace.id, workspace.log())


class Round:
    """Some tasks, others that wait for two or three of them, and a tree that others wait for."""

    def __init__(
        self, trial: Trial, workspace: Workspace, callers: Crowd, agents: list[Agent],
        dice: random.Random,
    ) -> None:  # fmt: skip
        self.trial, self.callers, self.agents, self.dice = trial, callers, agents, dice
        self.operator = workspace.operator

    def play(self) -> None:
        """Makes the tasks, and does everything that there is to do, in as few steps as it goes."""
        roots = [f"r{n}" for n in range(ROOTS)]
        items: list[dict[str, Any]] = [{"ref": ref, "title": ref} for ref in roots]
        items.append({"ref": "tree", "title": "t", "auto_enqueue_on_ready": False})
        for n in range(ROOTS):
            waits = self.dice.sample(roots, self.dice.randint(2, 3))
            items.append({"ref": f"d{n}", "title": "d", "depends_on_refs": waits})
            leaf = {"ref": f"l{n}", "parent_ref": "tree", "auto_enqueue_on_ready": False}
            items.append({"title": "l", **leaf})
            items.append({"ref": f"w{n}", "title": "w", "depends_on_refs": [f"l{n}"]})
        ids = self.operator.post("/api/tasks/bulk", tasks=items).ids
        due = [ids[ref] for ref in roots]
        held = self._hold(self._at_once(self._claims()))
        assert sorted(claim["task"]["id"] for _, claim in held) == sorted(due), (
            "P7: a run that could be claimed was not, while many asked"
        )
        ends = [self._end(agent, claim) for agent, claim in held]
        several = [*ends, *self._plans(due), *self._steers(ids)]
        self.dice.shuffle(several)
        assert {reply.status for reply in self._at_once(several)} <= {200, 201, 409}
        self._finish()

    def _at_once(self, requests: Sequence[bytes]) -> list[Reply]:
        self.trial.operations += len(requests)
        replies = self.callers.at_once(requests)
        assert all(reply.status < 500 for reply in replies), "the server had a fault"
        return replies

    def _claims(self) -> list[bytes]:
        return [request(agent, "POST", CLAIM, {}) for agent in self.agents]

    def _hold(self, replies: Sequence[Reply]) -> list[tuple[Agent, Any]]:
        """What each agent got; each answer went to whom it is for."""
        held = [
            (agent, reply.told["claim"])
            for agent, reply in zip(self.agents, replies, strict=False)
            if reply.status == 200
        ]
        for agent, claim in held:
            told = claim["lease"]["session_id"]
            assert told == agent.session, "a claim was told to somebody else"
        taken = [claim["run"]["id"] for _, claim in held]
        assert len(taken) == len(set(taken)), "P1: two callers hold one run"
        return held

    def _plans(self, roots: list[str]) -> list[bytes]:
        """Tasks that wait for those whose leases end this moment."""
        return [
            request(self.operator, "POST", "/api/tasks", ONE | {
                "depends_on": self.dice.sample(roots, 2),
            }) for _ in range(PLANS)
        ]  # fmt: skip

    def _steers(self, ids: dict[str, str]) -> list[bytes]:
        """The tree is canceled, while those that wait for its leaves are told not to mind."""
        cancel = request(self.operator, "POST", f"/api/tasks/{ids['tree']}/cancel", {})
        mind = {"on_dependency_failure": "run"}
        return [cancel] + [
            request(self.operator, "PATCH", f"/api/tasks/{ids[f'w{n}']}", mind)
            for n in range(ROOTS)
        ]

    def _end(self, agent: Agent, claim: Any) -> bytes:
        how = "complete" if self.dice.random() < 0.8 else "release"
        lease = claim["lease"]
        path = f"/api/agent/tasks/{lease['run_id']}/{how}"
        return request(agent, "POST", path, {"claim_token": lease["claim_token"]})

    def _finish(self) -> None:
        """What waited is claimed, first while all claims are stopped, until nothing is left."""
        pause = request(self.operator, "POST", "/api/scheduler/pause", {})
        held = self._hold(self._at_once([*self._claims(), pause]))
        self.operator.post("/api/scheduler/resume")
        while True:
            self._at_once([self._end(agent, claim) for agent, claim in held])
            held = self._hold(self._at_once(self._claims()))
            if not held:
                return
