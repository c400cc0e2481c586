"""What the sweep ends, what it renews, and what a late call still may (P10)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.factories import Agent, Held, Workspace, refused, seconds
from tests.world import World

TRIP = """
create function trip() returns trigger language plpgsql as $$
begin
  raise 'this row cannot be written';
end $$;
create trigger trip before update on run for each row
  when (old.run_id = '{}') execute function trip();
"""


def _lapsed(workspace: Workspace, **task: Any) -> Held:
    """A lease whose time is over, and which the sweep has not seen yet."""
    workspace.task(**task)
    held = workspace.agent().claim(lease_seconds=60)
    workspace.world.advance(61)
    return held


def test_a_late_heartbeat_renews(world: World, workspace: Workspace) -> None:
    held = _lapsed(workspace)
    told = held.heartbeat()
    assert seconds(told.lease_until, told.server_time) == pytest.approx(60, abs=1)
    workspace.sweep()
    held.complete()


@pytest.mark.parametrize("operation", ["complete", "fail", "release"])
def test_a_late_end_of_a_lease_counts(workspace: Workspace, operation: str) -> None:
    held = _lapsed(workspace)
    held.call(operation, **({"error": "no"} if operation == "fail" else {}))
    assert workspace.told(event_type="task.run_lease_expired") == []


def test_a_lease_past_its_time_is_not_vouched_for(workspace: Workspace) -> None:
    held = _lapsed(workspace)
    asked = {"run_id": held.run_id, "fence": held.fence}
    verify = workspace.operator.post
    assert verify("/api/leases/verify", **asked).current is False
    held.heartbeat()
    assert verify("/api/leases/verify", **asked).current is True
    assert verify("/api/leases/verify", **asked, claim_token=held.token).current is True
    assert verify("/api/leases/verify", **asked, claim_token="wlt_1_x").current is False
    assert verify("/api/leases/verify", run_id=held.run_id, fence=2).current is False
    held.release()
    told = verify("/api/leases/verify", **asked)
    assert (told.current, told.current_fence, told.run_status) == (False, 1, "queued")


def test_a_run_that_nobody_claimed_is_not_vouched_for(workspace: Workspace) -> None:
    """No fence is current where there is none: false, and not unknown."""
    run = workspace.operator.get(f"/api/tasks/{workspace.task().id}/runs").runs[0]
    told = workspace.operator.post("/api/leases/verify", run_id=run.id, fence=0)
    assert (told.current, told.current_fence, told.lease_until) == (False, None, None)


def test_the_sweep_queues_a_run_again_after_a_back_off(world: World, workspace: Workspace) -> None:
    held = _lapsed(workspace, retry={"strategy": "fixed", "base_seconds": 50})
    until = held.claim.lease.lease_until
    assert workspace.sweep() == 1
    run = workspace.run(held.run_id)
    assert (run.status, run.lease_expiries, run.attempt, run.fence) == ("queued", 1, 1, 1)
    assert (run.claimed_by, run.session_id, run.lease_until, run.started_at) == (None,) * 4
    assert (run.agent_name, run.claim_token_hash) == (
        "worker",
        held.claim.lease.claim_token_hash,
    )
    assert seconds(run.available_at, run.queued_at) == 50
    assert workspace.get(held.task_id).status == "ready"
    [event] = workspace.events(event_type="task.run_lease_expired")
    assert (event.actor.kind, event.actor.ref, event.payload["lease_until"]) == (
        "daemon",
        "expiry",
        until,
    )
    assert held.agent.claims() == []
    world.advance(51)
    assert held.agent.claim().fence == 2


def test_an_expired_run_hands_on_what_was_saved(world: World, workspace: Workspace) -> None:
    held = _lapsed(workspace, retry={"strategy": "none"})
    held.heartbeat(checkpoint={"page": 7}, progress={"percent": 40})
    world.advance(61)
    workspace.sweep()
    again = workspace.agent().claim().claim
    assert (again.checkpoint, again.run.claim_count) == ({"page": 7}, 2)


def test_a_crash_loop_ends_in_needs_attention(world: World, workspace: Workspace) -> None:
    """P10: after max_lease_expiries expiries without a new checkpoint in between."""
    task = workspace.task(max_lease_expiries=3, retry={"strategy": "none"})
    agent = workspace.agent()
    for expiries in (1, 2, 3):
        held = agent.claim(lease_seconds=60)
        world.advance(61)
        workspace.sweep()
        assert workspace.run(held.run_id).lease_expiries == expiries
    assert workspace.run(held.run_id).status == "needs_attention"
    assert workspace.get(task.id).status == "blocked"
    assert agent.claims() == []
    [event] = workspace.events(event_type="task.run_needs_attention")
    assert set(event.payload["diagnostic"]) == {"code", "message"}
    workspace.operator.post(f"/api/runs/{held.run_id}/recover", reason="looked")
    assert agent.claim().fence == 4


def test_a_run_that_needs_attention_says_who_had_it_last(workspace: Workspace) -> None:
    """Only the queue forgets its claimer; the session is free, and told in the events."""
    held = _lapsed(workspace, max_lease_expiries=1)
    workspace.sweep()
    run, claimed = workspace.run(held.run_id), held.claim.run
    assert (run.status, run.session_id) == ("needs_attention", None)
    assert (run.claimed_by, run.claimed_at) == (claimed.claimed_by, claimed.claimed_at)
    workspace.operator.post(f"/api/runs/{held.run_id}/recover")
    assert workspace.run(held.run_id).claimed_by == claimed.claimed_by


def test_a_new_checkpoint_starts_the_count_again(world: World, workspace: Workspace) -> None:
    """P10: a run that gets on is no crash loop; the same checkpoint again is no progress."""
    workspace.task(max_lease_expiries=2, retry={"strategy": "none"})
    agent = workspace.agent()
    for checkpoint in (1, 2, 3, 3):
        held = agent.claim(lease_seconds=60)
        held.heartbeat(checkpoint=checkpoint)
        world.advance(61)
        workspace.sweep()
    run = workspace.run(held.run_id)
    assert (run.status, run.lease_expiries) == ("needs_attention", 4)


def test_no_heartbeat_moves_the_deadline(world: World, workspace: Workspace) -> None:
    workspace.task(deadline_seconds=100, retry={"strategy": "none"})
    held = workspace.agent().claim(lease_seconds=60)
    told = held.heartbeat(lease_seconds=600)
    assert told.lease_until == told.lease.deadline_at
    world.advance(101)
    assert held.heartbeat().lease_until == told.lease_until
    workspace.sweep()
    run = workspace.run(held.run_id)
    assert (run.status, run.failure_kind, run.retryable) == ("failed", "deadline_exceeded", True)
    assert run.lease_expiries == 0
    assert workspace.agent().claim().claim.run.previous_run_id == held.run_id


def test_a_heartbeat_never_shortens_a_lease(workspace: Workspace, agent: Agent) -> None:
    workspace.task()
    held = agent.claim(lease_seconds=600)
    assert held.heartbeat(lease_seconds=5).lease_until == held.claim.lease.lease_until
    workspace.world.advance(10)
    later = held.heartbeat()
    assert later.lease_until > held.claim.lease.lease_until
    assert later.lease.lease_seconds == 600


def test_leases_that_lapsed_in_an_outage_are_renewed(world: World, workspace: Workspace) -> None:
    held, doomed = _lapsed(workspace), _lapsed(workspace, deadline_seconds=60)
    workspace.sweep()
    held = _lapsed(workspace)
    assert workspace.run(doomed.run_id).status == "failed"
    events = workspace.told()
    assert world.sweep_after_outage() == 0
    run = workspace.run(held.run_id)
    assert (run.status, run.lease_expiries, workspace.told()) == ("claimed", 0, events)
    world.advance(59)
    assert workspace.sweep() == 0
    world.advance(2)
    assert workspace.sweep() == 1


def test_an_outage_does_not_lift_a_deadline(world: World, workspace: Workspace) -> None:
    held = _lapsed(workspace, deadline_seconds=60)
    assert world.sweep_after_outage() == 0
    assert workspace.run(held.run_id).lease_until == held.claim.lease.deadline_at
    assert workspace.sweep() == 1


def test_a_pass_is_bounded_and_the_next_goes_on(world: World, workspace: Workspace) -> None:
    for _ in range(5):
        workspace.task()
    # What other tests have left is out of the way first.
    world.advance(100_000)
    world.sweep()
    workspace.agent().claims(max_runs=5, lease_seconds=60)
    world.advance(61)
    assert [world.sweep(rows=2) for _ in range(4)] == [2, 2, 1, 0]


def test_a_busy_task_is_left_for_the_next_pass(world: World, workspace: Workspace) -> None:
    held, other = _lapsed(workspace), _lapsed(workspace)
    with workspace.holding(held.task_id):
        assert workspace.sweep() == 1
    assert workspace.run(other.run_id).status == "queued"
    assert workspace.sweep() == 1


@contextmanager
def _tripping(world: World, run_id: str) -> Iterator[None]:
    world.db.execute(TRIP.format(run_id).encode())
    yield
    world.db.execute("drop trigger trip on run; drop function trip()")


def test_a_run_that_cannot_be_expired_does_not_hold_up_the_others(
    world: World, workspace: Workspace
) -> None:
    held = [_lapsed(workspace) for _ in range(3)]
    with _tripping(world, held[1].run_id):
        assert workspace.sweep() == 2
        assert workspace.sweep() == 0
    assert workspace.run(held[1].run_id).status == "claimed"
    world.advance(61)
    assert workspace.sweep() == 1


def test_a_lost_lease_is_told_to_its_holder(world: World, workspace: Workspace) -> None:
    held = _lapsed(workspace)
    workspace.sweep()
    with refused(409, "lease_expired"):
        held.complete(result="too late")
    assert held.agent.leases() == []
