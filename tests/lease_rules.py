"""What agents can do in random histories, side by side with the reference model."""

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from tests.drive import Claimed, Drive
from tests.model import Task
from tests.transitions import Model

PICK = st.integers(0, 99)
# How many of the tokens that are used up were output.
OUTPUT = 10
TOKENS = st.sampled_from([0, 0, 60, 110])
ENDS = st.sampled_from(["heartbeat", "heartbeat", "complete", "fail", "release"])
WHO = st.sampled_from(["worker", "eve"])
some_claims = precondition(lambda self: self.drive.claimed)


def used(tokens: int) -> dict[str, Any]:
    """What a call under a lease says was used up."""
    told = {"input_tokens": tokens - OUTPUT, "output_tokens": OUTPUT}
    return {"usage": told} if tokens else {}


class Holders(RuleBasedStateMachine):
    """Who claims runs, and calls under leases old and new. A crash is a lease never used again."""

    drive: Drive
    model: Model

    def held(self, pick: int) -> Claimed:
        """The newest for 0; of all for an even number, of those that live for an odd one."""
        live = [claimed for claimed in self.drive.claimed if claimed.lease.ended is None]
        among = live if live and pick % 2 else self.drive.claimed
        return among[-1 - pick // 2 % len(among)]

    @rule(session=st.integers(0, 1), count=st.integers(1, 3), seconds=st.sampled_from([60, 100]))
    def claim(self, session: int, count: int, seconds: int) -> None:
        self.drive.claim(session, {"max_runs": count, "lease_seconds": seconds})

    @some_claims
    @rule(pick=PICK, checkpoint=st.none() | st.integers(1, 2), tokens=TOKENS)
    def heartbeat(self, pick: int, checkpoint: int | None, tokens: int) -> None:
        claimed, now = self.held(pick), self.drive.now()
        body = {"checkpoint": checkpoint} | used(tokens)
        if self.drive.call(claimed, "heartbeat", body, False):
            self.model.heartbeat(now, claimed.lease, checkpoint, tokens)
            self.drive.told_of_budget(claimed.lease)

    @some_claims
    @rule(pick=PICK, result=st.integers(1, 2), tokens=TOKENS)
    def complete(self, pick: int, result: int, tokens: int) -> None:
        claimed, now = self.held(pick), self.drive.now()
        same = claimed.lease.run.result == result
        if self.drive.call(claimed, "complete", {"result": result} | used(tokens), same):
            self.model.complete(now, claimed.lease, result, tokens)

    @some_claims
    @rule(pick=PICK, error=st.sampled_from(["a", "b"]), retryable=st.booleans(), tokens=TOKENS)
    def fail(self, pick: int, error: str, retryable: bool, tokens: int) -> None:
        claimed, now = self.held(pick), self.drive.now()
        run = claimed.lease.run
        same = (run.error, run.failure_kind) == (error, "error")
        body = {"error": error, "retryable": retryable} | used(tokens)
        if self.drive.call(claimed, "fail", body, same):
            self.model.fail(now, claimed.lease, error, retryable, tokens)

    @some_claims
    @rule(pick=PICK, delay=st.sampled_from([0, 0, 30]), tokens=TOKENS)
    def release(self, pick: int, delay: int, tokens: int) -> None:
        claimed, now = self.held(pick), self.drive.now()
        if self.drive.call(claimed, "release", {"delay_seconds": delay} | used(tokens), False):
            self.model.release(now, claimed.lease, delay, tokens)

    @some_claims
    @rule(pick=PICK, how=ENDS, told=st.integers(1, 2), by=st.sampled_from([0, 1, None]))
    def come_back(self, pick: int, how: str, told: int, by: int | None) -> None:
        """A worker that was stopped past its lease goes on as if nothing had been."""
        old = self.held(pick)
        self.heartbeat(pick, told, 0)
        self.time_passes(101, True)
        if by is not None:
            self.drive.compare()
            self.claim(by, 3, 60)
            self.heartbeat(0, told, 0)
        late = 2 * (len(self.drive.claimed) - 1 - self.drive.claimed.index(old))
        if how == "heartbeat":
            self.heartbeat(late, 3 - told, 0)
        elif how == "complete":
            self.complete(late, 1, 60)
        elif how == "fail":
            self.fail(late, "a", True, 0)
        else:
            self.release(late, 0, 0)

    @some_claims
    @rule(pick=PICK, session=st.integers(0, 1))
    def spend(self, pick: int, session: int) -> None:
        """Gives back what took much of its budget, and takes the next."""
        self.release(pick, 0, 110)
        self.drive.compare()
        self.claim(session, 1, 60)

    @rule(session=st.integers(0, 1), fails=st.booleans(), who=WHO)
    def work(self, session: int, fails: bool, who: str) -> None:
        """Does the next run; then somebody looks for something to review."""
        count = len(self.drive.claimed)
        self.claim(session, 1, 60)
        if len(self.drive.claimed) > count:
            self.fail(0, "a", False, 0) if fails else self.complete(0, 1, 0)
            self.drive.compare()
            self.same_reviews()
            self.claim_review(who, 60)

    def time_passes(self, seconds: int, sweep: bool) -> None:
        raise NotImplementedError

    def same_reviews(self) -> None:
        raise NotImplementedError

    def claim_review(self, who: str, seconds: int) -> None:
        raise NotImplementedError

    @some_claims
    @rule(pick=PICK)
    def claim_again(self, pick: int) -> None:
        keys = list(self.drive.asked)
        self.drive.claim_again(keys[-1 - pick % len(keys)])

    @some_claims
    @rule(pick=PICK)
    def plan(self, pick: int) -> None:
        """Makes a task in the name of a lease."""
        claimed, now = self.held(pick), self.drive.now()
        task = Task(self.drive.name())
        body = {"id": task.id, "title": task.id, "auto_enqueue_on_ready": True}
        if self.drive.plan(claimed, {**body, "retry": {"strategy": "none"}}):
            self.model.create(now, [(task, [])])
