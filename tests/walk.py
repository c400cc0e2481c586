"""A walk over the endpoints: one story of a few tasks, told through HTTP on a real server."""

import re
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from tests.client import Client
from tests.factories import Workspace


class Answer(NamedTuple):
    """What came back from an endpoint."""

    endpoint: str
    status: int
    body: bytes


class Walk:
    """The callers of the story, and all answers that they got."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.answers: list[Answer] = []
        self.operator = workspace.operator
        self.agent: Client = workspace.agent(session="walker")

    def ask(self, by: Client, endpoint: str, /, *ids: str, **told: Any) -> Any:
        """Calls an endpoint, with ids for the parts of its path that it leaves open."""
        method, template = endpoint.split()
        left = iter(ids)
        path = re.sub(r"{\w+}", lambda _: next(left), template)
        answer = getattr(by, method.lower())(path, **told)
        self.answers.append(Answer(endpoint, by.last.status_code, by.last.content))
        return answer

    def task(self, title: str, **fields: Any) -> Any:
        """A task whose fields are all filled, and that the agent may claim."""
        filled = {
            "scope": "workspace", "identifier": f"OPS-{len(self.answers)}",
            "owner": {"kind": "pool", "ref": "worker"}, "metadata": {"why": "a walk"},
            "network_channel": "ops", "description": "long", "payload": {"n": 1},
            "auto_enqueue_on_ready": True,
        }  # fmt: skip
        return self.ask(self.operator, "POST /api/tasks", title=title, **{**filled, **fields}).task

    def claim(self, task: Any) -> Any:
        """The agent's claim of the task's run."""
        run = self.operator.get(f"/api/tasks/{task.id}/runs").runs[0]
        wish = {"channel": f"coord-{run.id}", "lease_seconds": 5}
        return self.ask(self.agent, "POST /api/agent/tasks/claim-next", **wish).claim

    def hold(self, claim: Any, verb: str, **body: Any) -> Any:
        """A call of the holder."""
        path = f"POST /api/agent/tasks/{{run_id}}/{verb}"
        token = claim.lease.claim_token
        return self.ask(self.agent, path, claim.run.id, claim_token=token, **body)

    def broken(self, task: Any) -> Any:
        """A run of the task that its agent has failed."""
        claim = self.claim(task)
        self.hold(claim, "fail", error="it broke", retryable=False, failure_kind="bad_input")
        return claim.run


def walk(workspace: Workspace) -> list[Answer]:
    """Every chapter; the answers in their order."""
    story = Walk(workspace)
    for chapter in (
        _gates, _plan, _work, _by_hand, _force, _bulk, _subscribe, _look, _review, _schedule,
        _watch,
    ):  # fmt: skip
        chapter(story)
    return story.answers


def _gates(story: Walk) -> None:
    ask, operator = story.ask, story.operator
    draft = story.task("draft", draft=True)
    ask(operator, "POST /api/tasks/{id}/publish", draft.id, metadata={"workflow_id": "wf"})
    ask(operator, "POST /api/tasks/{id}/pause", draft.id, reason="look first")
    story.task("below", parent_task_id=draft.id)
    for view in ("tree", "timeline"):
        ask(operator, f"GET /api/tasks/{{id}}/{view}", draft.id)
    ask(operator, "GET /api/tasks")
    ask(operator, "POST /api/tasks/{id}/resume", draft.id)
    story.claim(draft)
    asked = story.task("asks", approval_policy="manual")
    ask(operator, "POST /api/tasks/{id}/approve", asked.id, idempotency_key="approve-1")
    refused = story.task("asks again", approval_policy="manual")
    ask(operator, "POST /api/tasks/{id}/reject", refused.id, reason="no")
    ask(operator, "POST /api/tasks/{id}/cancel", refused.id, reason="no longer")


def _plan(story: Walk) -> None:
    ask, operator = story.ask, story.operator
    first = story.task("first", auto_enqueue_on_ready=False)
    ask(operator, "POST /api/tasks/{id}/start", first.id, idempotency_key="start-1")
    second = ask(
        operator, "POST /api/tasks/{id}/children", first.id, title="second", scope="workspace",
        owner={"kind": "pool", "ref": "worker"},
    ).task  # fmt: skip
    ask(operator, "PATCH /api/tasks/{id}", second.id, priority="high")
    ask(operator, "POST /api/tasks/{id}/dependencies", second.id, depends_on_task_id=first.id)
    ask(operator, "POST /api/tasks/{id}/runs", second.id, idempotency_key="runs-1")
    for task in (first, second):
        ask(operator, "GET /api/tasks/{id}", task.id)
    edge = "DELETE /api/tasks/{id}/dependencies/{depends_on_id}"
    ask(operator, edge, second.id, first.id)
    profile = "/api/tasks/{id}/execution-profile"
    ask(operator, f"GET {profile}", second.id)
    ask(operator, f"PUT {profile}", second.id, task_id=second.id, **PROFILE)
    ask(operator, f"DELETE {profile}", second.id)
    gone = story.task("gone", auto_enqueue_on_ready=False)
    ask(operator, "DELETE /api/tasks/{id}", gone.id)


_ALL = {
    f"{kind}_{what}": [what]
    for kind in ("allowed", "preferred")
    for what in ("agent_names", "channel_ids", "peer_ids")
} | {"required_capabilities": ["python"], "preferred_capabilities": ["gpu"]}
_WHO = {"agent_name": "agent_names", "provider": "acme", "model": "large"}
PROFILE = {
    "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z",
    "coordinator": {**_WHO, "mode": "guided", "guidance": "slowly"},
    "worker": {
        **_WHO, "mode": "select", "allowed_agent_names": ["agent_names"],
        "preferred_agent_names": ["ann"], "required_capabilities": ["python"],
        "preferred_capabilities": ["gpu"],
    },
    "review": {**_WHO, **_ALL},
    "participants": _ALL,
    "sandbox": {"mode": "ref", "sandbox_ref": "box"},
    "runtime": {"mode": "evidence"},
}  # fmt: skip


def _work(story: Walk) -> None:
    usage = {"input_tokens": 1, "output_tokens": 2, "total_cost": 0.5, "cost_currency": "EUR"}
    task = story.task("done", execution_profile={"worker": {"provider": "acme"}})
    claim = story.claim(task)
    story.hold(claim, "release", note="later")
    again = story.claim(task)
    story.hold(again, "heartbeat", usage=usage, progress={"percent": 50})
    for target in ("tasks", "runs"):
        of = task.id if target == "tasks" else again.run.id
        story.ask(story.operator, f"GET /api/{target}/{{id}}/inspect", of)
    story.hold(again, "complete", result={"text": "done"})
    story.ask(story.operator, "GET /api/task-runs/{id}", again.run.id)
    story.broken(story.task("broken"))
    story.ask(story.operator, "GET /api/tasks")


def _by_hand(story: Walk) -> None:
    for end in ("complete", "fail", "cancel"):
        run = _queued(story, story.task(f"by hand, {end}"))
        _hand(story, "claim", run, idempotency_key=f"claim-{end}")
        if end == "complete":
            _hand(story, "attach-session", run, session_id="at-hand", agent_name="worker")
        _hand(story, "start", run)
        _hand(story, end, run, **({"error": "no"} if end == "fail" else {}))


def _force(story: Walk) -> None:
    claim = story.claim(story.task("taken"))
    _forced(story, "release", claim.run.id, reason="too long")
    _forced(story, "fail", claim.run.id, reason="too long")
    broken = story.broken(story.task("retried"))
    again = _forced(story, "retry", broken.id).run
    for run in (broken, again):
        story.ask(story.operator, "GET /api/runs/{id}/inspect", run.id)
    lapsed = story.claim(story.task("lapsed", max_lease_expiries=1))
    story.workspace.world.advance(400)
    story.ask(story.operator, "GET /api/runs/{id}/inspect", lapsed.run.id)
    story.workspace.sweep()
    story.ask(story.operator, "GET /api/runs/{id}/inspect", lapsed.run.id)
    _forced(story, "recover", lapsed.run.id, reason="looked at it")


def _bulk(story: Walk) -> None:
    runs = [story.claim(story.task("many")).run.id, _queued(story, story.task("many"))]
    story.ask(story.operator, "POST /api/runs/bulk/release", run_ids=runs)
    story.ask(story.operator, "POST /api/runs/bulk/fail", run_ids=runs, reason="all of them")


def _subscribe(story: Walk) -> None:
    operator, task = story.operator, story.task("told")
    url = "https://receiver.invalid/"
    bridge = operator.post("/api/bridges", name="walk", url=url, enabled=False).bridge
    path = "/api/tasks/{id}/notifications/bridges"
    ids = {name: name for name in ("peer_id", "thread_id", "group_id")}
    one = story.ask(
        operator, f"POST {path}", task.id, bridge_instance_id=bridge.id,
        delivery_mode="direct-send", scope="workspace", subscription_id="mine", **ids,
    ).subscription  # fmt: skip
    story.ask(operator, f"GET {path}", task.id)
    for verb in ("GET", "DELETE"):
        story.ask(operator, f"{verb} {path}/{{subscription_id}}", task.id, one.subscription_id)


def _look(story: Walk) -> None:
    retried = next(t for t in story.operator.get("/api/tasks").tasks if t.title == "retried")
    story.hold(story.claim(retried), "fail", error="it broke again", retryable=False)
    story.ask(story.operator, "GET /api/tasks/{id}/timeline", retried.id)
    root = story.task("root")
    leaf = story.task("leaf", parent_task_id=root.id)
    story.claim(leaf)
    story.ask(story.operator, "PATCH /api/tasks/{id}", leaf.id, tags=["late"])
    for view in ("tree", "runs", "timeline"):
        story.ask(story.operator, f"GET /api/tasks/{{id}}/{view}", root.id)
    lines = _first_frame(story.operator, f"/api/tasks/{root.id}/stream")
    story.answers.append(Answer("GET /api/tasks/{id}/stream", 200, lines.encode()))


def _review(story: Walk) -> None:
    ask, operator = story.ask, story.operator
    task = story.task("judged", review_policy="on_success")
    first = story.claim(task)
    story.hold(first, "complete", result="half of it")
    judge = story.workspace.agent("judge", session="judge")
    wish = {"channel": "reviews", "peer_id": "peer", "lease_seconds": 60}
    held = judge.post("/api/agent/reviews/claim-next", **wish).claim
    token, of = held.lease.claim_token, held.review.review_id
    judge.post(f"/api/agent/reviews/{of}/heartbeat", claim_token=token)
    verdict = {
        "outcome": "rejected", "confidence": 0.5, "reason": "half is missing", "delivery_id": "d-1",
        "missing_work": ["half"], "next_round_guidance": "go on", "review_text": "long",
    }  # fmt: skip
    judged = "POST /api/task-reviews/{id}/verdict"
    ask(judge, judged, of, run_id=first.run.id, claim_token=token, verdict=verdict)
    second = story.claim(task)
    story.hold(second, "complete", result="all of it")
    for noun in ("tasks", "task-runs"):
        of = task.id if noun == "tasks" else second.run.id
        review = ask(operator, f"GET /api/{noun}/{{id}}/reviews", of).reviews[0]
    ask(operator, "GET /api/task-reviews/{id}", review.review_id)
    verdict = {"outcome": "approved", "confidence": 1, "reason": "all there", "delivery_id": "d-2"}
    ask(operator, judged, review.review_id, run_id=second.run.id, verdict=verdict)
    by_hand = "POST /api/task-runs/{id}/reviews"
    ask(
        operator, by_hand, first.run.id, reason="again", policy="always", review_round=7,
        run_id=first.run.id, task_id=task.id, deadline_at=_tomorrow(operator),
    )  # fmt: skip


def _schedule(story: Walk) -> None:
    ask, operator = story.ask, story.operator
    story.task("in the queue")
    ask(operator, "POST /api/scheduler/pause", reason="maintenance")
    paused = story.task("while paused")
    ask(operator, "GET /api/tasks/{id}/inspect", paused.id)
    ask(operator, "GET /api/scheduler")
    ask(operator, "GET /api/scheduler/backlog")
    ask(operator, "POST /api/scheduler/drain", timeout_seconds=0)
    for lease in operator.get("/api/task-runs", status="claimed,starting,running").runs:
        operator.post(f"/api/runs/{lease.id}/release")
    ask(operator, "POST /api/scheduler/drain", timeout_seconds=0)
    ask(operator, "POST /api/scheduler/resume", reason="done")


def _watch(story: Walk) -> None:
    ask, operator = story.ask, story.operator
    waits = story.task("needs a person", approval_policy="manual")
    failed = story.task("failed")
    story.broken(failed)
    ask(operator, "POST /api/tasks/{id}/triage/read", failed.id)
    story.claim(story.task("at work"))
    ask(operator, "GET /api/observe/tasks/inbox")
    ask(operator, "GET /api/observe/tasks/dashboard")
    ask(operator, "POST /api/tasks/{id}/triage/dismiss", waits.id)
    ask(operator, "POST /api/tasks/{id}/triage/archive", failed.id)


def _tomorrow(by: Client) -> str:
    now = datetime.fromisoformat(by.get("/api/whoami").whoami.server_time)
    return (now + timedelta(days=1)).isoformat()


def _first_frame(by: Client, path: str) -> str:
    with by.http.stream("GET", path, headers=by.sent()) as stream:
        return next(
            line.removeprefix("data: ") for line in stream.iter_lines() if line.startswith("data")
        )


def _queued(story: Walk, task: Any) -> str:
    run_id: str = story.operator.get(f"/api/tasks/{task.id}/runs").runs[0].id
    return run_id


def _hand(story: Walk, verb: str, run_id: str, **body: Any) -> Any:
    return story.ask(story.operator, f"POST /api/task-runs/{{id}}/{verb}", run_id, **body)


def _forced(story: Walk, verb: str, run_id: str, **body: Any) -> Any:
    return story.ask(story.operator, f"POST /api/runs/{{id}}/{verb}", run_id, **body)
