"""How many open tasks a workspace may have: exact, also when many come at once."""

from tests.factories import refused
from tests.world import World


def test_open_tasks_stay_below_the_quota(world: World) -> None:
    own = world.workspace(max_open_tasks=3)
    first, second, third = (own.task() for _ in range(3))
    with own.unchanged():
        with refused(409, "quota_exceeded", limit=3, count=4):
            own.task()
        with refused(409, "quota_exceeded", limit=3, count=5):
            own.graph({"a": [], "b": []})
        with refused(409, "quota_exceeded", limit=3, count=4):
            own.operator.post(f"/api/tasks/{first.id}/children", title="a child")
    agent = own.agent()
    agent.work(first.id)
    agent.work(second.id, "fail", retryable=False)
    own.cancel(third.id)
    assert len(own.graph({"a": [], "b": [], "c": []}, auto_enqueue_on_ready=False)) == 3
    with refused(409, "quota_exceeded", limit=3, count=4):
        own.task()
    assert own.faults() == {}


def test_ended_tasks_that_run_again_count_and_are_not_refused(world: World) -> None:
    own = world.workspace(max_open_tasks=1)
    done = own.task()
    own.agent().work(done.id)
    other = own.task(auto_enqueue_on_ready=False)
    own.operator.post(f"/api/tasks/{done.id}/start")
    with refused(409, "quota_exceeded", limit=1, count=3):
        own.task()
    own.operator.delete(f"/api/tasks/{other.id}")
    own.agent().work(done.id)
    assert own.task().status == "ready"
    assert own.faults() == {}


def test_what_is_born_canceled_takes_no_place(world: World) -> None:
    own = world.workspace(max_open_tasks=1)
    dead = own.task()
    own.cancel(dead.id)
    for _ in range(2):
        born = own.task(depends_on=[dead.id], on_dependency_failure="cancel")
        assert born.status == "canceled"
    assert own.task().status == "ready"


def test_a_lower_quota_holds_from_then_on(world: World) -> None:
    own = world.workspace()
    own.graph({"a": [], "b": []})
    own.operator.patch(f"/api/workspaces/{own.id}", settings={"max_open_tasks": 1})
    with refused(409, "quota_exceeded", limit=1, count=3):
        own.task()


def test_creates_at_once_do_not_slip_over_the_quota(world: World) -> None:
    own = world.workspace(max_open_tasks=3)
    # No more than one workspace may have at the database at once; each has made its task by then.
    assert own.made_at_once(5) == ["quota_exceeded"] * 2 + ["ready"] * 3
