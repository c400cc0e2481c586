"""What the log of a workspace tells: its tasks, runs and edges, from the events alone."""

from collections.abc import Iterable
from typing import Any

from tests.model import ENDED
from tests.replay_reviews import Reviews, compare
from tests.world import World

Fields = dict[str, Any]
TASKS = """
select task_id, status, canceled, draft, coalesce(approval_state, 'not_required'),
       paused_by_task_id, fence, version, attempts_used, dependencies_waiting,
       parent_task_id, created_by_kind, created_by_ref, _utc(created_at), _utc(closed_at),
       concurrency_key, concurrency_limit, max_total_tokens
  from task where workspace_id = %s
"""
RUNS = """
select r.run_id, r.task_id, r.attempt, r.status, r.previous_run_id, r.fence, r.claim_count,
       r.lease_expiries, r.failure_kind, r.retryable, b.error, b.result, l.session_id,
       l.agent_name, _utc(l.claimed_at), _utc(r.ended_at), (
         select coalesce(sum(x.input_tokens), 0)::int from lease x
          where x.workspace_id = r.workspace_id and x.run_id = r.run_id),
       r.parent_run_id, r.review_id, r.review_round
  from run r left join run_body b using (workspace_id, run_id)
  left join lease l on l.workspace_id = r.workspace_id and l.run_id = r.run_id
                   and l.fence = r.fence
 where r.workspace_id = %s
"""
EDGES = "select task_id, depends_on_task_id, satisfied from dependency where workspace_id = %s"
GATES: dict[str, Fields] = {
    "task.published": {"draft": False}, "task.approved": {"approval": "approved"},
    "task.rejected": {"approval": "rejected"}, "task.paused": {"paused": True},
    "task.resumed": {"paused": False},
}  # fmt: skip
SWITCH = "select from scheduler where workspace_id = %s and paused_at is not null"
ASKED = {"none": "not_required", "manual": "pending"}


class Replay:
    """A workspace as its log has it."""

    def __init__(self) -> None:
        self.tasks: dict[str, Fields] = {}
        self.runs: dict[str, Fields] = {}
        self.edges: dict[tuple[str, str], None] = {}
        self.paused = False
        self.reviews = Reviews()

    def see(self, event: Any) -> None:
        """Takes in the next event."""
        payload, task_id, at = event.payload, event.task_id, event.timestamp
        if event.event_type == "task.created":
            self._create(task_id, payload, event.actor, at)
        elif event.event_type == "task.deleted":
            self._delete(task_id)
        elif event.event_type == "task.dependency_added":
            self.edges[task_id, payload["depends_on_task_id"]] = None
        elif event.event_type == "task.dependency_removed":
            del self.edges[task_id, payload["depends_on_task_id"]]
        elif event.event_type in ("task.updated", "task.canceled"):
            self.tasks[task_id] |= payload.get("changes", {"canceled": True})
            self.tasks[task_id]["version"] += 1
        elif event.event_type in GATES:
            self.tasks[task_id] |= GATES[event.event_type]
            self.tasks[task_id]["version"] += 1
        if "approval_policy" in payload.get("changes", payload):
            policy = payload.get("changes", payload)["approval_policy"]
            self.tasks[task_id]["approval"] = ASKED[policy]
        if event.run_id is not None:
            self._run(event.event_type.removeprefix("task."), event)
        if task_id in self.tasks:
            self._status(self.tasks[task_id], payload["task_status"], at)

    def _status(self, task: Fields, status: str, at: str) -> None:
        closed = task["closed_at"] or at
        task |= {"status": status, "closed_at": closed if status in ENDED else None}

    def _create(self, task_id: str, payload: Fields, actor: Any, at: str) -> None:
        self.tasks[task_id] = payload | {
            "canceled": False, "paused": False, "fence": 0, "version": 1, "attempts": 0,
            "status": None,
            "by": (actor.kind, actor.ref), "at": at, "closed_at": None,
        }  # fmt: skip
        self.edges |= {(task_id, on): None for on in payload["depends_on"]}

    def _delete(self, task_id: str) -> None:
        del self.tasks[task_id]
        self.runs = {n: run for n, run in self.runs.items() if run["task_id"] != task_id}
        self.edges = {edge: None for edge in self.edges if edge[0] != task_id}
        self.reviews.forget(self.runs)

    def _run(self, kind: str, event: Any) -> None:
        payload, at = event.payload, event.timestamp
        task = self.tasks[event.task_id]
        if kind in ("run_enqueued", "run_operator_retry", "run_recovered_from_attention"):
            task["attempts"] += 1
            previous = payload.get("previous_run_id") or payload.get("source_run_id")
            rejected = self.runs[previous].get("rejected") if previous else None
            self.runs[event.run_id] = {
                "task_id": event.task_id, "previous": previous, "rejected": rejected,
            }  # fmt: skip
        if kind == "run_review_retry_enqueued":
            rejected = payload["parent_run_id"], payload["review_id"], payload["review_round"]
            self.runs[event.run_id] = {
                "task_id": event.task_id, "previous": None, "rejected": rejected,
            }  # fmt: skip
        elif kind.startswith("run_review_"):
            task["fence"] += self.reviews.see(kind.removeprefix("run_review_"), event)
            if kind == "run_review_bound":
                self.reviews.fence(payload["review_id"], task["fence"])
        if kind == "run_recovered_from_attention":
            source = self.runs[payload["source_run_id"]]
            source |= {
                "status": "failed", "failure_kind": "operator_forced", "retryable": False,
                "error": payload["reason"] or source["error"], "ended_at": at,
            }  # fmt: skip
        run = self.runs[event.run_id]
        if kind != "run_progress" and "usage" in payload:
            run |= {"before": payload["usage"]["input_tokens"], "used": 0}
        run |= {"status": payload["status"], "attempt": payload["attempt"]}
        if kind == "run_claimed":
            assert not self.paused, "P6: claimed while the scheduler was paused"
            task["fence"] = payload["fence"]
            run["claims"] = run.get("claims", 0) + 1
            run |= {"before": run.get("before", 0) + run.get("used", 0), "used": 0}
            run |= {
                "session": payload["session_id"], "agent": payload["agent_name"], "claimed_at": at,
                "fence": payload["fence"],
            }  # fmt: skip
        elif kind == "run_progress" and payload["usage"]:
            run["used"] = max(run["used"], payload["usage"]["input_tokens"] or 0)
        elif kind == "run_session_bound":
            run |= {"session": payload["session_id"], "agent": payload["agent_name"]}
        elif kind == "run_operator_forced_fail":
            run |= {
                "failure_kind": "operator_forced", "retryable": False, "error": payload["reason"],
                "ended_at": at,
            }  # fmt: skip
        elif kind == "run_lease_expired":
            run["expiries"] = payload["lease_expiries"]
        elif kind == "run_needs_attention":
            run |= {
                "expiries": payload["lease_expiries"],
                "error": payload["diagnostic"]["message"],
            }
        elif kind in ("run_completed", "run_failed", "run_canceled"):
            told = ("result", "error", "failure_kind", "retryable")
            run |= {name: payload[name] for name in told if name in payload} | {"ended_at": at}

    def paused_by(self, task_id: str | None) -> str | None:
        """What keeps a task from being claimed: itself, or its nearest paused ancestor."""
        while task_id is not None and not self.tasks[task_id]["paused"]:
            task_id = self.tasks[task_id]["parent_task_id"]
        return task_id

    def satisfied(self, task_id: str, on: str) -> bool:
        """Whether an edge holds nothing up any more."""
        good = {"block": {"completed"}, "cancel": {"completed"}, "run": ENDED}
        return self.tasks[on]["status"] in good[self.tasks[task_id]["on_dependency_failure"]]


