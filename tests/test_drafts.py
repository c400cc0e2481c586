"""Drafts: tasks that nobody works on before they are published."""

import pytest

from tests.client import Client
from tests.factories import Agent, Workspace, refused


def _publish(caller: Client, task_id: str, key: str | None = None, **body: object) -> object:
    return caller.post(f"/api/tasks/{task_id}/publish", key, **body)


def test_a_draft_is_not_queued(workspace: Workspace, agent: Agent) -> None:
    """P6: whatever auto_enqueue_on_ready says, and whatever it waited for."""
    first = workspace.task()
    draft = workspace.task(draft=True, depends_on=[first.id])
    assert (draft.status, draft.draft, draft.closed_at) == ("draft", True, None)
    agent.work(first.id)
    assert (workspace.get(draft.id).status, workspace.get(draft.id).dependencies_waiting) == (
        "draft", 0,
    )  # fmt: skip
    assert agent.claims() == []
    assert workspace.told(task_id=draft.id) == ["task.created"]


def test_drafts_are_made_in_bulk_too(workspace: Workspace, agent: Agent) -> None:
    ids = workspace.graph({"a": [], "b": ["a"]}, draft=True)
    assert workspace.statuses(ids) == {"a": "draft", "b": "draft"}
    assert agent.claims() == []


def test_a_published_draft_is_ready_and_queued(workspace: Workspace, agent: Agent) -> None:
    """Whatever auto_enqueue_on_ready says; with the channel and metadata of the call."""
    draft = workspace.task(draft=True, auto_enqueue_on_ready=False)
    workspace.operator.post(
        f"/api/tasks/{draft.id}/publish", network_channel="blue", metadata={"why": 1}
    )
    told = workspace.operator.last.json()
    assert (told["task"]["status"], told["task"]["draft"], told["task"]["version"]) == (
        "ready", False, 2,
    )  # fmt: skip
    assert (told["run"]["network_channel"], told["run"]["metadata"]) == ("blue", {"why": 1})
    assert agent.claim().run_id == told["run"]["id"]
    [published, queued] = workspace.events(task_id=draft.id)[1:3]
    assert published.payload == {"previous_status": "draft", "task_status": "ready"}
    assert (queued.event_type, queued.payload["cause"]) == ("task.run_enqueued", "publish")


def test_what_is_no_draft_is_not_published(workspace: Workspace) -> None:
    task, gone = workspace.task(), workspace.task(draft=True)
    workspace.cancel(gone.id)
    with workspace.unchanged():
        with refused(409, "task_not_draft", status="ready"):
            _publish(workspace.operator, task.id)
        with refused(409, "task_not_draft", status="ready"):
            _publish(workspace.operator, task.id, subtree=True)
        with refused(409, "task_canceled"):
            _publish(workspace.operator, gone.id)


def test_a_blocked_draft_stays_one(workspace: Workspace, agent: Agent) -> None:
    first = workspace.task()
    draft = workspace.task(draft=True, depends_on=[first.id])
    with (
        workspace.unchanged(),
        refused(409, "task_blocked", reasons=["awaiting_dependencies"]),
    ):
        _publish(workspace.operator, draft.id)
    agent.work(first.id)
    _publish(workspace.operator, draft.id)
    assert agent.claim().task_id == draft.id


def test_a_subtree_is_published_blocked_drafts_too(workspace: Workspace, agent: Agent) -> None:
    """The task and every draft below it, also below what is none; their runs wait."""
    root = workspace.task(draft=True)
    between = workspace.task(parent_task_id=root.id, auto_enqueue_on_ready=False)
    kid = workspace.task(parent_task_id=between.id, draft=True, auto_enqueue_on_ready=False)
    late = workspace.task(parent_task_id=root.id, draft=True, depends_on=[kid.id])
    gone = workspace.task(parent_task_id=root.id, draft=True)
    other = workspace.task(draft=True)
    workspace.cancel(gone.id)
    _publish(workspace.operator, root.id, subtree=True, metadata={"of": "root"})
    ids = {"root": root, "between": between, "kid": kid, "late": late, "gone": gone, "x": other}
    assert workspace.statuses({name: task.id for name, task in ids.items()}) == {
        "root": "ready", "between": "ready", "kid": "ready", "late": "blocked",
        "gone": "canceled", "x": "draft",
    }  # fmt: skip
    assert sorted(e.task_id for e in workspace.events(event_type="task.published")) == sorted(
        [root.id, kid.id, late.id]
    )
    held = {h.task_id: h for h in agent.claims(max_runs=9)}
    assert set(held) == {root.id, kid.id}
    assert (held[root.id].claim.run.metadata, held[kid.id].claim.run.metadata) == (
        {"of": "root"}, None,
    )  # fmt: skip
    held[kid.id].complete()
    assert agent.claim().task_id == late.id


def test_a_repeated_publication_answers_the_same_run(workspace: Workspace) -> None:
    """P5."""
    draft = workspace.task(draft=True)
    _publish(workspace.operator, draft.id, "k")
    first = workspace.operator.last.json()["run"]["id"]
    with workspace.unchanged():
        _publish(workspace.operator, draft.id, "k")
        assert workspace.operator.last.json()["run"]["id"] == first
    assert workspace.operator.replayed


@pytest.mark.parametrize("how", ["start", "runs"])
def test_no_run_of_a_draft_is_queued_by_hand(workspace: Workspace, how: str) -> None:
    draft = workspace.task(draft=True)
    with workspace.unchanged(), refused(409, "task_draft", status="draft"):
        workspace.operator.post(f"/api/tasks/{draft.id}/{how}")


def test_an_agent_publishes_its_own_drafts_only(workspace: Workspace, agent: Agent) -> None:
    own = agent.post("/api/tasks", title="mine", draft=True).task
    foreign = workspace.task(draft=True)
    with workspace.unchanged(), refused(403, "forbidden", role="agent", action="tasks.publish"):
        _publish(agent, foreign.id)
    _publish(agent, own.id)
    assert agent.claim().task_id == own.id


def test_drafts_are_hidden_in_lists_unless_asked_for(workspace: Workspace) -> None:
    draft, task = workspace.task(draft=True), workspace.task()

    def listed(**query: object) -> list[str]:
        return [t.id for t in workspace.operator.get("/api/tasks", **query).tasks]

    for sort in ("activity", "created"):
        assert listed(sort=sort) == [task.id]
        assert listed(sort=sort, status="draft,ready") == [task.id, draft.id]
        assert listed(sort=sort, include_drafts=True) == [task.id, draft.id]


def test_a_draft_can_be_canceled_and_deleted(workspace: Workspace) -> None:
    gone = workspace.task(draft=True)
    canceled = workspace.cancel(gone.id)
    assert (canceled.status, canceled.draft) == ("canceled", False)
    workspace.operator.delete(f"/api/tasks/{gone.id}")
    workspace.operator.delete(f"/api/tasks/{workspace.task(draft=True).id}")


def test_only_publishing_ends_a_draft(workspace: Workspace) -> None:
    draft = workspace.task(draft=True)
    with workspace.unchanged(), refused(422, "immutable_field", field="draft"):
        workspace.operator.patch(f"/api/tasks/{draft.id}", draft=False)
