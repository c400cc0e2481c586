"""P5: a lost reply never loses or doubles work; all that may be repeated is repeated here."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest

from tests.factories import Agent, Held, Workspace, refused
from tests.world import World


def _same(one: Held, other: Held) -> bool:
    return (one.run_id, one.fence, one.token) == (other.run_id, other.fence, other.token)


def test_a_repeated_claim_answers_the_same_lease(workspace: Workspace, agent: Agent) -> None:
    workspace.task()
    workspace.task()
    first = agent.claim("k1", lease_seconds=60)
    until = first.heartbeat(lease_seconds=600).lease_until
    with workspace.unchanged():
        again = agent.claim("k1", lease_seconds=60)
    assert agent.replayed
    assert _same(first, again)
    assert again.claim.lease.lease_until == until
    again.complete()


def test_a_claim_key_is_the_same_as_header_and_as_field(workspace: Workspace, agent: Agent) -> None:
    workspace.task()
    workspace.task()
    first = agent.claim("k1", lease_seconds=60)
    assert _same(first, agent.claim(lease_seconds=60, idempotency_key="k1"))
    assert not _same(first, agent.claim("k2"))


def test_a_claim_key_belongs_to_one_session(workspace: Workspace) -> None:
    workspace.task()
    workspace.task()
    one, other = workspace.agent().claim("k1"), workspace.agent().claim("k1")
    assert one.run_id != other.run_id


def test_a_repeated_claim_leaves_out_the_leases_that_are_over(
    workspace: Workspace, agent: Agent
) -> None:
    for _ in range(3):
        workspace.task()
    held = agent.claims("k1", max_runs=3)
    held[0].complete()
    held[1].release()
    assert [h.run_id for h in agent.claims("k1", max_runs=3)] == [held[2].run_id]
    held[2].fail(retryable=False)
    with workspace.unchanged(), refused(409, "claim_key_spent") as told:
        agent.claims("k1", max_runs=3)
    assert sorted(told[0].evidence["run_ids"]) == sorted(h.run_id for h in held)


def test_a_claim_key_is_new_when_its_runs_were_claimed_again(
    workspace: Workspace, agent: Agent
) -> None:
    workspace.task()
    agent.claim("k1").release()
    with refused(409, "claim_key_spent"):
        agent.claim("k1")
    workspace.agent().claim().release()
    again = agent.claim("k1", lease_seconds=99)
    assert (again.fence, agent.replayed) == (3, False)
    assert _same(again, agent.claim("k1", lease_seconds=99))


def test_a_claim_key_with_another_wish_is_refused(workspace: Workspace, agent: Agent) -> None:
    workspace.task()
    agent.claim("k1", lease_seconds=60)
    with workspace.unchanged(), refused(422, "idempotency_key_reused"):
        agent.claim("k1", lease_seconds=61)


def test_an_empty_queue_is_not_remembered(workspace: Workspace, agent: Agent) -> None:
    assert agent.claims("k1") == []
    task = workspace.task()
    assert agent.claim("k1").task_id == task.id
    assert not agent.replayed


def test_one_claim_key_at_once_is_one_claim(workspace: Workspace) -> None:
    for _ in range(8):
        workspace.task()
    sessions = [workspace.agent("a", "one-session") for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        held = list(pool.map(lambda agent: agent.claim("k1"), sessions))
    assert len({(h.run_id, h.fence, h.token) for h in held}) == 1
    assert workspace.told(event_type="task.run_claimed") == ["task.run_claimed"]


def test_a_repeated_completion_changes_nothing(workspace: Workspace, agent: Agent) -> None:
    workspace.task()
    held = agent.claim()
    held.complete(result={"b": [1], "a": None})
    with workspace.unchanged():
        assert held.complete(result={"a": None, "b": [1]}).lease.status == "completed"
        assert agent.replayed
        with refused(409, "task_run_already_terminal", run_status="completed"):
            held.complete(result={"b": [2]})
        with refused(409, "task_run_already_terminal", failure_kind=None):
            held.fail()


def test_a_repeated_completion_answers_the_same_next_claim(
    workspace: Workspace, agent: Agent
) -> None:
    for _ in range(4):
        workspace.task()
    held = agent.claim()
    wish = {"max_runs": 2, "lease_seconds": 50}
    first = held.complete(result=1, claim_next=wish)
    with workspace.unchanged():
        again = held.complete(result=1, claim_next=wish)
    assert [c.lease.claim_token for c in first.claims] == [
        c.lease.claim_token for c in again.claims
    ]
    assert first.claim.run.id == first.claims[0].run.id
    assert len(agent.leases()) == 2


def test_a_completion_counts_even_if_the_next_claim_fails(
    workspace: Workspace, agent: Agent
) -> None:
    task = workspace.task()
    held = agent.claim("k1")
    told = held.complete(claim_next={"idempotency_key": "k1"})
    assert told.claim is None
    assert workspace.get(task.id).status == "completed"


def test_a_repeated_failure_answers_the_same_next_run(workspace: Workspace, agent: Agent) -> None:
    workspace.task()
    held = agent.claim()
    first = held.fail("no luck", failure_kind="network")
    with workspace.unchanged():
        assert held.fail("no luck", failure_kind="network") == first
        assert agent.replayed
        for other in ({"error": "no luck"}, {"error": "bad luck", "failure_kind": "network"}):
            with refused(409, "task_run_already_terminal", run_status="failed"):
                held.fail(**other)


def test_a_repeated_release_changes_nothing_even_when_the_run_has_gone_on(
    workspace: Workspace, agent: Agent
) -> None:
    workspace.task()
    held = agent.claim()
    held.release(reason="lunch", note="half done")
    with workspace.unchanged():
        held.release(note="another note")
        assert agent.replayed
    workspace.agent().claim()
    with workspace.unchanged():
        lease = held.release().lease
        assert agent.replayed
    # What became of this lease: of the one that follows it tells nothing.
    assert (lease.fence, lease.session_id, lease.lease_until) == (held.fence, None, None)


CREATIONS: dict[str, Callable[[Workspace], tuple[str, dict[str, Any]]]] = {
    "create": lambda w: ("/api/tasks", {"title": "t", "payload": {"b": 1, "a": 2}}),
    "children": lambda w: (f"/api/tasks/{w.task().id}/children", {"title": "t"}),
    "bulk": lambda w: ("/api/tasks/bulk", {"tasks": [{"ref": "a", "title": "t"}]}),
    "start": lambda w: (f"/api/tasks/{w.task(auto_enqueue_on_ready=False).id}/start", {}),
    "runs": lambda w: (f"/api/tasks/{w.task(auto_enqueue_on_ready=False).id}/runs", {}),
    "retry": lambda w: (f"/api/runs/{_failed(w)}/retry", {"reason": "again"}),
    "recover": lambda w: (f"/api/runs/{_stuck(w)}/recover", {"reason": "again"}),
}


def _failed(workspace: Workspace) -> str:
    workspace.task()
    held = workspace.agent().claim()
    held.fail(retryable=False)
    return held.run_id


def _stuck(workspace: Workspace) -> str:
    workspace.task(max_lease_expiries=1)
    held = workspace.agent().claim(lease_seconds=5)
    workspace.world.advance(6)
    workspace.world.sweep()
    return held.run_id


@pytest.mark.parametrize("name", CREATIONS)
def test_a_creation_under_one_key_is_made_once(workspace: Workspace, name: str) -> None:
    path, body = CREATIONS[name](workspace)
    first = workspace.operator.post(path, "k1", **body)
    with workspace.unchanged():
        again = workspace.operator.post(path, "k1", **dict(reversed(body.items())))
        assert workspace.operator.replayed
        assert workspace.operator.last.status_code == 201
        assert again == first
        with refused(422, "idempotency_key_reused"):
            workspace.operator.post("/api/tasks", "k1", title="something else")


def test_a_replay_shows_the_object_as_it_is_now(workspace: Workspace) -> None:
    operator = workspace.operator
    task = operator.post("/api/tasks", "k1", title="t").task
    operator.patch(f"/api/tasks/{task.id}", title="renamed")
    assert operator.post("/api/tasks", "k1", title="t").task.title == "renamed"
    operator.delete(f"/api/tasks/{task.id}")
    with refused(404, "task_not_found", id=task.id):
        operator.post("/api/tasks", "k1", title="t")


def test_keys_of_two_callers_are_two_keys(workspace: Workspace) -> None:
    one = workspace.operator.post("/api/tasks", "k1", title="t").task
    other = workspace.agent().post("/api/tasks", "k1", title="t").task
    assert one.id != other.id


def test_a_refused_call_leaves_its_key_free(workspace: Workspace) -> None:
    body = {"title": "t", "parent_task_id": "later"}
    with refused(404, "task_not_found", id="later"):
        workspace.operator.post("/api/tasks", "k1", **body)
    workspace.task(id="later")
    workspace.operator.post("/api/tasks", "k1", **body)
    assert not workspace.operator.replayed


def test_a_key_is_free_again_after_a_day(world: World, workspace: Workspace) -> None:
    one = workspace.operator.post("/api/tasks", "k1", title="t").task
    world.advance(24 * 3600 - 60)
    assert workspace.operator.post("/api/tasks", "k1", title="t").task.id == one.id
    world.advance(120)
    other = workspace.operator.post("/api/tasks", "k1", title="other").task
    assert (other.id != one.id, workspace.operator.replayed) == (True, False)


def test_the_second_use_does_not_wait_for_the_first(workspace: Workspace) -> None:
    with ThreadPoolExecutor(1) as pool:
        with workspace.locked("log"):
            first = pool.submit(workspace.operator.post, "/api/tasks", "k1", title="t")
            workspace.world.until_blocked()
            with refused(409, "idempotency_in_progress"):
                workspace.client("operator").post("/api/tasks", "k1", title="t")
        made = first.result()
        assert workspace.client("operator").post("/api/tasks", "k1", title="t") == made


SHOWN = """
select a.code, a.body from _repeated_claims(%(ws)s,
  array(select c from json_populate_recordset(null::claim_call, %(calls)s::json) c),
  array[row(0, %(run)s, %(task)s, null, null)::claimed_run], '', '', '', '') a
"""


def test_a_repeated_claim_never_shows_the_lease_of_another(
    world: World, workspace: Workspace
) -> None:
    """P12: not even if the run changed hands after the repeat was judged, before it is answered."""
    workspace.task()
    agent, other = workspace.agent(), workspace.agent()
    held = agent.claim("k1")
    calls = [{"n": 0, "session_id": agent.session, "key": "k1"}]
    asked = {
        "ws": workspace.id, "calls": msgspec.json.encode(calls).decode(), "run": held.run_id,
        "task": held.task_id,
    }  # fmt: skip
    [[code, body]] = world.db.execute(SHOWN, asked)
    assert (code, msgspec.json.decode(body)["run"]["id"]) == (None, held.run_id)
    held.release()
    assert other.claim().run_id == held.run_id
    assert list(world.db.execute(SHOWN, asked)) == [("claim_key_spent", None)]
