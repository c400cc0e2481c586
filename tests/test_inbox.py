"""The inbox: what needs its actor, by lane, unread first."""

from typing import Any

import pytest

from tests.client import Client
from tests.factories import Agent, Workspace, refused

LANES = ["my_work", "approvals", "failed_runs", "blocked", "archived"]


def inbox(workspace: Workspace, by: Client | None = None, **query: Any) -> Any:
    """The inbox, from the log alone and then from the digests: it must be the same."""
    caller = by or workspace.operator
    told = caller.get("/api/observe/tasks/inbox", **query).inbox
    workspace.world.keep_digests()
    again = caller.get("/api/observe/tasks/inbox", **query).inbox
    assert told == again
    return again


def lanes(told: Any) -> dict[str, list[tuple[str, str | None]]]:
    """The tasks of each lane that has some, with why they are blocked."""
    groups = {g.lane: [(i.task.id, i.blocking_reason) for i in g.items] for g in told.groups}
    return {lane: items for lane, items in groups.items() if items}


def triage(workspace: Workspace, task_id: str, action: str) -> Any:
    """What the operator did to a task."""
    return workspace.operator.post(f"/api/tasks/{task_id}/triage/{action}").triage


def failed(workspace: Workspace, agent: Agent, **fields: Any) -> str:
    """A task that failed."""
    task = workspace.task("a failure", max_attempts=1, **fields)
    agent.work(task.id, "fail")
    return task.id


def test_the_lanes_are_always_there_in_their_order(workspace: Workspace) -> None:
    told = inbox(workspace)
    assert [group.lane for group in told.groups] == LANES
    assert (told.total, told.unread_total, told.archived_total) == (0, 0, 0)


def test_what_needs_a_person_has_the_lane_of_its_reason(workspace: Workspace, agent: Agent) -> None:
    asked = workspace.task(approval_policy="manual")
    rejected = workspace.task(approval_policy="manual")
    workspace.operator.post(f"/api/tasks/{rejected.id}/reject")
    broken = failed(workspace, agent)
    hopeless = workspace.task(depends_on=[broken])
    patient = workspace.task(depends_on=[workspace.task(draft=True).id])
    told = lanes(inbox(workspace))
    assert told["approvals"] == [(asked.id, "awaiting_approval")]
    assert told["failed_runs"] == [(broken, "latest_run_failed")]
    assert set(told["blocked"]) == {
        (rejected.id, "approval_rejected"), (hopeless.id, "dependency_failed"),
    }  # fmt: skip
    assert patient.id not in {task_id for items in told.values() for task_id, _ in items}


def test_a_quarantined_run_is_blocked_work(workspace: Workspace, agent: Agent) -> None:
    task = workspace.task(max_lease_expiries=1)
    agent.claim(lease_seconds=5)
    workspace.world.advance(6)
    workspace.sweep()
    assert lanes(inbox(workspace)) == {"blocked": [(task.id, "needs_attention")]}


def test_a_failed_dependency_is_no_matter_under_run(workspace: Workspace, agent: Agent) -> None:
    workspace.task(depends_on=[failed(workspace, agent)], on_dependency_failure="run")
    assert set(lanes(inbox(workspace))) == {"failed_runs"}


def test_a_dependent_is_blocked_once_what_it_waits_for_failed(
    workspace: Workspace, agent: Agent
) -> None:
    """The dependent itself has no event of that."""
    first = workspace.task(max_attempts=1)
    second = workspace.task(depends_on=[first.id])
    inbox(workspace)
    agent.work(first.id, "fail")
    assert lanes(inbox(workspace))["blocked"] == [(second.id, "dependency_failed")]
    run = agent.get(f"/api/tasks/{first.id}/runs").runs[0]
    workspace.operator.post(f"/api/runs/{run.id}/retry")
    assert lanes(inbox(workspace)) == {}


def test_my_work_is_what_i_own_or_hold(workspace: Workspace, agent: Agent) -> None:
    me = workspace.operator.get("/api/whoami").whoami.actor
    mine = workspace.task(owner={"kind": me.kind, "ref": me.ref})
    workspace.task(owner={"kind": "pool", "ref": "others"})
    held = workspace.task()
    agent.claim(channel=f"coord-{workspace.operator.get(f'/api/tasks/{held.id}/runs').runs[0].id}")
    assert lanes(inbox(workspace)) == {"my_work": [(mine.id, None)]}
    assert lanes(inbox(workspace, agent)) == {"my_work": [(held.id, None)]}
    workspace.cancel(mine.id)
    assert lanes(inbox(workspace)) == {}


