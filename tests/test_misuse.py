"""P2: no call made with an old lease changes anything: every way to misuse a lease, row by row."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from server.rules.tokens import claim_token
from tests.client import Client
from tests.factories import Held, Workspace, refused

OPERATIONS = ("heartbeat", "complete", "fail", "release")
TERMINAL = {"run_status", "ended_at", "failure_kind"}


class Misuse(NamedTuple):
    """A call: by whom, on which run, with what beside the operation's own fields."""

    by: Client
    held: Held
    body: Mapping[str, Any] = MappingProxyType({})


def _held(w: Workspace, **task: Any) -> Held:
    w.task(**task)
    return w.agent().claim(lease_seconds=60)


def _too_large(w: Workspace) -> Misuse:
    held = _held(w)
    return Misuse(held.agent, held, {"checkpoint": "x" * 256 * 1024})


def _no_session(w: Workspace) -> Misuse:
    return Misuse(w.client("agent", X_Agent_Name="worker"), _held(w))


def _anothers_session(w: Workspace) -> Misuse:
    held = _held(w)
    return Misuse(w.agent("other", held.agent.session), held)


def _unknown_run(w: Workspace) -> Misuse:
    held = _held(w)
    held.run_id = "run_0"
    return Misuse(held.agent, held)


def _another_workspace(w: Workspace) -> Misuse:
    other = w.world.workspace()
    return Misuse(other.agent(), _held(w))


def _token_without_form(w: Workspace) -> Misuse:
    held = _held(w)
    return Misuse(held.agent, held, {"claim_token": f"{held.token}!"})


def _token_of_a_stranger(w: Workspace) -> Misuse:
    held = _held(w)
    made_up = claim_token(b"another server", w.id, held.run_id, held.fence)
    return Misuse(held.agent, held, {"claim_token": made_up})


def _token_of_another_run(w: Workspace) -> Misuse:
    held, other = _held(w), _held(w)
    return Misuse(held.agent, held, {"claim_token": other.token})


def _token_of_the_future(w: Workspace) -> Misuse:
    held = _held(w)
    ahead = claim_token(w.world.server.secret, w.id, held.run_id, held.fence + 1)
    return Misuse(held.agent, held, {"claim_token": ahead})


def _another_session(w: Workspace) -> Misuse:
    return Misuse(w.agent(), _held(w))


def _another_session_later(w: Workspace) -> Misuse:
    held = _held(w)
    held.complete(result=1)
    return Misuse(w.agent(), held, {"result": 1})


def _another_session_without_token(w: Workspace) -> Misuse:
    return Misuse(w.agent(), _held(w), {"claim_token": None})


def _claimed_twice_without_token(w: Workspace) -> Misuse:
    held = _held(w)
    held.release()
    return Misuse(held.agent, held.agent.claim(), {"claim_token": None})


def _token_always_wanted(w: Workspace) -> Misuse:
    w.world.admin.patch(f"/api/workspaces/{w.id}", settings={"require_claim_token": True})
    return Misuse((held := _held(w)).agent, held, {"claim_token": None})


def _never_claimed(w: Workspace) -> Misuse:
    task = w.task(available_at="2099-01-01T00:00:00Z")
    held = _held(w)
    held.run_id = w.operator.get(f"/api/tasks/{task.id}/runs").runs[0].id
    return Misuse(held.agent, held, {"claim_token": None})


def _held_last_by_another(w: Workspace) -> Misuse:
    held = _held(w)
    held.release()
    return Misuse(w.agent(), held, {"claim_token": None})


def _claimed_since(w: Workspace) -> Misuse:
    held = _expired(w).held
    w.world.advance(3600)
    w.agent().claim()
    return Misuse(held.agent, held)


def _older_fence(w: Workspace) -> Misuse:
    held = _held(w)
    return Misuse(held.agent, held, {"fence": held.fence - 1})


def _greater_fence(w: Workspace) -> Misuse:
    held = _held(w)
    return Misuse(held.agent, held, {"fence": held.fence + 1})


def _run_canceled(w: Workspace) -> Misuse:
    held = _held(w)
    w.operator.post(f"/api/task-runs/{held.run_id}/cancel", reason="enough")
    return Misuse(held.agent, held)


def _task_canceled(w: Workspace) -> Misuse:
    held = _held(w)
    w.operator.post(f"/api/tasks/{held.task_id}/cancel", reason="enough")
    return Misuse(held.agent, held, {"claim_token": None})


def _completed(w: Workspace) -> Misuse:
    held = _held(w)
    held.complete(result={"n": 1})
    return Misuse(held.agent, held, {"result": {"n": 2}})


def _failed(w: Workspace) -> Misuse:
    held = _held(w)
    held.fail("this", retryable=False)
    return Misuse(held.agent, held, {"error": "that"})


def _failed_and_retried(w: Workspace) -> Misuse:
    held = _held(w, retry={"strategy": "none"})
    held.fail("this")
    w.agent().claim()
    return Misuse(held.agent, held, {"error": "that"})


def _past_its_deadline(w: Workspace) -> Misuse:
    held = _held(w, deadline_seconds=30)
    w.world.advance(31)
    assert w.sweep() == 1
    return Misuse(held.agent, held)


def _recovered(w: Workspace) -> Misuse:
    held = _quarantined(w).held
    w.operator.post(f"/api/runs/{held.run_id}/recover", reason="I looked")
    return Misuse(held.agent, held)


