"""Who may call what: a row for every endpoint, from the contract and not from the server.

A path names what its ids are of. `stage` is what must be there for the call to be good; `about` is
what the call is refused for where it is of another workspace.
"""

import re
from typing import Any, Final, NamedTuple

PLACE: Final = re.compile(r"{(\w+)}")


class Row(NamedTuple):
    """One endpoint, its rules, and a call that keeps to them."""

    endpoint: str
    # Letters of section 2.4: viewer, agent, operator, admin; empty: anybody.
    roles: str
    stage: str = "idle"
    ok: int = 200
    body: dict[str, Any] | None = None
    # own: agents only on tasks that they created. star: admins may name all workspaces.
    # lease, review: with the proof of a lease. hand: so for agents, others on manual claims.
    # guard: takes X-Run-ID and X-Claim-Token. bulk: answers item by item. stream: opens one.
    marks: str = ""
    of: str = ""

    @property
    def method(self) -> str:
        return self.endpoint.partition(" ")[0]

    @property
    def path(self) -> str:
        return self.endpoint.partition(" ")[2]

    @property
    def template(self) -> str:
        """Method and path as in the contract, whatever its ids are called."""
        return PLACE.sub("{}", self.endpoint)

    @property
    def about(self) -> str:
        """The kind of thing that the call is about; empty if of none."""
        found = PLACE.search(self.path)
        return found[1] if found else self.of

    @property
    def agents(self) -> bool:
        """Whether the caller must be an agent's session."""
        return self.path.startswith("/api/agent/")


ITEMS: Final = {"items": [{"run_id": "{run}", "claim_token": "{token}"}]}
RUNS: Final = {"run_ids": ["{run}"], "reason": "because"}
TOKEN: Final = {"claim_token": "{token}"}
FAILED: Final = {**TOKEN, "error": "no"}
GRAPH: Final = {"tasks": [{"ref": "a", "title": "t"}]}
WHY: Final = {"reason": "because"}
SENT: Final = {"bridge_instance_id": "{bridge}", "delivery_mode": "direct-send"}
VERDICT: Final = {
    "outcome": "approved", "confidence": 1, "reason": "looked", "delivery_id": "{nonce}",
}  # fmt: skip
JUDGED: Final = {**TOKEN, "run_id": "{run}", "verdict": VERDICT}
NAMED: Final = {"name": "{nonce}", "url": "https://receiver.invalid/"}
PATCH: Final = {"title": "another"}

AGENTS: Final = (
    Row("POST /api/agent/tasks/claim-next", "AOM", "queued", body={"channel": "coord-{run}"}),
    Row("POST /api/agent/tasks/{run}/heartbeat", "AOM", "held", 200, TOKEN, "lease"),
    Row("POST /api/agent/tasks/{run}/complete", "AOM", "held", 200, TOKEN, "lease"),
    Row("POST /api/agent/tasks/{run}/fail", "AOM", "held", 200, FAILED, "lease"),
    Row("POST /api/agent/tasks/{run}/release", "AOM", "held", 200, TOKEN, "lease"),
    Row("POST /api/agent/tasks/bulk/heartbeat", "AOM", "held", 200, ITEMS, "lease bulk", "run"),
    Row("POST /api/agent/tasks/bulk/complete", "AOM", "held", 200, ITEMS, "lease bulk", "run"),
    Row("GET /api/agent/leases", "AOM", "held"),
    Row("GET /api/agent/stream", "AOM", "held", marks="stream"),
    Row("POST /api/agent/reviews/claim-next", "AOM", "review", body={}),
    Row("POST /api/agent/reviews/{review}/heartbeat", "AOM", "judging", 200, TOKEN, "review"),
    Row("POST /api/agent/reviews/{review}/release", "AOM", "judging", 200, TOKEN, "review"),
    Row("POST /api/leases/verify", "VAOM", "held", 200, {"run_id": "{run}", "fence": 1}, "", "run"),
)  # fmt: skip

