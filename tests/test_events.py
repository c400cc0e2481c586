"""The log: what each event tells, that none is missing, and how it is read (P8)."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.factories import Agent, Workspace, refused

TASK = {"task_status"}
RUN = TASK | {"status", "attempt", "fence"}
CANCELED = {"reason", "metadata", "propagated_from_task_id"}
EDGE = TASK | {"depends_on_task_id", "kind", "satisfied", "dependencies_waiting", "cause"}
BY_HAND = RUN | {
    "manual", "actor_kind", "actor_id", "source_run_id", "new_run_id", "reason", "metadata",
}  # fmt: skip
DECIDED = TASK | {"previous_approval_state", "approval_state", "reason", "expired"}
PAUSED = TASK | {
    "manual", "actor_kind", "actor_id", "previous_paused", "paused", "reason", "metadata",
}  # fmt: skip
# What each payload of the contract has, always, whether it applies or is null.
PAYLOADS: dict[str, set[str]] = {
    "task.created": TASK | {
        "id", "identifier", "scope", "parent_task_id", "network_channel", "title", "priority",
        "max_attempts", "auto_enqueue_on_ready", "owner", "metadata", "payload_bytes",
        "available_at", "retry", "on_dependency_failure", "max_lease_expiries",
        "deadline_seconds", "tags", "depends_on", "draft", "approval_policy",
        "approval_timeout_seconds", "on_approval_timeout", "review_policy", "review_max_rounds",
        "review_timeout_seconds", "concurrency_key", "concurrency_limit", "budget",
    },
    "task.published": TASK | {"previous_status"},
    "task.approval_requested": TASK | {
        "approval_requested_at", "approval_timeout_seconds", "on_approval_timeout",
    },
    "task.approval_overdue": TASK | {"approval_requested_at", "approval_timeout_seconds"},
    "task.approved": DECIDED,
    "task.rejected": DECIDED,
    "task.paused": PAUSED,
    "task.resumed": PAUSED,
    "task.updated": TASK | {"changed_fields", "changes", "version"},
    "task.canceled": TASK | CANCELED | {"canceled_run_ids"},
    "task.deleted": TASK | {"title", "identifier"},
    "task.child_created": TASK | {"child_task_id", "child_scope"},
    "task.dependency_added": EDGE,
    "task.dependency_removed": EDGE,
    "task.status_changed": TASK | {
        "previous_status", "cause", "cause_task_id", "dependencies_waiting",
    },
    "task.run_enqueued": RUN | {
        "cause", "previous_run_id", "available_at", "network_channel",
        "coordination_channel_id", "idempotency_key",
    },
    "task.run_claimed": RUN | {
        "claimed_by", "agent_name", "session_id", "claim_kind", "claim_token_hash",
        "lease_until", "deadline_at",
    },
    "task.run_started": RUN | {"session_id"},
    "task.run_progress": RUN | {"progress", "usage", "checkpoint_bytes", "checkpoint_sha256"},
    "task.run_completed": RUN | {"result", "usage", "claim_token_hash", "review_id"},
    "task.run_failed": RUN | {
        "error", "failure_kind", "retryable", "metadata", "usage", "claim_token_hash",
        "next_run_id", "next_available_at", "review_id",
    },
    "task.run_released": RUN | {
        "manual", "reason", "note", "previous_status", "session_id", "usage", "available_at",
    },
    "task.run_lease_expired": RUN | {
        "previous_status", "session_id", "lease_until", "lease_expiries", "available_at",
    },
    "task.run_needs_attention": RUN | {"previous_status", "diagnostic", "lease_expiries"},
    "task.run_canceled": RUN | CANCELED | {"previous_status", "session_id"},
    "task.run_operator_retry": BY_HAND,
    "task.run_recovered_from_attention": BY_HAND,
    "key.created": {"key_id", "name", "role"},
    "workspace.updated": {"changed_fields"},
}  # fmt: skip


def _live_through_everything(w: Workspace, agent: Agent) -> None:
    """One event of each type at least."""
    ids = w.graph({"a": [], "b": ["a"], "c": ["a"]}, retry={"strategy": "none"})
    w.operator.patch(f"/api/tasks/{ids['a']}", title="renamed", max_lease_expiries=1)
    w.operator.delete(f"/api/tasks/{ids['c']}/dependencies/{ids['a']}")
    w.depend(ids["c"], ids["b"])
    w.task(parent_task_id=ids["a"])
    held = agent.claim(channel=_channel(w, ids["a"]), lease_seconds=60)
    held.heartbeat(progress={"percent": 1}, checkpoint={"n": 1}, usage={"turns": 1})
    held.release(reason="r", note="n")
    again = agent.claim(channel=_channel(w, ids["a"]), lease_seconds=60)
    w.world.advance(61)
    w.sweep()
    new = w.operator.post(f"/api/runs/{again.run_id}/recover", reason="looked").run
    agent.claim(channel=new.coordination_channel_id).fail(retryable=False)
    newer = w.operator.post(f"/api/runs/{new.id}/retry", reason="fixed").run
    agent.claim(channel=newer.coordination_channel_id).complete(result={"n": 1})
    held = agent.claim(channel=_channel(w, ids["b"]))
    w.cancel(ids["b"])
    w.operator.delete(f"/api/tasks/{ids['b']}")
    w.world.admin.patch(f"/api/workspaces/{w.id}", display_name="Another")
    _pass_every_gate(w)


def _pass_every_gate(w: Workspace) -> None:
    for how in ("approve", "reject"):
        task = w.task(draft=True, approval_policy="manual", approval_timeout_seconds=60)
        for call in ("pause", "resume"):
            w.operator.post(f"/api/tasks/{task.id}/{call}", reason="r", metadata={"n": 1})
        w.operator.post(f"/api/tasks/{task.id}/publish", subtree=True)
        w.world.advance(61)
        w.world.expire_approvals()
        w.operator.post(f"/api/tasks/{task.id}/{how}")


def _channel(w: Workspace, task_id: str) -> str:
    runs = w.operator.get(f"/api/tasks/{task_id}/runs", limit=1).runs
    channel: str = runs[0].coordination_channel_id
    return channel


def test_each_event_tells_what_the_contract_says(workspace: Workspace, agent: Agent) -> None:
    _live_through_everything(workspace, agent)
    events = workspace.events()
    assert {e.event_type for e in events} == set(PAYLOADS)
    for event in events:
        assert set(event.payload) == PAYLOADS[event.event_type], event.event_type
        about_nothing = event.event_type.startswith(("key.", "workspace."))
        assert (event.task_id is None) == about_nothing
        assert (event.run_id is not None) == (event.event_type.startswith("task.run_"))


def test_an_event_names_who_did_what_through_what(workspace: Workspace, agent: Agent) -> None:
    task = workspace.task()
    held = agent.claim()
    held.complete()
    told = {e.event_type: (e.actor.kind, e.origin.kind, e.origin.ref) for e in workspace.events()}
    assert told["task.created"] == ("human", "http", "tasks.create")
    assert told["task.run_claimed"] == ("agent_session", "agent_session", "agent.task.next")
    assert told["task.run_completed"][2] == "agent.task.complete"
    [claimed] = workspace.events(actor_ref=agent.session, event_type="task.run_claimed")
    assert (claimed.task_id, claimed.actor.ref) == (task.id, agent.session)
    web = workspace.client("operator", X_Origin_Kind="web")
    web.post(f"/api/tasks/{task.id}/start")
    assert workspace.events()[-1].origin.kind == "web"


def test_no_secret_is_in_the_log(workspace: Workspace, agent: Agent) -> None:
    """P12: tokens and keys are in no event and in no other answer."""
    workspace.task()
    held = agent.claim()
    held.heartbeat(progress={"percent": 1})
    secrets = (held.token, agent.key, workspace.operator.key)
    for path in ("/api/events", f"/api/task-runs/{held.run_id}", f"/api/tasks/{held.task_id}",
                 f"/api/tasks/{held.task_id}/timeline"):  # fmt: skip
        workspace.operator.get(path)
        assert not any(secret in workspace.operator.last.text for secret in secrets)
    log = workspace.world.server.log.read_text()
    assert not any(secret in log for secret in secrets)


def test_the_log_is_in_commit_order_without_gaps(workspace: Workspace) -> None:
    """P8: who reads up to n has seen everything up to n, whatever commits meanwhile."""

    def work(number: int) -> None:
        agent = workspace.agent(f"agent-{number}")
        for _ in range(10):
            agent.post("/api/tasks", title="t", auto_enqueue_on_ready=True)
            agent.claim().complete()

    seen: list[int] = []
    with ThreadPoolExecutor(6) as pool:
        workers = [pool.submit(work, number) for number in range(6)]
        while not all(w.done() for w in workers):
            after = seen[-1] if seen else 0
            seen += [e.sequence for e in workspace.events(after_sequence=after)]
        for worker in workers:
            worker.result()
    seen += [e.sequence for e in workspace.events(after_sequence=seen[-1])]
    assert seen == list(range(1, len(seen) + 1))
    assert len(seen) >= 6 * 10 * 4


def test_the_log_is_read_in_pages_and_by_filters(workspace: Workspace, agent: Agent) -> None:
    task, other = workspace.task(), workspace.task()
    held = agent.work(task.id)
    everything = workspace.events()
    page = workspace.operator.get("/api/events", limit=3)
    sequences, newest = [e.sequence for e in page.events], page.latest_sequence
    while page.next_cursor:
        page = workspace.operator.get("/api/events", limit=3, cursor=page.next_cursor)
        sequences += [e.sequence for e in page.events]
    assert sequences == [e.sequence for e in everything] == list(range(1, newest + 1))
    assert workspace.events(order="desc") == everything[::-1]
    assert {e.task_id for e in workspace.events(task_id=other.id)} == {other.id}
    assert workspace.told(run_id=held.run_id)[-1] == "task.run_completed"
    assert {e.event_type for e in workspace.events(event_type="task.created,key.created")} == {
        "task.created", "key.created",
    }  # fmt: skip
    middle = everything[3].timestamp
    assert workspace.events(until=middle) + workspace.events(since=middle) == everything
    assert {e.actor.kind for e in workspace.events(actor_kind="agent_session")} == {"agent_session"}


def test_a_timeline_is_a_tasks_own(workspace: Workspace, agent: Agent) -> None:
    task = workspace.task()
    workspace.task(parent_task_id=task.id)
    agent.work(task.id, result="x" * 9000)
    path = f"/api/tasks/{task.id}/timeline"
    items = workspace.operator.get(path).timeline
    assert [i.event_type for i in items] == workspace.told(task_id=task.id)
    assert {i.task.status for i in items} == {"completed"}
    assert (items[-1].payload, items[-1].payload_bytes > 9000) == (None, True)
    first = workspace.operator.get(path, limit=2)
    rest = workspace.operator.get(path, cursor=first.next_cursor, limit=2)
    later = workspace.operator.get(path, after_sequence=rest.timeline[-1].sequence)
    assert [*first.timeline, *rest.timeline, *later.timeline] == items
    with refused(404, "task_not_found", id="nobody"):
        workspace.operator.get("/api/tasks/nobody/timeline")


@pytest.mark.parametrize("query", [{"order": "up"}, {"since": "today"}, {"after_sequence": -1}])
def test_an_unfit_filter_is_refused(workspace: Workspace, query: dict[str, Any]) -> None:
    with refused(400, "invalid_query", parameter=next(iter(query))):
        workspace.operator.get("/api/events", **query)