def replay(world: World, workspace_id: str, events: list[Any]) -> None:
    """The log is whole, and the tables are as it tells."""
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    told = Replay()
    for event in events:
        if event.task_id is not None:
            told.see(event)
        elif event.event_type in ("scheduler.paused", "scheduler.resumed"):
            told.paused = event.payload["paused"]
    switched = world.db.execute(SWITCH, [workspace_id]).fetchone()
    assert told.paused == (switched is not None)
    rows = world.db.execute
    same(
        "edges",
        rows(EDGES, [workspace_id]),
        {(*edge, told.satisfied(*edge)) for edge in told.edges},
    )
    same("tasks", rows(TASKS, [workspace_id]), {
        (task_id, t["status"], t["canceled"], t["draft"], t["approval"], told.paused_by(task_id),
         t["fence"], t["version"], t["attempts"],
         sum(not told.satisfied(*edge) for edge in told.edges if edge[0] == task_id),
         t["parent_task_id"], *t["by"], t["at"], t["closed_at"], t["concurrency_key"],
         t["concurrency_limit"], (t["budget"] or {}).get("max_total_tokens"))
        for task_id, t in told.tasks.items()
    })  # fmt: skip
    same("runs", rows(RUNS, [workspace_id]), {
        (run_id, r["task_id"], r["attempt"], r["status"], r["previous"], r.get("fence"),
         r.get("claims", 0), r.get("expiries", 0), r.get("failure_kind"), r.get("retryable"),
         r.get("error"), r.get("result"), r.get("session"), r.get("agent"), r.get("claimed_at"),
         r.get("ended_at"), r.get("before", 0) + r.get("used", 0),
         *(r.get("rejected") or (None, None, None)))
        for run_id, r in told.runs.items()
    })  # fmt: skip
    compare(world, workspace_id, told.reviews)


def same(what: str, stored: Iterable[tuple[Any, ...]], told: set[tuple[Any, ...]]) -> None:
    """The rows of a table are those that the log tells of."""
    rows = set(stored)
    assert rows == told, f"{what}: stored {list(rows - told)[:3]}, told {list(told - rows)[:3]}"
