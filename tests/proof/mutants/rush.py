"""Everybody does the same step at the same moment, at several servers: nothing is done twice."""

import random
from collections.abc import Sequence
from typing import Any, Final

from tests.crowd import Crowd, Reply, crowd, request
from tests.factories import Agent, Workspace
from tests.proof.mutants.trial import Trial
from tests.replay import replay

ROUNDS: Final = 16
LOOK_EVERY: Final = 4
RACERS: Final = 3
RACES: Final = 200
FURTHER_RACES: Final = 30
ONE: Final = {"title": "wanted", "auto_enqueue_on_ready": True}
AGENTS: Final = 24
CALLERS: Final = 40
PLANS: Final = 7
NEAR: Final = 6
CANCELS: Final = 5
OFFERS: Final = "select count(*) from offer where workspace_id = %s"
Taken = tuple[Agent, Any]
ROOTS: Final = 8
CLAIM: Final = "/api/agent/tasks/claim-next"
REVIEW: Final = "/api/agent/reviews/claim-next"
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
    with crowd([world.server.url, further], CALLERS) as callers, crowd([further], 2 * NEAR) as near:
        game = Round(trial, workspace, callers, near, agents, dice)
        for n in range(1, ROUNDS + 1):
            game.play()
            if n % LOOK_EVERY == 0:
                _judge(trial, workspace)


def race(trial: Trial) -> None:
    """Of a few who ask several servers for one run at the same moment, one gets it."""
    world, workspace = trial.world, trial.world.workspace()
    urls = [world.server.url] + [trial.servers.start().server.url for _ in range(RACERS - 1)]
    with crowd(urls, 2 * RACERS) as callers:
        course = Course(trial, workspace, callers)
        for _ in range(RACES):
            course.make(ONE)
            course.run()
        course.end()
        for _ in range(FURTHER_RACES):
            for priority in ("low", "high"):
                course.make(ONE | {"concurrency_key": "one", "priority": priority})
            for _ in range(2):
                course.run()
                course.end()
            course.make(ONE | {"review_policy": "on_success"})
            course.run()
            course.end()
            course.review()
    taken = [lease["run_id"] for _, lease in course.held]
    assert len(taken) == len(set(taken)), "P1: a run was given twice"
    _judge(trial, workspace)


class Course:
    """Where a few race for one thing, again and again."""

    def __init__(self, trial: Trial, workspace: Workspace, callers: Crowd) -> None:
        self.trial, self.operator, self.callers = trial, workspace.operator, callers
        self.agents = [workspace.agent() for _ in callers.lines]
        judges = [workspace.agent("judge") for _ in callers.lines]
        self.claims = [request(agent, "POST", CLAIM, {}) for agent in self.agents]
        self.reviews = [request(judge, "POST", REVIEW, {}) for judge in judges]
        self.held: list[tuple[Agent, Any]] = []

    def make(self, task: dict[str, Any]) -> None:
        """Puts out a prize."""
        create = request(self.operator, "POST", "/api/tasks", task)
        assert self.callers.at_once([create])[0].status == 201

    def run(self) -> None:
        """Everybody wants a run, and one gets one."""
        n, reply = self._won(self.claims, "the run, or its slot,")
        self.held.append((self.agents[n], reply.told["claim"]["lease"]))

    def end(self) -> None:
        """Who has the newest lease ends it."""
        agent, lease = self.held[-1]
        path = f"/api/agent/tasks/{lease['run_id']}/complete"
        proof = {"claim_token": lease["claim_token"]}
        assert self.callers.at_once([request(agent, "POST", path, proof)])[0].status == 200

    def review(self) -> None:
        """Everybody wants to judge, and one may."""
        self._won(self.reviews, "the review")

    def _won(self, claims: Sequence[bytes], prize: str) -> tuple[int, Reply]:
        replies = self.callers.at_once(claims)
        self.trial.operations += len(claims) + 1
        won = [(n, reply) for n, reply in enumerate(replies) if reply.status == 200]
        assert {reply.status for reply in replies} <= {200, 204}, "a claim was refused"
        assert len(won) <= 1, f"P1: {len(won)} callers hold {prize}"
        assert won, f"P7: {prize} that many asked for was not given to any"
        return won[0]


def _proof(claim: Any) -> Any:
    return claim and claim["lease"]["claim_token"]


def _judge(trial: Trial, workspace: Workspace) -> None:
    faults = workspace.faults()
    assert not faults, f"books: {', '.join(faults)}"
    replay(trial.world, workspace.id, workspace.log())


