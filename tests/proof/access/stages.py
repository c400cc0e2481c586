"""What must be there for a call to be good: a stage has the ids of its things, and its agent."""

from collections.abc import Callable
from secrets import token_hex
from typing import Any, Final

from tests.factories import Agent, Workspace
from tests.judging import claim, reviewed

Ids = dict[str, str]


class Stage:
    """Things of a workspace by kind; `agent` made or holds them."""

    def __init__(self, workspace: Workspace, agent: Agent, ids: Ids) -> None:
        self.workspace, self.agent = workspace, agent
        self.ids = {
            "workspace": workspace.id, "session": agent.session, "nonce": f"n-{token_hex(8)}",
            "token": "", **ids,
        }  # fmt: skip


def staged(name: str, workspace: Workspace) -> Stage:
    """A new stage of this kind."""
    agent = workspace.agent("judge" if name in JUDGES else "worker")
    return Stage(workspace, agent, STAGES[name](workspace, agent))


def reclaimed(stage: Stage) -> None:
    """Takes the lease of a stage away, and has another session claim it: its token is stale."""
    workspace = stage.workspace
    if "review" in stage.ids:
        path = f"/api/agent/reviews/{stage.ids['review']}/release"
        stage.agent.post(path, claim_token=stage.ids["token"])
        claim(workspace.agent("another-judge"))
    else:
        workspace.operator.post(f"/api/runs/{stage.ids['run']}/release")
        workspace.agent("another").claim(channel=f"coord-{stage.ids['run']}")


def _task(by: Any, **fields: Any) -> str:
    task_id: str = by.post("/api/tasks", title="t", **fields).task.id
    return task_id


def _idle(w: Workspace, agent: Agent) -> Ids:
    return {"task": _task(agent)}


def _asked(w: Workspace, agent: Agent) -> Ids:
    return {"task": _task(agent, approval_policy="manual")}


def _paused(w: Workspace, agent: Agent) -> Ids:
    task = _task(agent)
    w.operator.post(f"/api/tasks/{task}/pause", reason="look first")
    return {"task": task}


def _pair(w: Workspace, agent: Agent) -> Ids:
    return {"task": _task(agent), "other": _task(agent)}


def _edge(w: Workspace, agent: Agent) -> Ids:
    other = _task(agent)
    return {"task": _task(agent, depends_on=[other]), "other": other}


def _profiled(w: Workspace, agent: Agent) -> Ids:
    return {"task": _task(agent, execution_profile={"worker": {"provider": "acme"}})}


def _queued(w: Workspace, agent: Agent, **fields: Any) -> Ids:
    task = _task(agent, auto_enqueue_on_ready=True, **fields)
    return {"task": task, "run": agent.get(f"/api/tasks/{task}/runs").runs[0].id}


def _held(w: Workspace, agent: Agent, **fields: Any) -> Ids:
    ids = _queued(w, agent, **fields)
    held = agent.claim(channel=f"coord-{ids['run']}", lease_seconds=5 if fields else 0)
    return ids | {"token": held.token}


def _by_hand(w: Workspace, agent: Agent) -> Ids:
    ids = _queued(w, agent)
    told = w.operator.post(f"/api/task-runs/{ids['run']}/claim")
    return ids | {"token": told.lease.claim_token}


def _ended(w: Workspace, agent: Agent) -> Ids:
    ids = _held(w, agent)
    agent.post(f"/api/agent/tasks/{ids['run']}/complete", claim_token=ids["token"], result=1)
    return ids


def _failed(w: Workspace, agent: Agent) -> Ids:
    ids = _held(w, agent)
    told = {"claim_token": ids["token"], "error": "it broke", "retryable": False}
    agent.post(f"/api/agent/tasks/{ids['run']}/fail", **told)
    return ids


def _attention(w: Workspace, agent: Agent) -> Ids:
    ids = _held(w, agent, max_lease_expiries=1)
    w.world.advance(6)
    w.world.sweep()
    return ids


def _review(w: Workspace, agent: Agent) -> Ids:
    run = reviewed(w)
    of = w.operator.get(f"/api/task-runs/{run.run_id}/reviews").reviews[0]
    return {"task": run.task_id, "run": run.run_id, "review": of.review_id}


def _judging(w: Workspace, agent: Agent) -> Ids:
    run = reviewed(w)
    held = claim(agent)
    while held.run_id != run.run_id:  # a review of an earlier stage was asked for before
        held = claim(agent)
    return {
        "task": run.task_id, "run": run.run_id, "review": held.review_id, "token": held.token,
    }  # fmt: skip


def _bridge(w: Workspace, agent: Agent) -> Ids:
    url = "https://receiver.invalid/"
    made = w.operator.post("/api/bridges", name=token_hex(8), url=url, enabled=False)
    return {"task": _task(agent), "bridge": made.bridge.id}


def _told(w: Workspace, agent: Agent) -> Ids:
    ids = _bridge(w, agent)
    path = f"/api/tasks/{ids['task']}/notifications/bridges"
    wish = {"bridge_instance_id": ids["bridge"], "delivery_mode": "direct-send"}
    return ids | {"subscription": w.operator.post(path, **wish).subscription.subscription_id}


def _key(w: Workspace, agent: Agent) -> Ids:
    wish = {"name": token_hex(8), "role": "viewer", "workspace": w.id}
    return {"key": w.world.admin.post("/api/keys", **wish).key.id}


JUDGES: Final = frozenset({"review", "judging"})
STAGES: Final[dict[str, Callable[[Workspace, Agent], Ids]]] = {
    "nothing": lambda w, agent: {},
    "idle": _idle,
    "draft": lambda w, agent: {"task": _task(agent, draft=True)},
    "asked": _asked,
    "paused": _paused,
    "pair": _pair,
    "edge": _edge,
    "profiled": _profiled,
    "queued": _queued,
    "held": _held,
    "by hand": _by_hand,
    "ended": _ended,
    "failed": _failed,
    "attention": _attention,
    "review": _review,
    "judging": _judging,
    "bridge": _bridge,
    "told": _told,
    "key": _key,
}
