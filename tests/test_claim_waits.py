"""Whom of those that wait a run wakes."""

import re
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

from tests.factories import Workspace, refused
from tests.world import World

LOOKS = re.compile(r'worklease_batch_size_sum{operation="claim"} (\S+)')


def test_as_many_waiters_wake_as_runs_come(workspace: Workspace) -> None:
    agents = [workspace.agent() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        claims = [pool.submit(agent.claim, wait_seconds=30) for agent in agents]
        workspace.world.until_waiting(4)
        items = [{"ref": str(n), "title": "t"} for n in range(4)]
        workspace.operator.post("/api/tasks/bulk", tasks=items)
        assert len({claim.result().run_id for claim in claims}) == 4


def _looks(workspace: Workspace) -> float:
    """How many claims were sent to the database until this one, which finds nothing."""
    assert workspace.agent().claims() == []
    return sum(map(float, LOOKS.findall(workspace.world.admin.get("/metrics"))))


def test_a_run_wakes_one_of_those_who_may_all_take_it(lonely: World) -> None:
    """And that one another, in case there is more: a crowd of idle agents costs nothing."""
    own = lonely.workspace()
    with ThreadPoolExecutor(8) as pool:
        claims = {pool.submit(own.agent().claim, wait_seconds=30) for _ in range(8)}
        lonely.until_waiting(8)
        # The first run makes the lane; from then on it is known who may take what.
        for _ in range(2):
            before = _looks(own)
            own.task()
            _, claims = wait(claims, return_when=FIRST_COMPLETED)
        after = _looks(own)
        own.graph({str(n): [] for n in range(len(claims))})
    assert after - before == 2 + 1


def test_a_wait_without_a_place_is_refused(world: World) -> None:
    own = world.workspace(max_waiting_claims=1)
    with ThreadPoolExecutor(2) as pool:
        claims = {pool.submit(own.agent().claim, wait_seconds=30) for _ in range(2)}
        done, waiting = wait(claims, return_when=FIRST_COMPLETED)
        with refused(429, "rate_limited", limit=1):
            done.pop().result()
        task = own.task()
        assert waiting.pop().result().task_id == task.id