def test_unread_comes_first_then_the_latest_activity(workspace: Workspace, agent: Agent) -> None:
    tasks = [failed(workspace, agent) for _ in range(4)]
    triage(workspace, tasks[3], "read")
    triage(workspace, tasks[1], "read")
    told = inbox(workspace, lane="failed_runs")
    [group] = told.groups
    assert [item.task.id for item in group.items] == [tasks[2], tasks[0], tasks[3], tasks[1]]
    assert (group.count, group.unread_count, told.total, told.unread_total) == (4, 2, 4, 2)
    assert [item.triage.read for item in group.items] == [False, False, True, True]


def test_a_lane_is_paged_and_counted_before_the_limit(workspace: Workspace, agent: Agent) -> None:
    tasks = [failed(workspace, agent) for _ in range(5)]
    triage(workspace, tasks[4], "read")
    seen, cursor = [], None
    for _ in range(3):
        [group] = inbox(workspace, lane="failed_runs", limit=2, cursor=cursor).groups
        seen += [item.task.id for item in group.items]
        cursor = group.next_cursor
        assert (group.count, group.unread_count) == (5, 4)
    assert seen == [*reversed(tasks[:4]), tasks[4]]
    assert cursor is None
    [whole] = inbox(workspace, lane="failed_runs", limit=5).groups
    assert (len(whole.items), whole.next_cursor) == (5, None)


def test_a_cursor_is_of_one_lane(workspace: Workspace, agent: Agent) -> None:
    failed(workspace, agent)
    failed(workspace, agent)
    [group] = inbox(workspace, lane="failed_runs", limit=1).groups
    with refused(400, "invalid_query", parameter="cursor"):
        workspace.operator.get("/api/observe/tasks/inbox", cursor=group.next_cursor)
    for name in ("my_work", "approvals", "blocked"):
        with refused(400, "invalid_cursor"):
            workspace.operator.get(
                "/api/observe/tasks/inbox", lane=name, limit=1, cursor=group.next_cursor
            )
    assert all(g.next_cursor is None for g in inbox(workspace, limit=1).groups)


@pytest.mark.parametrize(("unread", "shown"), [(True, 1), (False, 0)])
def test_read_and_unread_can_be_asked_for(
    workspace: Workspace, agent: Agent, unread: bool, shown: int
) -> None:
    tasks = [failed(workspace, agent) for _ in range(3)]
    triage(workspace, tasks[0], "read")
    triage(workspace, tasks[2], "archive")
    told = inbox(workspace, unread=str(unread).lower())
    counts = {group.lane: (group.count, group.unread_count) for group in told.groups}
    assert counts["failed_runs"] == (1, shown)
    assert counts["archived"] == (0 if unread else 1, 0)
    assert told.archived_total == 1
    assert lanes(told)["failed_runs"] == [(tasks[1 if unread else 0], "latest_run_failed")]


def test_an_inbox_is_narrowed_by_scope_owner_and_words(workspace: Workspace, agent: Agent) -> None:
    owner = {"kind": "human", "ref": "ann"}
    fields = {"approval_policy": "manual"}
    globe = workspace.task("The globe", scope="global", **fields)
    owned = workspace.task("Hers", owner=owner, identifier="OPS-1_2", **fields)
    asked: list[tuple[dict[str, Any], list[str]]] = [
        ({"scope": "global"}, [globe.id]), ({"owner_ref": "ann"}, [owned.id]),
        ({"owner_kind": "human"}, [owned.id]), ({"query": "GLOB"}, [globe.id]),
        ({"query": "ops-1_"}, [owned.id]), ({"query": "%"}, []),
        ({"query": "he", "scope": "workspace"}, [owned.id]),
    ]  # fmt: skip
    for query, wanted in asked:
        told = inbox(workspace, lane="approvals", **query)
        assert [item.task.id for item in told.groups[0].items] == wanted, query
        assert told.total == told.unread_total == len(wanted)


def test_an_item_shows_task_newest_run_and_triage(workspace: Workspace, agent: Agent) -> None:
    task_id = failed(workspace, agent)
    [group] = inbox(workspace, lane="failed_runs").groups
    [item] = group.items
    summary = workspace.operator.get(f"/api/tasks/{task_id}").task.summary
    assert item.task.latest_event_seq == summary.latest_event_seq
    assert (item.run.status, item.run.error, item.run.task_id) == ("failed", "no", task_id)
    assert (item.approval_policy, item.approval_state) == ("none", "not_required")
    assert item.latest_activity_at == workspace.events(task_id=task_id)[-1].timestamp
    assert item.triage.updated_at is item.triage.last_seen_activity_at is None


def test_no_inbox_shows_another_workspace(workspace: Workspace, agent: Agent) -> None:
    """P12."""
    failed(workspace, agent)
    other = workspace.world.workspace()
    assert lanes(inbox(other)) == {}
