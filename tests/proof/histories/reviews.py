"""What reviewers can do, with the lease of a review and as people."""

from tests.proof.histories.spec import REPLAY, Op, Way, World, no, ok
from tests.proof.histories.state import Lease, Review, State

OPEN = ("requested", "routed", "in_review")


def claim(state: State, op: Op, world: World) -> list[Way]:
    """A claim of a review that this task was the answer to, or may have been."""
    told, run, fence = op.args, state.newest, state.fence + 1
    ways: list[Way] = []
    if run and run.review and run.review.status == "requested" and not state.canceled:
        review = run.review._replace(status="routed", fence=fence)
        hold = Lease(fence, run.attempt, told["session"], told["key"], told.get("until", 0.0))
        held = state._replace(fence=fence, holds=(*state.holds, hold))
        held = held.run(run.attempt, review=review)
        ways += [(held, due | {"fence": fence, "attempt": run.attempt}) for _, due in ok(held)]
    for hold in state.holds:
        same = (hold.session, hold.key) == (told["session"], told["key"])
        if same and hold.ended is None and hold.until <= told.get("until", hold.until):
            ways.append((state, REPLAY | {"fence": hold.fence, "attempt": hold.attempt}))
    return ways


def _judged(review: Review, op: Op) -> str | None:
    """What the state of a review answers by itself."""
    if review.status == "canceled":
        return "review_closed"
    if review.status in OPEN:
        return None
    verdict = op.args.get("delivery"), op.args.get("outcome"), op.args["session"]
    same = (review.delivery, review.outcome, review.by) == verdict
    return "replay" if same else "review_already_recorded"


def _held(state: State, op: Op) -> tuple[Lease | None, Review, str | None]:
    """The lease that a call shows, if anybody can have it yet, the review, what the call meets."""
    hold = state.hold(op.args["fence"])
    review = state.runs[op.args["attempt"] - 1].review
    if hold is None or review is None:
        return None, Review(), None
    if hold.fence < review.fence:
        again = op.kind == "review_release" and hold.ended == "release"
        return hold, review, "replay" if again else "stale_fence"
    code = _judged(review, op)
    if code is None and hold.ended == "release":
        code = "replay" if op.kind == "review_release" else "lease_released"
    return hold, review, code or ("lease_expired" if hold.ended else None)


def heartbeat(state: State, op: Op, world: World) -> list[Way]:
    hold, review, code = _held(state, op)
    if hold is None or code:
        return _told(state, code) if hold else []
    until = op.args.get("until", hold.until)
    holds = tuple(x._replace(until=until) if x is hold else x for x in state.holds)
    review = review._replace(status="in_review")
    shorter = until < hold.until
    return [] if shorter else ok(state._replace(holds=holds).run(hold.attempt, review=review))


def release(state: State, op: Op, world: World) -> list[Way]:
    hold, review, code = _held(state, op)
    if hold is None or code:
        return _told(state, code) if hold else []
    review = review._replace(status="requested")
    return ok(state.let_go("release").run(hold.attempt, review=review))


def _told(state: State, code: str | None) -> list[Way]:
    return [(state, REPLAY)] if code == "replay" else no(state, code or "")


def verdict(state: State, op: Op, world: World) -> list[Way]:
    """The judgement of the holder, or of a person, who needs no lease and wins."""
    run = state.runs[op.args["attempt"] - 1]
    if run.review is None:
        return []  # nobody can know of it yet
    if op.args["fence"] is None:
        review, code = run.review, _judged(run.review, op)
        stopped = review.status == "circuit_opened" or review.outcome == "blocked"
        free = state.newest == run and not state.canceled
        if code == "review_already_recorded" and stopped and free:
            code = None
    else:
        hold, review, code = _held(state, op)
        if hold is None:
            return []
    return _told(state, code) if code else _record(state, op, world, review)


def _record(state: State, op: Op, world: World, review: Review) -> list[Way]:
    attempt, outcome = op.args["attempt"], op.args["outcome"]
    run = state.runs[attempt - 1]
    spent = run.turn >= world.plan.review_max_rounds and op.args["fence"] is not None
    circuit = spent and outcome == "rejected"
    review = review._replace(
        status="circuit_opened" if circuit else "recorded", outcome=outcome,
        delivery=op.args["delivery"], by=op.args["session"],
    )  # fmt: skip
    state = state.let_go("verdict").run(attempt, review=review)
    if outcome == "rejected" and not circuit:
        state = state.enqueue(run.turn + 1, counts=False)
    elif outcome == "approved" and run.status == "completed":
        state = state._replace(checkpoint=None)
    return ok(state, circuit=circuit)
