"""What agents do: claim, work, end it one way or another, and come back late with old leases."""

import time
from collections import deque
from typing import Any, NamedTuple

from tests.crowd import Reply
from tests.proof.histories.calls import seconds
from tests.proof.histories.field import Caller, Known, maybe

LEASE_SECONDS = 5
SOON = 120


class Held(NamedTuple):
    """A lease as its holder knows it."""

    task_id: str
    run_id: str
    token: str
    until: float


class Agent(Caller):
    """Claims runs, one session."""

    def __init__(self, *known: Any) -> None:
        super().__init__(*known)
        self.old: deque[Held] = deque(maxlen=8)

    async def live(self) -> None:
        """Works until the round is over."""
        while not self.field.over:
            if self.old and self.dice.random() < 0.12:
                late = self.dice.choice(self.old)
                await (self.end(late) if self.dice.random() < 0.8 else self._spawn(late))
            else:
                await self._turn()

    async def _turn(self) -> None:
        wish = {"lease_seconds": LEASE_SECONDS, **maybe(self.dice, 0.25, max_runs=3)}
        key = self.key() if self.dice.random() < 0.9 else ""
        ask = self.surely if key else self.call
        reply = await ask("POST", "/api/agent/tasks/claim-next", wish, key)
        if reply is not None and reply.status == 204:
            self.field.hungry += 1
            await self.field.ledger.later(self.dice.randint(2, 8))
        elif reply is not None and reply.status == 200:
            for held in self.took(reply):
                await self.work(held)

    def took(self, reply: Reply) -> list[Held]:
        """The leases that an answer brought."""
        told = reply.told
        claims = told.get("claims") or ([told["claim"]] if told["claim"] else [])
        for claim in claims:
            lease = claim["lease"]
            held = Held(
                lease["task_id"], lease["run_id"], lease["claim_token"],
                seconds(lease["lease_until"]),
            )  # fmt: skip
            self.old.append(held)
            self.field.runs.append(held.run_id)
        return [self.old[-1 - n] for n in range(min(len(claims), len(self.old)))]

    async def work(self, held: Held) -> None:
        """Heartbeats, and an end; a few are forgotten, or thought of much later."""
        for _ in range(self.dice.choice([0, 1, 1, 2])):
            state = {"checkpoint": f"c{self.dice.randrange(1000)}"}
            body = state if self.dice.random() < 0.5 else {}
            await self._call(held, "heartbeat", body)
        if self.dice.random() < 0.1:
            await self._spawn(held)
        # By its own clock, which may be wrong, the lease may be over already, or last for hours.
        left = held.until - (time.time() + self.field.ledger.ahead[0] + self.skew)
        if left < 0 and self.dice.random() < 0.3:
            return
        if left > 3600 and self.dice.random() < 0.05:
            await self.field.ledger.later(self.dice.randint(20, SOON))
        if self.dice.random() < 0.92:
            await self.end(held)

    async def _spawn(self, held: Held) -> None:
        """Makes a child in the name of the lease."""
        by = self.by.also(X_Run_ID=held.run_id, X_Claim_Token=held.token)
        body = {"id": self.field.new_id(), "title": "child", "auto_enqueue_on_ready": True}
        body |= {"retry": {"strategy": "none"}}
        self.field.tasks.append(str(body["id"]))
        await self.call("POST", f"/api/tasks/{held.task_id}/children", body, self.key(), by)

    async def end(self, held: Held) -> None:
        """Ends a lease, perhaps one that is not its own any more."""
        word, sure = f"w{self.dice.randrange(1000)}", self.dice.random() < 0.7
        ends: list[tuple[str, dict[str, Any]]] = [
            ("complete", {"result": word}), ("complete", {"result": word}),
            ("complete", {"result": word}), ("complete", {"result": word, "claim_next": {}}),
            ("fail", {"error": word}), ("fail", {"error": word, "retryable": False}),
            ("release", {"delay_seconds": self.dice.choice([0, 3])}),
            ("heartbeat", {"checkpoint": word}),
        ]  # fmt: skip
        verb, body = self.dice.choice(ends)
        if "claim_next" in body:
            body = body | {"claim_next": {"lease_seconds": LEASE_SECONDS}}
        reply = await self._call(held, verb, body, sure=sure)
        if reply is not None and reply.status == 200 and "claim_next" in body:
            self.took(reply)

    async def _call(self, held: Held, verb: str, body: Any, *, sure: bool = False) -> Reply | None:
        path = f"/api/agent/tasks/{held.run_id}/{verb}"
        ask = self.surely if sure else self.call
        return await ask("POST", path, {"claim_token": held.token, **body})


class Reviewer(Caller):
    """Claims reviews and judges them; another agent than those who work."""

    async def live(self) -> None:
        """Judges until the round is over."""
        while not self.field.over:
            reply = await self.surely(
                "POST",
                "/api/agent/reviews/claim-next",
                {"lease_seconds": LEASE_SECONDS},
                self.key(),
            )
            if reply is not None and reply.status == 200:
                await self._judge(reply.told["claim"])
            else:
                await self.field.ledger.later(10)

    async def _judge(self, claim: Any) -> None:
        review_id, run_id = claim["review"]["review_id"], claim["run"]["id"]
        self.field.reviews.append(Known(review_id, run_id))
        proof = {"claim_token": claim["lease"]["claim_token"]}
        path = f"/api/agent/reviews/{review_id}"
        if self.dice.random() < 0.4:
            await self.call("POST", f"{path}/heartbeat", proof)
        roll = self.dice.random()
        if roll < 0.15:
            await self.surely("POST", f"{path}/release", proof)
        elif roll < 0.92:
            body = {"run_id": run_id, "verdict": verdict(self), **proof}
            await self.surely("POST", f"/api/task-reviews/{review_id}/verdict", body)


def verdict(by: Caller) -> dict[str, Any]:
    """A judgement that keeps to the rules."""
    outcome = by.dice.choice(["approved", "approved", "approved", "rejected", "blocked"])
    told = {"outcome": outcome, "confidence": 0.5, "reason": "seen", "delivery_id": by.key()}
    return told | ({"missing_work": ["more"]} if outcome == "rejected" else {})
