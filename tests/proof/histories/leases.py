"""What the holder of a run can do, rightly and wrongly, and what happens by itself."""

from collections.abc import Callable, Iterator

from tests.model import misused
from tests.proof.histories.spec import REPLAY, Op, Way, World, no, ok, reviewed
from tests.proof.histories.state import NEVER, Lease, Plan, State

# The key of a claim without one that was never answered.
LOST = "?"


def claim(state: State, op: Op, world: World) -> list[Way]:
    """A claim that this task was the answer to, or may have been."""
    told, run, fence = op.args, state.newest, state.fence + 1
    ways: list[Way] = []
    free = run is not None and run.status == "queued" and world.lapsed(run.after) < op.ended
    if run and free and state.status == "ready" and not state.paused:
        claimed = state._replace(fence=fence).run(
            run.attempt, status="claimed", fence=fence, claims=run.claims + 1
        )
        lease = Lease(fence, run.attempt, told["session"], told["key"], told.get("until", 0.0))
        claimed = claimed._replace(leases=(*state.leases, lease))
        ways += [
            (claimed, due | {"fence": fence, "attempt": run.attempt}) for _, due in ok(claimed)
        ]
    for lease in state.leases:
        same = (lease.session, lease.key) == (told["session"], told["key"])
        if same and lease.ended is None and lease.until <= told.get("until", lease.until):
            ways.append((state, REPLAY | {"fence": lease.fence, "attempt": lease.attempt}))
    return ways


def _judged(state: State, lease: Lease, operation: str, why: object) -> str | None:
    """What a call of the holder meets: a code, `replay`, or None if the lease is live (5.6)."""
    run = state.runs[lease.attempt - 1]
    return misused(run.status, lease.fence < run.fence, lease.ended, operation, run.why == why)


def _under_lease(operation: str) -> Callable[[State, Op, World], list[Way]]:
    def rule(state: State, op: Op, world: World) -> list[Way]:
        lease = state.lease(op.args["fence"])
        if lease is None:
            return []  # nobody can have its token yet
        code = _judged(state, lease, operation, op.args.get("why"))
        if code is not None and code != "replay":
            return no(state, code)
        if code == "replay":
            return [(state, REPLAY)]
        return EFFECTS[operation](state, lease, op, world)

    return rule


def guard(state: State, op: Op, world: World) -> list[Way]:
    """A call about something else that is only good while the lease is live."""
    lease = state.lease(op.args["fence"])
    if lease is None:
        return []  # nobody can have its token yet
    code = _judged(state, lease, "guard", None)
    # What was made before under the same key is answered again.
    ways: list[Way] = [(state, REPLAY)]
    if code or state.canceled:
        ways += no(state, code or "task_canceled")
    return ways if code else [*ways, (state, {"code": None, "replayed": False})]


def _heartbeat(state: State, lease: Lease, op: Op, world: World) -> list[Way]:
    until = op.args.get("until", lease.until)
    if until < lease.until:
        return []  # never shorter
    leases = tuple(x._replace(until=until) if x is lease else x for x in state.leases)
    state = state._replace(leases=leases).run(lease.attempt, status="running")
    checkpoint = op.args.get("checkpoint")
    if checkpoint is not None and checkpoint != state.checkpoint:
        state = state._replace(checkpoint=checkpoint).run(lease.attempt, lapses=0)
    return ok(state, paused=bool(state.paused))


def _complete(state: State, lease: Lease, op: Op, world: World) -> list[Way]:
    state = state.end("complete").run(lease.attempt, status="completed", why=op.args["why"])
    state = reviewed(state, lease.attempt, world.plan)
    return ok(state if state.gate else state._replace(checkpoint=None))


def _fail(state: State, lease: Lease, op: Op, world: World) -> list[Way]:
    run = state.runs[lease.attempt - 1]
    state = state.end("fail").run(lease.attempt, status="failed", why=op.args["why"])
    if op.args["retryable"] and state.attempts < world.plan.max_attempts:
        state = state.run(lease.attempt, retried=True).enqueue(run.turn)
        return ok(state, next=len(state.runs))
    return ok(reviewed(state, lease.attempt, world.plan), next=None)


def _release(state: State, lease: Lease, op: Op, world: World) -> list[Way]:
    after = op.args.get("after", 0.0)
    return ok(state.end("release").run(lease.attempt, status="queued", after=after))


EFFECTS = {"heartbeat": _heartbeat, "complete": _complete, "fail": _fail, "release": _release}
RULES = {operation: _under_lease(operation) for operation in EFFECTS}


# ── what happens by itself ──


def silent(state: State, world: World) -> Iterator[tuple[int, State]]:
    """What may happen without a call, and from which tick on."""
    for lease in state.leases:
        if lease.ended is None:
            yield world.lapsed(lease.until), _expired(state, lease, world.plan)
            if lease.key.startswith(LOST):
                yield -1, _given_back(state, lease)
    for hold in state.holds:
        if hold.ended is None:
            state_then = _reopened(state, hold, "expiry")
            yield world.lapsed(hold.until), state_then
    for on in state.edges:
        if on in state.waits:
            met = state._replace(waits=state.waits - {on}).settled(world.plan)
            yield world.meets.get(on, NEVER), met
        else:
            yield world.reopens.get(on, NEVER), state._replace(waits=state.waits | {on})


def _expired(state: State, lease: Lease, plan: Plan) -> State:
    run = state.runs[lease.attempt - 1]
    stops = run.lapses + 1 >= plan.max_lease_expiries
    status = "needs_attention" if stops else "queued"
    return state.end("expiry").run(run.attempt, status=status, lapses=run.lapses + 1)


def _given_back(state: State, lease: Lease) -> State:
    """The server undoes a claim whose caller had gone before the answer."""
    return state.end("revoke").run(lease.attempt, status="queued")


def _reopened(state: State, hold: Lease, how: str) -> State:
    review = state.runs[hold.attempt - 1].review
    assert review is not None
    return state.let_go(how).run(hold.attempt, review=review._replace(status="requested"))