TASKS: Final = (
    Row("GET /api/tasks", "VAOM"),
    Row("POST /api/tasks", "AOM", "nothing", 201, {"title": "t"}, "guard"),
    Row("POST /api/tasks/bulk", "AOM", "nothing", 201, GRAPH, "guard"),
    Row("GET /api/tasks/{task}", "VAOM"),
    Row("PATCH /api/tasks/{task}", "OM", body=PATCH),
    Row("DELETE /api/tasks/{task}", "OM", ok=204),
    Row("POST /api/tasks/{task}/children", "AOM", "idle", 201, {"title": "t"}, "guard"),
    Row("POST /api/tasks/{task}/publish", "AOM", "draft", marks="own"),
    Row("POST /api/tasks/{task}/start", "AOM", ok=201, marks="own"),
    Row("POST /api/tasks/{task}/approve", "OM", "asked", 201),
    Row("POST /api/tasks/{task}/reject", "OM", "asked"),
    Row("POST /api/tasks/{task}/cancel", "AOM", marks="own"),
    Row("POST /api/tasks/{task}/pause", "OM", body=WHY),
    Row("POST /api/tasks/{task}/resume", "OM", "paused"),
    Row("GET /api/tasks/{task}/dependencies", "VAOM", "edge"),
    Row("POST /api/tasks/{task}/dependencies", "AOM", "pair", 200,
        {"depends_on_task_id": "{other}"}, "own guard"),
    Row("DELETE /api/tasks/{task}/dependencies/{other}", "AOM", "edge", marks="own"),
    Row("GET /api/tasks/{task}/execution-profile", "VAOM"),
    Row("PUT /api/tasks/{task}/execution-profile", "OM", body={}),
    Row("DELETE /api/tasks/{task}/execution-profile", "OM", "profiled", 204),
    Row("GET /api/tasks/{task}/runs", "VAOM"),
    Row("POST /api/tasks/{task}/runs", "AOM", ok=201, marks="own"),
    Row("GET /api/tasks/{task}/reviews", "VAOM", "review"),
    Row("GET /api/tasks/{task}/timeline", "VAOM"),
    Row("GET /api/tasks/{task}/stream", "VAOM", marks="stream"),
    Row("GET /tasks/{task}/stream", "VAOM", marks="stream"),
    Row("GET /api/tasks/{task}/tree", "VAOM"),
    Row("GET /api/tasks/{task}/graph", "VAOM"),
    Row("GET /api/tasks/{task}/explain", "VAOM"),
    Row("GET /api/tasks/{task}/inspect", "VAOM"),
    Row("POST /api/tasks/{task}/triage/read", "AOM"),
    Row("POST /api/tasks/{task}/triage/archive", "AOM"),
    Row("POST /api/tasks/{task}/triage/unarchive", "AOM"),
    Row("POST /api/tasks/{task}/triage/dismiss", "AOM"),
    Row("GET /api/tasks/{task}/notifications/bridges", "VAOM", "told"),
    Row("POST /api/tasks/{task}/notifications/bridges", "OM", "bridge", 201, SENT),
    Row("GET /api/tasks/{task}/notifications/bridges/{subscription}", "VAOM", "told"),
    Row("DELETE /api/tasks/{task}/notifications/bridges/{subscription}", "OM", "told", 204),
)  # fmt: skip

