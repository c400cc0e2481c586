"""What operators do: make tasks of all kinds, steer them, and look at what has become of them."""

from typing import Any

from tests.proof.histories.agents import verdict
from tests.proof.histories.field import Caller

ENOUGH = 8
# What is done to a task or to a run, and how often in a hundred.
VERBS = {
    "look": 30, "cancel": 5, "pause": 7, "resume": 12, "approve": 8, "reject": 2, "start": 8,
    "depend": 5, "undepend": 4, "cancel_run": 3, "release": 4, "fail": 3, "retry": 5, "recover": 5,
    "verdict": 3,
}  # fmt: skip


class Operator(Caller):
    """Makes tasks when agents have nothing to do, and meddles else."""

    async def live(self) -> None:
        """Goes on until the round is over."""
        while not self.field.over:
            if self.field.hungry or len(self.field.tasks) < ENOUGH:
                self.field.hungry = 0
                await (self._make_many() if self.dice.random() < 0.2 else self._make())
            else:
                [verb] = self.dice.choices(list(VERBS), list(VERBS.values()))
                await self._meddle(verb)

    def _task(self) -> dict[str, Any]:
        dice = self.dice
        return {
            "id": self.field.new_id(), "title": "t", "retry": {"strategy": "none"},
            "auto_enqueue_on_ready": dice.random() < 0.9, "max_attempts": dice.choice([1, 2, 3]),
            "max_lease_expiries": dice.choice([1, 2, 3]), "review_max_rounds": dice.choice([1, 2]),
            "priority": dice.choice(["low", "medium", "high"]),
            "review_policy": dice.choice(["none", "none", "none", "on_success", "always"]),
            "approval_policy": dice.choice(["none", "none", "none", "none", "manual"]),
            "on_dependency_failure": dice.choice(["block", "run"]),
        }  # fmt: skip

    async def _make(self) -> None:
        body, path, known = self._task(), "/api/tasks", self.field.tasks
        if known and self.dice.random() < 0.2:
            body["depends_on"] = [self.dice.choice(known)]
        if known and self.dice.random() < 0.15:
            path = f"/api/tasks/{self.dice.choice(known)}/children"
        self.field.tasks.append(body["id"])
        await self.surely("POST", path, body, self.key())

    async def _make_many(self) -> None:
        items = [{**self._task(), "ref": str(n)} for n in range(self.dice.randint(2, 5))]
        for item in items[1:]:
            if self.dice.random() < 0.3:
                item["depends_on_refs"] = [items[0]["ref"]]
        self.field.tasks.extend(item["id"] for item in items)
        await self.surely("POST", "/api/tasks/bulk", {"tasks": items}, self.key())

    async def _meddle(self, verb: str) -> None:
        task_id = self.dice.choice(self.field.tasks)
        task = f"/api/tasks/{task_id}"
        run = self.dice.choice(self.field.runs) if self.field.runs else None
        key = self.key() if self.dice.random() < 0.5 else ""
        if verb == "look":
            await self.call("GET", task)
        elif verb == "depend":
            body = {"depends_on_task_id": self.dice.choice(self.field.tasks)}
            if body["depends_on_task_id"] != task_id:
                await self.call("POST", f"{task}/dependencies", body)
        elif verb == "undepend":
            on = self.dice.choice(self.field.tasks)
            await self.call("DELETE", f"{task}/dependencies/{on}")
        elif verb in ("approve", "start"):
            await self.surely("POST", f"{task}/{verb}", {}, key)
        elif verb in ("cancel", "pause", "resume", "reject"):
            await self.call("POST", f"{task}/{verb}", {"reason": "seen"})
        elif verb == "verdict":
            await self._overrule()
        elif run is not None and verb == "cancel_run":
            await self.call("POST", f"/api/task-runs/{run}/cancel", {})
        elif run is not None and verb in ("retry", "recover"):
            await self.surely("POST", f"/api/runs/{run}/{verb}", {"reason": "seen"}, key)
        elif run is not None:
            await self.call("POST", f"/api/runs/{run}/{verb}", {"reason": "seen"})

    async def _overrule(self) -> None:
        if self.field.reviews:
            known = self.dice.choice(self.field.reviews)
            body = {"run_id": known.run_id, "verdict": verdict(self)}
            await self.call("POST", f"/api/task-reviews/{known.review_id}/verdict", body)