def _forced_to_fail(w: Workspace) -> Misuse:
    held = _held(w)
    w.operator.post(f"/api/runs/{held.run_id}/fail", reason="no")
    return Misuse(held.agent, held, {"error": "no"})


def _taken_away(w: Workspace) -> Misuse:
    held = _held(w)
    w.operator.post(f"/api/runs/{held.run_id}/release", reason="mine now")
    return Misuse(held.agent, held)


def _released(w: Workspace) -> Misuse:
    held = _held(w)
    held.release(reason="lunch")
    return Misuse(held.agent, held)


def _expired(w: Workspace, **task: Any) -> Misuse:
    held = _held(w, **task)
    w.world.advance(61)
    assert w.sweep() == 1
    return Misuse(held.agent, held)


def _quarantined(w: Workspace) -> Misuse:
    return _expired(w, max_lease_expiries=1)


Row = tuple[Callable[[Workspace], Misuse], int, str, set[str]]
EXPIRED = {"lease_until", "deadline_at", "run_status"}
# Section by section as the contract has them; evidence: what must be there at least.
TABLE: tuple[Row, ...] = (
    (_too_large, 413, "value_too_large", {"field", "limit_bytes"}),
    (_no_session, 401, "identity_required", {"header"}),
    (_anothers_session, 403, "identity_mismatch", {"session_id"}),
    (_unknown_run, 404, "run_not_found", {"id"}),
    (_another_workspace, 404, "run_not_found", {"id"}),
    (_token_without_form, 409, "invalid_claim_token", {"run_id"}),
    (_token_of_a_stranger, 409, "invalid_claim_token", {"run_id"}),
    (_token_of_another_run, 409, "invalid_claim_token", {"run_id"}),
    (_token_of_the_future, 409, "stale_fence", {"fence", "current_fence"}),
    (_another_session, 403, "foreign_run", {"run_id"}),
    (_another_session_later, 403, "foreign_run", {"run_id"}),
    (_another_session_without_token, 403, "foreign_run", {"run_id"}),
    (_claimed_twice_without_token, 422, "claim_token_required", {"run_id"}),
    (_token_always_wanted, 422, "claim_token_required", {"run_id"}),
    (_never_claimed, 409, "no_active_lease", {"run_id", "run_status"}),
    (_held_last_by_another, 409, "no_active_lease", {"run_id", "run_status"}),
    (_claimed_since, 409, "stale_fence", {"fence", "current_fence"}),
    (_older_fence, 409, "stale_fence", {"fence", "current_fence"}),
    (_greater_fence, 409, "stale_fence", {"fence", "current_fence"}),
    (_run_canceled, 409, "run_canceled", {"reason", "ended_at"}),
    (_task_canceled, 409, "run_canceled", {"reason", "ended_at"}),
    (_completed, 409, "task_run_already_terminal", TERMINAL),
    (_failed, 409, "task_run_already_terminal", TERMINAL),
    (_failed_and_retried, 409, "task_run_already_terminal", TERMINAL),
    (_past_its_deadline, 409, "task_run_already_terminal", TERMINAL),
    (_recovered, 409, "task_run_already_terminal", TERMINAL),
    (_forced_to_fail, 409, "task_run_already_terminal", TERMINAL),
    (_released, 409, "lease_released", {"run_status"}),
    (_taken_away, 409, "lease_revoked", {"reason"}),
    (_expired, 409, "lease_expired", EXPIRED),
    (_quarantined, 409, "lease_expired", EXPIRED),
)
# A release after a release is a repeat.
REPEATS = {(_released, "release")}


def _call(misuse: Misuse, operation: str) -> Any:
    body = {"error": "no"} if operation == "fail" else {}
    given = {
        name: v for name, v in misuse.body.items() if name != "result" or operation == "complete"
    }
    given = {name: v for name, v in given.items() if name != "error" or operation == "fail"}
    return misuse.held.by(misuse.by, operation, **body | given)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("row", TABLE, ids=lambda row: row[0].__name__)
def test_a_misused_lease_changes_nothing(workspace: Workspace, row: Row, operation: str) -> None:
    """P2: not state, not the log, not counters; and the caller learns why."""
    prepare, status, code, evidence = row
    misuse = prepare(workspace)
    with workspace.unchanged():
        if (prepare, operation) in REPEATS:
            _call(misuse, operation)
            assert misuse.by.replayed
            return
        with refused(status, code) as told:
            _call(misuse, operation)
    assert evidence <= set(told[0].evidence)
    assert misuse.held.token not in misuse.by.last.text


def test_what_was_true_of_the_lease_is_told_to_who_lost_it(workspace: Workspace) -> None:
    claimed = _claimed_since(workspace)
    with refused(409, "stale_fence", fence=1, current_fence=2):
        _call(claimed, "complete")
    canceled = _run_canceled(workspace)
    with refused(409, "run_canceled", reason="enough"):
        _call(canceled, "heartbeat")
    late = _past_its_deadline(workspace)
    with refused(409, "task_run_already_terminal", failure_kind="deadline_exceeded"):
        _call(late, "complete")
    held = _held(workspace)
    until = held.claim.lease.lease_until
    workspace.world.advance(61)
    workspace.sweep()
    with refused(409, "lease_expired", lease_until=until, deadline_at=None, run_status="queued"):
        held.heartbeat()
