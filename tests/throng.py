"""Agents and operators who work on the same few tasks without any plan."""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from tests.client import Client
from tests.crowd import Line, Reply, crowd, request
from tests.factories import Agent, Workspace

TASK = {"title": "t", "auto_enqueue_on_ready": True, "retry": {"strategy": "none"}}
STEPS = 50


class Step(NamedTuple):
    """A call that is to be made."""

    method: str
    path: str
    body: Any = None


class Throng:
    """Agents and operators who work on the same few tasks, without any plan."""

    def __init__(self, workspace: Workspace, parent: str | None = None, steps: int = STEPS) -> None:
        self.workspace, self.steps = workspace, steps
        self.tasks = [workspace.task(parent_task_id=parent).id for _ in range(12)]
        self.runs = ["run_0"]
        self.met: Counter[tuple[Any, ...]] = Counter()

    def live(self, urls: Sequence[str], seed: int = 0) -> None:
        """Everybody lives at once, each on a connection of its own to one of these servers."""
        with crowd(urls, 25) as callers:
            time, *lines = callers.lines
            lives = [self.time(time)]
            for n, line in enumerate(lines):
                dice = random.Random(f"{seed} {n}")
                if n % 2:
                    lives.append(self.agent(line, self.workspace.agent(), dice))
                else:
                    lives.append(self.operator(line, self.workspace.operator, dice))
            callers.together(lives)
        faults = [met for met in self.met if met[2] >= 500]
        assert not faults, f"the server had a fault: {faults}"

    async def agent(self, line: Line, agent: Agent, dice: random.Random) -> None:
        """Claims, and ends what it claimed in one way or another."""
        for _ in range(self.steps // 3):
            wish = {"max_runs": dice.choice([2, 2, 5]), "lease_seconds": 5}
            got = await self._call(line, agent, Step("POST", "/api/agent/tasks/claim-next", wish))
            for claim in got.told["claims"] if got.status == 200 else ():
                lease = claim["lease"]
                assert lease["session_id"] == agent.session, "a claim was told to somebody else"
                run_id, token = lease["run_id"], lease["claim_token"]
                self.runs.append(run_id)
                path = f"/api/agent/tasks/{run_id}"
                for operation, body in _endings(dice):
                    told = {"claim_token": token, **body}
                    await self._call(line, agent, Step("POST", f"{path}/{operation}", told))

    async def operator(self, line: Line, operator: Client, dice: random.Random) -> None:
        """Makes, changes and removes what comes to mind."""
        for _ in range(self.steps):
            one, other = dice.choices(self.tasks[-12:], k=2)
            step = self._whim(dice, one, other)
            reply = await self._call(line, operator, step)
            if reply.status == 201 and step.path == "/api/tasks/bulk":
                self.tasks += reply.told["ids"].values()
            elif reply.code == "task_not_found" or step == Step("POST", f"/api/tasks/{one}/cancel"):
                self.tasks = [task for task in self.tasks if task != one]

    async def _call(self, line: Line, by: Client, step: Step) -> Reply:
        reply = await line.ask(request(by, *step))
        self.met[step.method, step.path.split("/")[-1], reply.status, reply.code] += 1
        return reply

    def _whim(self, dice: random.Random, one: str, other: str) -> Step:
        task, run = f"/api/tasks/{one}", dice.choice(self.runs[-12:])
        policy = dice.choice(["block", "cancel", "run"])
        patch = {"priority": dice.choice(["low", "high"]), "on_dependency_failure": policy}
        limits = {
            "concurrency_key": dice.choice(["a", "b", None]),
            "budget": dice.choice(
                [
                    {"max_total_tokens": 100},
                    {"max_total_tokens": 200},
                    {"max_cost": 1},
                    None,
                ]
            ),
        }
        defaults = {"on_dependency_failure": policy, "retry": {"strategy": "none"}}
        items: list[dict[str, Any]] = [{"title": "t", "ref": ref} for ref in "abcd"]
        items += [{"title": "t", "ref": "e", "depends_on_refs": ["a", "b"], "depends_on": [one]}]
        items += [{"title": "t", "ref": "f", "parent_task_id": other}]
        items += [{"title": "t", "ref": "g", "depends_on": [one], "auto_enqueue_on_ready": False}]
        create = Step("POST", "/api/tasks/bulk", {"tasks": items, "defaults": defaults})
        depend = Step("POST", f"{task}/dependencies", {"depends_on_task_id": other})
        return dice.choice([
            create, create, depend, depend,
            Step("POST", "/api/tasks", TASK | {"depends_on": sorted({one, other})}),
            Step("PATCH", task, patch), Step("PATCH", task, limits),
            Step("POST", "/api/tasks", TASK | limits | {"concurrency_limit": 2})
            if limits["concurrency_key"] else Step("PATCH", task, limits),
            Step("DELETE", f"{task}/dependencies/{other}"),
            Step("POST", f"{task}/cancel"),
            Step("DELETE", task),
            Step("POST", f"{task}/start", {}),
            Step("POST", f"/api/task-runs/{run}/cancel", {}),
            Step("POST", f"/api/runs/{run}/retry", {}),
            Step("POST", f"/api/runs/{run}/recover", {"reason": "seen"}),
        ])  # fmt: skip

    async def time(self, line: Line) -> None:
        """Lets leases lapse now and then, and stops all claims for a moment."""
        for n in range(self.steps):
            for path in ("pause", "resume") if n % 5 == 4 else ():
                told = request(self.workspace.operator, "POST", f"/api/scheduler/{path}", {})
                assert (await line.ask(told)).status == 200
            for _ in range(5):
                await line.ask(request(self.workspace.operator, "GET", "/api/tasks"))
            self.workspace.world.advance(1)


def _endings(dice: random.Random) -> Iterator[tuple[str, dict[str, Any]]]:
    tokens = dice.choice([0, 60, 110])
    cost = {"total_cost": tokens / 50, "cost_currency": "EUR"}
    used = {"usage": {"input_tokens": tokens - tokens // 2, "output_tokens": tokens // 2, **cost}}
    yield "heartbeat", {"checkpoint": dice.random()} | used if dice.random() < 0.5 else {}
    ends: list[tuple[str, dict[str, Any]]] = [
        ("complete", {}), ("complete", {"claim_next": {}}), ("fail", {"error": "no"}),
        ("fail", {"error": "no", "retryable": False}), ("release", used), ("heartbeat", {}),
    ]  # fmt: skip
    yield dice.choice(ends)
