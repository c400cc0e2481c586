"""What reviewers can do in random histories, side by side with the reference model."""

from typing import Any, NamedTuple

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests import judging, verdicts
from tests.drive import Drive
from tests.model import Hold, Review, Run

PICK = st.integers(0, 99)
OUTCOMES = st.sampled_from([
    "approved", "approved", "rejected", "rejected", "blocked", "error", "timeout", "invalid_output",
])  # fmt: skip
POLICIES = st.sampled_from(["on_success", "on_failure", "always", "always"])
REVIEWS = """
select v.task_id, r.attempt, v.review_round, v.attempt, v.gating, v.status, v.outcome, v.fence,
       v.lease_expiries, v.delivery_id, v.policy, case when v.status in ('routed', 'in_review')
         then v.session_id end, (select l.ended_how from review_lease l
           where l.workspace_id = v.workspace_id and l.review_id = v.review_id
             and l.fence = v.fence),
       v.review_id, extract(epoch from v.requested_at)::float8,
       extract(epoch from v.deadline_at)::float8
  from review v join run r using (workspace_id, run_id) where v.workspace_id = %s
"""
CONTINUED = """
select r.task_id, r.attempt, p.attempt, v.review_round, v.attempt, r.review_round
  from run r
  join run p on p.workspace_id = r.workspace_id and p.run_id = r.parent_run_id
  join review v on v.workspace_id = r.workspace_id and v.review_id = r.review_id
 where r.workspace_id = %s
"""


class Both(NamedTuple):
    """A review lease in both worlds."""

    held: judging.HeldReview
    hold: Hold


class Reviewers(RuleBasedStateMachine):
    """What reviewers and people who judge can do.

    No rule has a precondition: which of two equal runs was claimed first decides what there is.
    """

    drive: Drive

    def __init__(self) -> None:
        super().__init__()
        self.holds: list[Both] = []

    @rule(pick=PICK, policy=POLICIES)
    def request(self, pick: int, policy: str) -> None:
        runs = list(self.drive.model.runs())
        if not runs:
            return
        run = runs[pick % len(runs)]
        code = verdicts.request(self.drive.now(), run, policy)
        expected = None if code == "again" else code
        path = f"/api/task-runs/{run.id}/reviews"
        told = self.drive.both(expected, lambda: self.drive.operator.post(path, policy=policy))
        assert expected or told.created == (code is None)

    @rule(who=st.sampled_from(["eve", "eve", "bob", "worker"]), seconds=st.sampled_from([60, 100]))
    def claim_review(self, who: str, seconds: int) -> None:
        agent = self.drive.workspace.agent(who, f"{who}s")
        now = self.drive.now()
        expected = verdicts.queue(self.drive.model, now, who)[:1]
        held = judging.reviews(agent, lease_seconds=seconds)
        assert [h.review_id for h in held] == [review.id for review in expected]
        for review, got in zip(expected, held, strict=True):
            hold = verdicts.claim(now, review, agent.session, seconds)
            assert got.fence == hold.fence
            self.holds.append(Both(got, hold))

    @rule(pick=PICK, operation=st.sampled_from(["heartbeat", "release", "heartbeat"]))
    def hold_review(self, pick: int, operation: str) -> None:
        if not self.holds:
            return
        both, now = self.holds[-1 - pick % len(self.holds)], self.drive.now()
        if self._called(both, operation, ""):
            if operation == "release":
                verdicts.release(both.hold.review, "release")
            else:
                verdicts.heartbeat(now, both.hold)

    @rule(pick=PICK, outcome=OUTCOMES)
    def judge(self, pick: int, outcome: str) -> None:
        if not self.holds:
            return
        both, now = self.holds[-1 - pick % len(self.holds)], self.drive.now()
        if self._called(both, "verdict", outcome):
            hold = both.hold
            verdicts.record(self.drive.model, now, hold.review, outcome, hold.session, True)

    @rule(pick=PICK, outcome=OUTCOMES, stopped=st.booleans())
    def judge_by_hand(self, pick: int, outcome: str, stopped: bool) -> None:
        found = verdicts.every(self.drive.model)
        if not found:
            return
        blocked = [r for r in found if r.run.task.gate == "blocked" and not r.is_open]
        found = blocked if blocked and stopped else found
        review, now = found[-1 - pick % len(found)], self.drive.now()
        code = verdicts.by_hand(review, "person", outcome)
        if code is None and outcome == "rejected":
            code = verdicts.may_reject(review)
        self._submit(self.drive.operator, review, code, outcome, "person", {})
        if code is None:
            verdicts.record(self.drive.model, now, review, outcome, "person", False)

    def _called(self, both: Both, operation: str, outcome: str) -> bool:
        """Makes a call under a lease, old or new; whether it is to be done in the model too."""
        held, hold = both
        task = hold.review.run.task
        known = self.drive.model.tasks.get(task.id) is task
        code = verdicts.judge(hold, operation, outcome) if known else "review_not_found"
        if code is None and outcome == "rejected":
            code = verdicts.may_reject(hold.review)
        if operation == "verdict":
            proof = {"claim_token": held.token}
            by, review = held.agent, hold.review
            self._submit(by, review, code, outcome, hold.session, proof)
        else:
            expected = None if code == "replay" else code
            self.drive.both(expected, lambda: held.by(held.agent, operation))
        return code is None

    def _submit(
        self, by: Any, review: Review, code: str | None, outcome: str, who: str,
        proof: dict[str, str],
    ) -> None:  # fmt: skip
        expected = None if code == "replay" else code
        told = self.drive.both(
            expected,
            lambda: judging.judge(
                by, review.id, review.run.id, outcome, delivery_id=f"by {who}", **proof
            ),
        )
        assert told is None or by.replayed == (code == "replay")

    @invariant()
    def same_reviews(self) -> None:
        """Every review that the model knows of is as the model has it."""
        rows = list(self.drive.world.db.execute(REVIEWS, [self.drive.workspace.id]))
        known = {_place(review): review for review in verdicts.every(self.drive.model)}
        assert {row[:13] for row in rows} == {
            (*place, r.status, r.outcome, r.fence, r.expiries, r.delivery, r.policy,
             r.held.session if r.held else None, r.holds[-1].ended if r.holds and
             r.holds[-1].fence == r.fence else None)
            for place, r in known.items()
        }  # fmt: skip
        for row in rows:
            review = known[row[:5]]
            review.id, review.asked_at, review.deadline = row[13:]
        continued = self.drive.world.db.execute(CONTINUED, [self.drive.workspace.id])
        assert set(continued) == {
            (run.task.id, run.attempt, run.rejected.run.attempt, run.rejected.round,
             run.rejected.attempt, run.round)
            for run in self.drive.model.runs() if run.rejected
        }  # fmt: skip


def _place(review: Review) -> tuple[str, int, int, int, bool]:
    run: Run = review.run
    return run.task.id, run.attempt, review.round, review.attempt, review.gating