RUN: Final = (
    Row("GET /api/task-runs", "VAOM", "queued"),
    Row("GET /api/task-runs/{run}", "VAOM", "queued"),
    Row("GET /api/task-runs/{run}/reviews", "VAOM", "review"),
    Row("POST /api/task-runs/{run}/claim", "OM", "queued"),
    Row("POST /api/task-runs/{run}/attach-session", "OM", "by hand", 200,
        {"session_id": "{session}", "agent_name": "worker"}),
    Row("POST /api/task-runs/{run}/start", "AOM", "held", 200, TOKEN, "hand"),
    Row("POST /api/task-runs/{run}/complete", "AOM", "held", 200, TOKEN, "hand"),
    Row("POST /api/task-runs/{run}/fail", "AOM", "held", 200, FAILED, "hand"),
    Row("POST /api/task-runs/{run}/cancel", "OM", "queued"),
    Row("POST /api/task-runs/{run}/reviews", "AOM", "ended", 201),
    Row("GET /api/task-reviews", "VAOM", "review"),
    Row("GET /api/task-reviews/{review}", "VAOM", "review"),
    Row("POST /api/task-reviews/{review}/verdict", "AOM", "judging", 200, JUDGED, "review"),
    Row("GET /api/runs/{run}/inspect", "VAOM", "queued"),
    Row("POST /api/runs/{run}/release", "OM", "held"),
    Row("POST /api/runs/{run}/fail", "OM", "held", body=WHY),
    Row("POST /api/runs/{run}/retry", "OM", "failed", 201),
    Row("POST /api/runs/{run}/recover", "OM", "attention", 201),
    Row("POST /api/runs/bulk/release", "OM", "held", 200, RUNS, "bulk", "run"),
    Row("POST /api/runs/bulk/fail", "OM", "held", 200, RUNS, "bulk", "run"),
    Row("POST /api/runs/bulk/retry", "OM", "failed", 200, RUNS, "bulk", "run"),
    Row("POST /api/runs/bulk/recover", "OM", "attention", 200, RUNS, "bulk", "run"),
)  # fmt: skip

WATCH: Final = (
    Row("GET /api/sessions", "VAOM", "held"),
    Row("GET /api/scheduler", "VAOM", marks="star"),
    Row("GET /api/scheduler/backlog", "VAOM", "queued", marks="star"),
    Row("POST /api/scheduler/pause", "OM", "nothing", marks="star"),
    Row("POST /api/scheduler/resume", "OM", "nothing", marks="star"),
    Row("POST /api/scheduler/drain", "OM", "nothing", 200, {"timeout_seconds": 0}, "star"),
    Row("GET /api/observe/tasks/dashboard", "VAOM"),
    Row("GET /api/observe/tasks/inbox", "VAOM"),
    Row("GET /api/observe/stream", "VAOM", marks="stream"),
    Row("GET /api/events", "VAOM"),
)

PLACES: Final = (
    Row("GET /api/bridges", "OM", "bridge"),
    Row("POST /api/bridges", "OM", "nothing", 201, NAMED),
    Row("GET /api/bridges/{bridge}", "OM", "bridge"),
    Row("PATCH /api/bridges/{bridge}", "OM", "bridge", body={"enabled": False}),
    Row("DELETE /api/bridges/{bridge}", "OM", "bridge", 204),
    Row("GET /api/bridges/{bridge}/deliveries", "OM", "bridge"),
    Row("GET /api/keys", "M", "key", marks="star"),
    Row("POST /api/keys", "M", "nothing", 201, {"name": "{nonce}", "role": "viewer"}, "star"),
    Row("POST /api/keys/{key}/rotate", "M", "key", 201, {}, "star"),
    Row("DELETE /api/keys/{key}", "M", "key", 204, marks="star"),
    Row("GET /api/workspaces", "AOM", "nothing"),
    Row("POST /api/workspaces", "M", "nothing", 201, {"name": "w-{nonce}"}),
    Row("GET /api/workspaces/{workspace}", "AOM", "nothing"),
    Row("PATCH /api/workspaces/{workspace}", "OM", "nothing", body={"display_name": "new"}),
    Row("POST /api/auth/stream-ticket", "VAOM", "nothing"),
    Row("GET /api/whoami", "VAOM", "nothing"),
    Row("GET /healthz", "", "nothing"),
    Row("GET /readyz", "", "nothing"),
    Row("GET /version", "", "nothing"),
    Row("GET /metrics", "", "nothing"),
    Row("GET /openapi.json", "", "nothing"),
    Row("GET /docs/errors", "", "nothing"),
)

ROWS: Final = (*AGENTS, *TASKS, *RUN, *WATCH, *PLACES)