class Round:
    """Some tasks, others that wait for two or three of them, and a tree that others wait for."""

    def __init__(
        self, trial: Trial, workspace: Workspace, callers: Crowd, near: Crowd,
        agents: list[Agent], dice: random.Random,
    ) -> None:  # fmt: skip
        self.trial, self.agents, self.dice = trial, agents, dice
        # Connections to both servers, and to one of them.
        self.callers, self.near = callers, near
        self.workspace, self.operator, self.count = workspace, workspace.operator, 0

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
        held = self._claim()
        assert sorted(claim["task"]["id"] for _, claim in held) == sorted(due), (
            "P7: a run that could be claimed was not, while many asked"
        )
        plans = self._plans(due)
        held = self._end(held, [*plans, *plans, *self._steers(ids)])
        self._finish(held, [ids[f"d{n}"] for n in range(CANCELS)])
        self._ask_one_server()

    def _at_once(self, requests: Sequence[bytes]) -> list[Reply]:
        self.trial.operations += len(requests)
        replies = self.callers.at_once(requests)
        assert all(reply.status < 500 for reply in replies), "the server had a fault"
        return replies

    def _claims(self) -> list[bytes]:
        """A claim of each agent, and those of some once more, on another connection."""
        self.count += 1
        claims = [request(by, "POST", CLAIM, {}, f"claim-{self.count}") for by in self.agents]
        # A turn on: by another server.
        return claims + claims[1 : CALLERS - AGENTS - CANCELS - 1]

    def _claim(self) -> list[Taken]:
        return self._hold(self._at_once(self._claims()))

    def _hold(self, replies: Sequence[Reply]) -> list[Taken]:
        """What each agent got; each answer went to whom it is for."""
        held: dict[str, Taken] = {}
        for agent, reply in zip(self.agents + self.agents[1:], replies, strict=False):
            assert reply.status in (200, 204, 409), f"a claim was answered {reply.status}"
            claim = reply.told["claim"] if reply.status == 200 else None
            if claim is not None:
                told = claim["lease"]["session_id"]
                assert told == agent.session, "a claim was told to somebody else"
                _, other = held.setdefault(told, (agent, claim))
                assert _proof(other) == _proof(claim), "P5: a claim sent twice is two claims"
        taken = [claim["run"]["id"] for _, claim in held.values()]
        assert len(taken) == len(set(taken)), "P1: two callers hold one run"
        return list(held.values())

    def _plans(self, roots: list[str]) -> list[bytes]:
        """Tasks that wait for those whose leases end this moment."""
        return [
            request(self.operator, "POST", "/api/tasks", ONE | {
                "depends_on": self.dice.sample(roots, 2),
            }, f"plan-{self.count}-{n}") for n in range(PLANS)
        ]  # fmt: skip

    def _steers(self, ids: dict[str, str]) -> list[bytes]:
        """The tree is canceled, while those that wait for its leaves are told not to mind."""
        cancel = request(self.operator, "POST", f"/api/tasks/{ids['tree']}/cancel", {})
        mind = {"on_dependency_failure": "run"}
        return [cancel] + [
            request(self.operator, "PATCH", f"/api/tasks/{ids[f'w{n}']}", mind)
            for n in range(ROOTS)
        ]

    def _end(self, held: Sequence[Taken], others: Sequence[bytes] = ()) -> list[Taken]:
        """Ends leases beside what others do, each call sent twice; what was claimed with them."""
        ends = [self._ending(agent, claim) for agent, claim in held]
        several = [*ends, *others, *ends][:CALLERS]
        self.dice.shuffle(several)
        replies = self._at_once(several)
        following: list[Taken] = []
        for (agent, _), end in zip(held, ends, strict=True):
            told = [reply for one, reply in zip(several, replies, strict=True) if one is end]
            assert len({reply.code for reply in told}) == 1, "P5: an end sent twice is two ends"
            assert told[0].code in (None, "run_canceled"), f"an end was refused: {told[0].code}"
            claims = [claim for reply in told if (claim := (reply.told or {}).get("claim"))]
            assert len(set(map(_proof, claims))) < 2, "P5: an end sent twice claimed twice"
            following += [(agent, claim) for claim in claims[:1]]
        assert {reply.status for reply in replies} <= {200, 201, 409}
        made = {
            (one, r.told["task"]["id"])
            for one, r in zip(several, replies, strict=True)
            if r.status == 201
        }
        assert len(made) == len(dict(made)), "P5: a plan sent twice is two tasks"
        return following

    def _ending(self, agent: Agent, claim: Any) -> bytes:
        how = self.dice.choice(("complete", "complete", "complete", "release"))
        more: dict[str, Any] = (
            {"claim_next": {}} if how == "complete" and self.dice.random() < 0.3 else {}
        )
        lease = claim["lease"]
        path = f"/api/agent/tasks/{lease['run_id']}/{how}"
        return request(agent, "POST", path, {"claim_token": lease["claim_token"], **more})

    def _finish(self, held: list[Taken], unwanted: list[str]) -> None:
        """What waited is claimed until nothing is left; claims and some tasks are stopped first."""
        paths = ["/api/scheduler/pause", *(f"/api/tasks/{task_id}/cancel" for task_id in unwanted)]
        stops = [request(self.operator, "POST", path, {}) for path in paths]
        held += self._hold(self._at_once([*self._claims(), *stops])[: -len(stops)])
        self.operator.post("/api/scheduler/resume")
        while held := [*self._end(held[:AGENTS]), *held[AGENTS:], *self._claim()]:
            pass
        self._all_taken()

    def _ask_one_server(self) -> None:
        """Tasks are made while they are asked for, always at the same server."""
        creates = [request(self.operator, "POST", "/api/tasks", ONE) for _ in range(NEAR)]
        claims = [request(agent, "POST", CLAIM, {}) for agent in self.agents[:NEAR]]
        self.near.at_once(creates + claims)
        while any(reply.status == 200 for reply in self.near.at_once(claims)):
            pass
        self._all_taken()

    def _all_taken(self) -> None:
        [[count]] = self.trial.world.db.execute(OFFERS, [self.workspace.id])
        assert count == 0, f"P7: {count} runs are in the queue, and nobody who asks gets them"
