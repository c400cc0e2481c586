"""Who waits for whom, and what happens when that ends well, badly or not at all (P6, P7)."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.client import RefusedError
from tests.factories import Agent, Workspace, refused
from tests.world import World


def test_a_task_waits_for_all_it_depends_on(workspace: Workspace, agent: Agent) -> None:
    """P6: nobody gets it before; P7: it is queued with the completion of the last one."""
    ids = workspace.graph({"a": [], "b": [], "c": ["a", "b"]})
    assert workspace.get(ids["c"]).dependencies_waiting == 2
    agent.work(ids["a"])
    assert workspace.statuses(ids) == {"a": "completed", "b": "ready", "c": "blocked"}
    assert workspace.get(ids["c"]).attempts_used == 0
    held = agent.claim()
    assert agent.claims() == []
    sequence = workspace.events()[-1].sequence
    held.complete()
    told = [(e.event_type, e.task_id) for e in workspace.events(after_sequence=sequence)]
    assert told == [
        ("task.run_completed", ids["b"]),
        ("task.status_changed", ids["c"]),
        ("task.run_enqueued", ids["c"]),
    ]
    agent.work(ids["c"])


def test_two_dependencies_that_end_at_once_count_twice(workspace: Workspace, agent: Agent) -> None:
    names = [f"d{n}" for n in range(20)]
    ids = workspace.graph({**{name: [] for name in names}, "last": names})
    items = [{"run_id": h.run_id, "claim_token": h.token} for h in agent.claims(max_runs=20)]
    agent.post("/api/agent/tasks/bulk/complete", items=items)
    assert workspace.get(ids["last"]).dependencies_waiting == 0
    agent.work(ids["last"])


@pytest.mark.parametrize(
    ("policy", "waiting", "then"),
    [("block", 1, "blocked"), ("run", 0, "ready"), ("cancel", 1, "canceled")],
)
@pytest.mark.parametrize("end", ["fail", "cancel"])
def test_a_dependency_that_ends_badly(
    workspace: Workspace, agent: Agent, policy: str, waiting: int, then: str, end: str
) -> None:
    """P7: under `run` the failure itself queues who waited."""
    ids = workspace.graph({"a": [], "b": ["a"]}, on_dependency_failure=policy)
    if end == "fail":
        agent.work(ids["a"], "fail", retryable=False)
    else:
        workspace.cancel(ids["a"])
    after = workspace.get(ids["b"])
    assert (after.status, after.dependencies_waiting) == (then, waiting)
    assert [h.task_id for h in agent.claims()] == ([ids["b"]] if policy == "run" else [])


def test_a_failure_cancels_through_dependents_and_their_subtrees(
    workspace: Workspace, agent: Agent
) -> None:
    ids = workspace.graph({"a": [], "b": ["a"], "c": ["b"]}, on_dependency_failure="cancel")
    keep = workspace.task(depends_on=[ids["c"]], on_dependency_failure="block")
    ids |= {"child": workspace.task(parent_task_id=ids["b"]).id, "keep": keep.id}
    ids["run"] = workspace.task(depends_on=[ids["c"]], on_dependency_failure="run").id
    workspace.cancel(ids["a"], reason="no more")
    after = workspace.statuses(ids)
    assert after == dict.fromkeys(("a", "b", "c", "child"), "canceled") | {
        "keep": "blocked", "run": "ready",
    }  # fmt: skip
    [event] = workspace.events(task_id=ids["c"], event_type="task.canceled")
    assert event.payload["reason"] == "dependency_failed"
    [event] = workspace.events(task_id=ids["child"], event_type="task.canceled")
    assert event.payload["propagated_from_task_id"] == ids["b"]


def test_made_to_wait_for_what_failed_is_canceled_at_once(workspace: Workspace) -> None:
    dead = workspace.task()
    workspace.cancel(dead.id)
    born = workspace.task(depends_on=[dead.id], on_dependency_failure="cancel")
    assert born.status == "canceled"
    later = workspace.task(on_dependency_failure="cancel")
    assert workspace.depend(later.id, dead.id).status == "canceled"
    assert workspace.task(depends_on=[dead.id], on_dependency_failure="run").status == "ready"


def test_a_dependency_that_runs_again_closes_the_gate_again(
    workspace: Workspace, agent: Agent
) -> None:
    """P6: a queued run waits; a claimed one goes on; an ended task stays."""
    ids = workspace.graph({"a": [], "queued": ["a"], "claimed": ["a"], "done": ["a"]})
    agent.work(ids["a"])
    held = {h.task_id: h for h in agent.claims(max_runs=3)}
    held[ids["done"]].complete()
    held[ids["queued"]].release()
    workspace.operator.post(f"/api/tasks/{ids['a']}/start")
    assert workspace.statuses(ids) == {
        "a": "ready", "queued": "blocked", "claimed": "in_progress", "done": "completed",
    }  # fmt: skip
    agent.work(ids["a"], "fail", retryable=False)
    held[ids["claimed"]].complete()
    assert agent.claims() == []
    workspace.operator.post(f"/api/tasks/{ids['a']}/start")
    agent.work(ids["a"])
    agent.work(ids["queued"])


def test_what_may_not_be_added(workspace: Workspace, world: World) -> None:
    """Checked in the order of the contract, and nothing changes."""
    ids = workspace.graph({"a": [], "b": ["a"], "c": ["b"]})
    other = world.workspace().task()
    with workspace.unchanged():
        with refused(422, "dependency_self", task_id=ids["a"]):
            workspace.depend(ids["a"], ids["a"])
        for unknown in ("nobody", other.id):
            with refused(404, "task_not_found", id=unknown):
                workspace.depend(ids["a"], unknown)
            with refused(404, "task_not_found", id=unknown):
                workspace.depend(unknown, ids["a"])
        with refused(409, "dependency_exists", id=ids["a"]):
            workspace.depend(ids["b"], ids["a"])
        with refused(409, "dependency_cycle", path=[ids[n] for n in "acba"]):
            workspace.depend(ids["a"], ids["c"])
        with refused(404, "dependency_not_found", id=ids["c"]):
            workspace.operator.delete(f"/api/tasks/{ids['a']}/dependencies/{ids['c']}")


def test_two_additions_at_once_never_close_a_cycle(workspace: Workspace) -> None:
    for _ in range(5):
        one, other = workspace.task().id, workspace.task().id

        def depend(pair: tuple[str, str]) -> str:
            try:
                workspace.depend(*pair)
            except RefusedError as error:
                return error.code
            return "made"

        with ThreadPoolExecutor(2) as pool:
            made = set(pool.map(depend, [(one, other), (other, one)]))
        assert made == {"made", "dependency_cycle"}


def test_an_edge_added_under_a_lease_leaves_the_lease_alone(
    workspace: Workspace, agent: Agent
) -> None:
    """P6: it counts at once, and the run waits as soon as the lease is given back."""
    first = workspace.task()
    held = agent.claim()
    second = workspace.task()
    assert workspace.depend(first.id, second.id).dependencies_waiting == 1
    held.heartbeat(checkpoint={"page": 1})
    held.release(note="waits")
    assert workspace.get(first.id).status == "blocked"
    agent.work(second.id)
    again = agent.claim()
    assert (again.run_id, again.claim.checkpoint, again.claim.note) == (
        held.run_id, {"page": 1}, "waits",
    )  # fmt: skip


def test_a_removed_edge_opens_the_gate(workspace: Workspace, agent: Agent) -> None:
    """P7: queued in the same transaction; a deleted dependency counts the same."""
    ids = workspace.graph({"a": [], "b": ["a"], "c": ["a"], "d": ["b"]}, auto_enqueue_on_ready=True)
    workspace.operator.delete(f"/api/tasks/{ids['b']}/dependencies/{ids['a']}")
    assert [e.payload["cause"] for e in workspace.events(
        task_id=ids["b"], event_type="task.dependency_removed")] == ["call"]  # fmt: skip
    workspace.cancel(ids["a"])
    workspace.operator.delete(f"/api/tasks/{ids['a']}")
    [event] = workspace.events(task_id=ids["c"], event_type="task.dependency_removed")
    assert (event.payload["cause"], event.payload["dependencies_waiting"]) == (
        "dependency_deleted", 0,
    )  # fmt: skip
    assert {h.task_id for h in agent.claims(max_runs=5)} == {ids["b"], ids["c"]}


@pytest.mark.parametrize("last", ["on_dependency_failure", "auto_enqueue_on_ready"])
def test_a_patch_that_opens_the_gate_queues(workspace: Workspace, agent: Agent, last: str) -> None:
    """P7: whatever the cause."""
    ids = workspace.graph({"a": [], "b": ["a"]}, auto_enqueue_on_ready=False)
    workspace.cancel(ids["a"])
    patch = {"on_dependency_failure": "run", "auto_enqueue_on_ready": True}
    for name in sorted(patch, key=lambda name: name == last):
        assert agent.claims() == []
        workspace.operator.patch(f"/api/tasks/{ids['b']}", **{name: patch[name]})
    assert agent.claim().task_id == ids["b"]


def test_parents_and_dependencies_are_independent(workspace: Workspace, agent: Agent) -> None:
    parent = workspace.task()
    child = workspace.task(parent_task_id=parent.id)
    assert workspace.depend(parent.id, child.id).status == "blocked"
    agent.work(child.id)
    agent.work(parent.id)


def test_an_edge_of_an_ended_task_matters_when_it_runs_again(
    workspace: Workspace, agent: Agent
) -> None:
    done, other = workspace.task(), workspace.task(priority="low")
    agent.work(done.id)
    assert workspace.depend(done.id, other.id).status == "completed"
    with refused(409, "task_blocked", reasons=["awaiting_dependencies"]):
        workspace.operator.post(f"/api/tasks/{done.id}/start")
    run = workspace.operator.post(f"/api/tasks/{done.id}/runs").run
    assert workspace.get(done.id).status == "blocked"
    agent.work(other.id)
    assert agent.claim().run_id == run.id


def test_a_task_waits_for_ten_thousand_others_at_most(workspace: Workspace) -> None:
    names = [str(n) for n in range(10_000)]
    edges: dict[str, list[str]] = {name: [] for name in names}
    ids = [*workspace.graph(edges, auto_enqueue_on_ready=False).values()]
    task = workspace.task(depends_on=ids)
    assert task.dependencies_waiting == 10_000
    more = workspace.task()
    with refused(409, "dependency_limit", limit=10_000, count=10_001):
        workspace.depend(task.id, more.id)
    with refused(409, "dependency_limit", limit=10_000, count=10_001):
        workspace.task(depends_on=[*ids, more.id])
    [created] = workspace.events(task_id=task.id, event_type="task.created")
    assert len(created.payload["depends_on"]) == 2000
    [last] = workspace.operator.get("/api/events", task_id=task.id, order="desc", limit=1).events
    assert (last.event_type, last.payload["cause"]) == ("task.dependency_added", "create")


def test_what_a_task_waits_for_is_listed_with_its_results(
    workspace: Workspace, agent: Agent
) -> None:
    ids = workspace.graph({"a": [], "b": [], "c": ["a", "b"]})
    agent.work(ids["a"], result={"n": 1})
    path = f"/api/tasks/{ids['c']}/dependencies"
    first = workspace.operator.get(path, include_result=True, limit=1)
    rest = workspace.operator.get(path, include_result=True, limit=1, cursor=first.next_cursor)
    results = {d.depends_on.id: d.result for d in (*first.dependencies, *rest.dependencies)}
    assert results == {ids["a"]: {"n": 1}, ids["b"]: None}
    assert rest.next_cursor is None
    plain = workspace.operator.get(path, status="completed").dependencies
    assert [(d.satisfied, d.result, d.result_bytes) for d in plain] == [(True, None, 7)]


def test_of_two_children_made_at_once_for_the_last_place_one_is_refused(
    workspace: Workspace,
) -> None:
    parent = workspace.task()
    edges: dict[str, list[str]] = {str(n): [] for n in range(9_999)}
    workspace.graph(edges, parent_task_id=parent.id, auto_enqueue_on_ready=False)
    assert workspace.made_at_once(2, parent_task_id=parent.id) == ["children_limit", "ready"]


@pytest.mark.parametrize("operation", ["heartbeat", "release"])
def test_what_ends_no_task_does_not_meet_those_that_wait_for_it(
    workspace: Workspace, agent: Agent, operation: str
) -> None:
    held = agent.claim(workspace.task().id)
    waiting = workspace.task(depends_on=[held.task_id])
    with workspace.holding(waiting.id):
        held.call(operation)
