"""Reviews in the reference model: claims, verdicts and time."""

from tests.model import Hold, Review, Run
from tests.transitions import Model

NOTHING = ("error", "timeout", "invalid_output")
MOST_ATTEMPTS = MOST_EXPIRIES = 3
DAEMON = "reviews"


def every(model: Model) -> list[Review]:
    """The reviews of all runs."""
    return [review for run in model.runs() for review in run.reviews]


def queue(model: Model, now: float, agent_name: str) -> list[Review]:
    """The reviews that an agent may claim, in their order; nobody gets their own work."""
    free = [
        r for r in every(model)
        if r.status == "requested" and r.deadline > now and not model.paused
        and r.run.by != agent_name
    ]  # fmt: skip
    return sorted(free, key=lambda r: (r.deadline, r.asked_at, r.id))


def claim(now: float, review: Review, session: str, seconds: int) -> Hold:
    if review.gating:
        review.run.task.fence += 1
        review.fence = review.run.task.fence
    else:
        review.fence = (review.fence or 0) + 1
    until = min(now + seconds, review.deadline)
    review.status = "routed"
    review.holds.append(Hold(review, session, review.fence, seconds, until))
    return review.holds[-1]


def judge(hold: Hold, operation: str, outcome: str) -> str | None:
    """What a call of its holder meets: a code, `replay`, or None if the lease is live."""
    review = hold.review
    older = hold.fence < (review.fence or 0)
    if older:
        return "replay" if operation == hold.ended == "release" else "stale_fence"
    told = judged(review, hold.session, outcome if operation == "verdict" else None)
    if told is not None:
        return told
    if hold.ended == "release":
        return "replay" if operation == "release" else "lease_released"
    return "lease_expired" if hold.ended else None


def judged(review: Review, by: str, outcome: str | None) -> str | None:
    """What the state of a review answers by itself."""
    if review.status == "canceled":
        return "review_closed"
    if review.is_open:
        return None
    same = outcome is not None and (review.delivery, review.outcome, review.by) == (
        f"by {by}", outcome, by,
    )  # fmt: skip
    return "replay" if same else "review_already_recorded"


def by_hand(review: Review, by: str, outcome: str) -> str | None:
    """What a person's verdict meets; it overrules what has stopped the task."""
    told = judged(review, by, outcome)
    task = review.run.task
    stopped = review.status == "circuit_opened" or review.outcome == "blocked"
    if told == "review_already_recorded" and stopped:
        free = task.newest is review.run and not task.canceled
        return None if free else told
    return told


def may_reject(review: Review) -> str | None:
    task = review.run.task
    if task.canceled:
        return "task_canceled"
    if task.open:
        return "open_run_exists"
    return "review_open" if task.gate == "open" and not review.gating else None


def heartbeat(now: float, hold: Hold) -> None:
    hold.review.status = "in_review"
    hold.until = min(max(hold.until, now + hold.seconds), hold.review.deadline)


def release(review: Review, how: str) -> None:
    review.free(how)
    review.status = "requested"


def record(model: Model, now: float, review: Review, outcome: str, by: str, limits: bool) -> None:
    """Records a verdict, with what follows from it."""
    run, task, known = review.run, review.run.task, review.gating and limits
    spent = review.round >= task.review_max_rounds
    if outcome in NOTHING:
        spent = review.attempt >= MOST_ATTEMPTS
    circuit = known and spent and outcome in (*NOTHING, "rejected")
    review.free("expiry" if (by, outcome) == (DAEMON, "error") else "verdict")
    review.status = "circuit_opened" if circuit else "recorded"
    review.outcome, review.by = outcome, by
    review.delivery = None if by == DAEMON else f"by {by}"
    if outcome == "rejected" and not circuit:
        model.enqueue(task, now).rejected = review
    elif outcome in NOTHING and review.gating and not circuit:
        again = Review(run, review.round, review.attempt + 1, True, now, review.policy)
        run.reviews.append(again)
    elif outcome == "approved" and review.gating and run.status == "completed":
        task.checkpoint = None
    model.settle(now)


def request(now: float, run: Run, policy: str) -> str | None:
    """Asks for a review by hand; `again` if there is one already."""
    wanted = {"completed": "on_success", "failed": "on_failure", "canceled": "on_failure"}
    if run.status not in wanted:
        return "run_not_terminal"
    if policy not in (wanted[run.status], "always"):
        return "review_policy_mismatch"
    if any((r.round, r.attempt) == (run.round, 1) for r in run.reviews):
        return "again"
    run.reviews.append(Review(run, run.round, 1, False, now, policy))
    return None


def expire(model: Model, now: float) -> None:
    """One pass of the loop."""
    for review in every(model):
        held = review.held
        if review.is_open and review.deadline <= now:
            record(model, now, review, "timeout", DAEMON, True)
        elif held and held.until <= now:
            review.expiries += 1
            if review.expiries >= MOST_EXPIRIES:
                record(model, now, review, "error", DAEMON, True)
            else:
                release(review, "expiry")
