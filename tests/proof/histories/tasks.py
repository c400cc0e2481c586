"""What operators can do with a task and its runs."""

from tests.model import ENDED, LEASED, OPEN
from tests.proof.histories.spec import Op, Way, World, no, ok, reviewed, seen
from tests.proof.histories.state import NEVER, State


def create(state: State, op: Op, world: World) -> list[Way]:
    key, edges = op.args["key"], op.args["edges"]
    if state.made == key:
        return [(state, {"code": None, "replayed": True} | seen(state))]
    if state.made is not None:
        return no(state, "task_exists")
    approval = "pending" if op.args["manual"] else "not_required"
    ways: list[Way] = []
    # What it waits for may be done already, in any combination.
    open_edges = frozenset(on for on in edges if world.meets.get(on, NEVER) > op.ended)
    for waits in {edges, open_edges}:
        made = State(key, approval, paused=state.paused, edges=edges, waits=waits)
        ways += ok(made.settled(world.plan))
    # Whether its parent, its dependencies or the lease that guards it forbade it, theirs tell.
    return [*ways, *(way for code in op.args["refused"] for way in no(state, code))]


def look(state: State, op: Op, world: World) -> list[Way]:
    return ok(state)


def cancel(state: State, op: Op, world: World) -> list[Way]:
    if state.status in ("completed", "failed"):
        return no(state, "task_already_terminal")
    return ok(state.shut())


def cancel_above(state: State, op: Op, world: World) -> list[Way]:
    """An ancestor is canceled, unless it was so before or had ended."""
    return [(state.shut(), {}), (state, {})]


def pause(state: State, op: Op, world: World) -> list[Way]:
    if state.status in ENDED:
        return no(state, "task_already_terminal")
    paused = state.paused | {op.args["task"]}
    return ok(state._replace(paused=paused, version=state.version + 1))


def resume(state: State, op: Op, world: World) -> list[Way]:
    if op.args["task"] not in state.paused:
        return ok(state)
    paused = state.paused - {op.args["task"]}
    return ok(state._replace(paused=paused, version=state.version + 1).settled(world.plan))


def pause_above(state: State, op: Op, world: World) -> list[Way]:
    paused = state._replace(paused=state.paused | {op.args["task"]})
    return [(paused, {"code": None})]


def resume_above(state: State, op: Op, world: World) -> list[Way]:
    resumed = state._replace(paused=state.paused - {op.args["task"]})
    return [(resumed.settled(world.plan), {"code": None})]


def approve(state: State, op: Op, world: World) -> list[Way]:
    if state.approval != "pending":
        return no(state, "approval_not_pending")
    if state.canceled:
        return no(state, "task_canceled")
    free = not state.open and state.attempts < world.plan.max_attempts
    state = state._replace(approval="approved", version=state.version + 1)
    return ok((state.enqueue() if free else state).settled(world.plan))


def reject(state: State, op: Op, world: World) -> list[Way]:
    if state.approval != "pending":
        return no(state, "approval_not_pending")
    if state.canceled:
        return no(state, "task_canceled")
    return ok(state._replace(approval="rejected", version=state.version + 1))


def depend(state: State, op: Op, world: World) -> list[Way]:
    on = op.args["on"]
    if on in state.edges:
        return no(state, "dependency_exists")
    edges = state.edges | {on}
    ways = ok(state._replace(edges=edges, waits=state.waits | {on}))
    if world.meets.get(on, NEVER) <= op.ended:
        ways += ok(state._replace(edges=edges))
    # Whether there is a way back, and the other task at all, other histories tell.
    return [*ways, *no(state, "dependency_cycle"), *no(state, "task_not_found")]


def undepend(state: State, op: Op, world: World) -> list[Way]:
    on = op.args["on"]
    if on not in state.edges:
        return no(state, "dependency_not_found")
    freed = state._replace(edges=state.edges - {on}, waits=state.waits - {on})
    return ok(freed.settled(world.plan))


# ── runs by hand ──


def start(state: State, op: Op, world: World) -> list[Way]:
    refused = {
        "task_canceled": state.canceled, "open_run_exists": state.open is not None,
        "review_open": state.status == "pending",
    }  # fmt: skip
    for code, holds in refused.items():
        if holds:
            return no(state, code)
    if state.gate == "blocked":
        return no(state, "task_blocked")
    if state.attempts >= world.plan.max_attempts:
        return no(state, "attempts_exhausted")
    return no(state, "task_blocked") if state.gated else ok(state.enqueue())


def cancel_run(state: State, op: Op, world: World) -> list[Way]:
    run = state.runs[op.args["attempt"] - 1]
    if run.status not in OPEN:
        return no(state, "task_run_already_terminal")
    return ok(state.end("cancel").run(run.attempt, status="canceled"))


def retry(state: State, op: Op, world: World) -> list[Way]:
    run = state.runs[op.args["attempt"] - 1]
    if run.status in OPEN:
        return no(state, "task_run_still_active")
    if run.status != "failed":
        return no(state, "task_run_already_terminal")
    if run.retried:
        return no(state, "run_already_retried")
    if state.newest != run:
        return no(state, "run_superseded")
    if state.canceled:
        return no(state, "task_canceled")
    state = state.run(run.attempt, retried=True)
    if state.gate == "open" and run.review:
        review = run.review._replace(status="canceled")
        state = state.let_go("cancel").run(run.attempt, review=review)
    return ok(state.enqueue(run.turn))


def recover(state: State, op: Op, world: World) -> list[Way]:
    run = state.runs[op.args["attempt"] - 1]
    if run.status != "needs_attention":
        return no(state, "task_run_not_recoverable")
    state = state.run(run.attempt, status="failed", why="operator_forced", retried=True)
    return ok(state.enqueue(run.turn))


def force_release(state: State, op: Op, world: World) -> list[Way]:
    run = state.runs[op.args["attempt"] - 1]
    if run.status not in LEASED:
        return no(state, "task_run_not_releasable")
    return ok(state.end("revoke").run(run.attempt, status="queued"))


def force_fail(state: State, op: Op, world: World) -> list[Way]:
    run = state.runs[op.args["attempt"] - 1]
    if run.status not in OPEN:
        return no(state, "task_run_already_terminal")
    state = state.end("force").run(run.attempt, status="failed", why="operator_forced")
    return ok(reviewed(state, run.attempt, world.plan))
