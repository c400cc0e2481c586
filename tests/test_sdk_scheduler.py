"""The scheduler and the inbox through the SDK, as an operator uses them."""

from agent_sdk import Client


def test_an_operator_stops_and_resumes_what_is_handed_out(clients: tuple[Client, Client]) -> None:
    operator, agent = clients
    task = operator.tasks.create(title="waits")
    paused = operator.scheduler.pause(reason="maintenance")
    assert (paused.paused, paused.paused_reason) == (True, "maintenance")
    assert agent.claim() is None
    backlog = operator.scheduler.backlog()
    assert (backlog.total, [queued.task.id for queued in backlog.runs]) == (1, [task.id])
    assert not operator.scheduler.resume().paused
    assert agent.claim()
    assert operator.scheduler.get().active_claim_count == 1


def test_a_drain_tells_what_is_left(clients: tuple[Client, Client]) -> None:
    operator, agent = clients
    operator.tasks.create(title="held")
    lease = agent.claim()
    assert lease
    drained = operator.scheduler.drain(timeout_seconds=0)
    assert (drained.timed_out, drained.remaining_claims) == (True, 1)
    lease.complete()
    drained = operator.scheduler.drain(timeout_seconds=5)
    assert (drained.completed, drained.scheduler.paused) == (True, True)
