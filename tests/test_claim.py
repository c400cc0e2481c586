"""Which run a claim gets, and what it says about it."""

from tests.factories import Agent, Workspace


def test_a_claim_makes_run_and_lease_one_agents(workspace: Workspace, agent: Agent) -> None:
    task = workspace.task(payload={"n": 1}, description="do it")
    held = agent.claim(lease_seconds=60)
    claim = held.claim
    assert (claim.task.id, claim.payload, claim.description) == (task.id, {"n": 1}, "do it")
    assert (claim.run.status, claim.run.fence, claim.run.claim_count) == ("claimed", 1, 1)
    assert claim.lease.claimed_by == claim.run.claimed_by
    assert claim.lease.session_id == agent.session
    after = workspace.get(task.id)
    assert (after.status, after.current_run_id, after.fence) == ("in_progress", held.run_id, 1)
    assert agent.leases() == [held.run_id]
    assert agent.claims() == []
