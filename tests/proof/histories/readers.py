"""What each route means: which tasks a call is about, and what its answer shows of them."""

import re
from collections.abc import Callable
from typing import Final

from tests.proof.histories.calls import Call, seconds
from tests.proof.histories.leases import LOST
from tests.proof.histories.reading import Json, Reading
from tests.proof.histories.state import Plan

SHOWN = {
    "task_status": "status", "task_fence": "fence", "version": "version",
    "attempts": "attempts_used", "approval": "approval_state", "checkpoint": "checkpoint",
    "effective_paused": "effective_paused", "waiting": "dependencies_waiting", "result": "result",
}  # fmt: skip

GUARDED = (
    "stale_fence", "run_canceled", "task_run_already_terminal", "lease_released", "lease_expired",
    "lease_revoked",
)  # fmt: skip


def read(reading: Reading, call: Call) -> None:
    """Notes a call in the history of each task that it is about."""
    line = f"{call.method} {call.path.partition('?')[0]}"
    for form, how in ROUTES.items():
        if found := form.fullmatch(line):
            how(reading, call, *found.groups())
            return


def _task(told: Json) -> Json:
    return {name: told[field] for name, field in SHOWN.items()}


def _good(call: Call) -> bool:
    return call.known and call.status < 300


def _once(call: Call) -> Json:
    key = call.headers.get("idempotency-key")
    return {"once": key} if key else {}


def _fence(call: Call, body: Json) -> int:
    """A claim token shows its fence."""
    token: str = body.get("claim_token") or call.headers["x-claim-token"]
    return int(token.split("_")[1])


# ── tasks ──


def _create(reading: Reading, call: Call, parent: str = "") -> None:
    body, told = call.body, call.told
    item = {**body, "parent_task_id": parent or body.get("parent_task_id")}
    _made(reading, call, item, {}, _task(told["task"]) if _good(call) else {})
    guard = call.headers.get("x-run-id")
    if guard in reading.names:
        fence = _fence(call, {})
        reading.add(reading.names[guard][0], "guard", call, {}, fence=fence)


def _bulk(reading: Reading, call: Call) -> None:
    body = call.body
    ids = {item["ref"]: item["id"] for item in body["tasks"]}
    told = {item["id"]: item["status"] for item in call.told["tasks"]} if _good(call) else {}
    for item in body["tasks"]:
        whole = {"auto_enqueue_on_ready": True, **body.get("defaults", {}), **item}
        seen = {"task_status": told[item["id"]]} if told else {}
        _made(reading, call, whole, ids, seen)


def _made(reading: Reading, call: Call, item: Json, ids: dict[str, str], seen: Json) -> None:
    task_id, default = item["id"], Plan()
    reading.plans[task_id] = Plan(
        item.get("auto_enqueue_on_ready", False),
        item.get("max_attempts", default.max_attempts),
        item.get("max_lease_expiries", default.max_lease_expiries),
        item.get("review_policy", default.review_policy),
        item.get("review_max_rounds", default.review_max_rounds),
        item.get("on_dependency_failure", default.on_dependency_failure),
    )
    if item.get("parent_task_id"):
        reading.parents[task_id] = item["parent_task_id"]
    refs = (ids[ref] for ref in item.get("depends_on_refs", ()))
    edges = frozenset([*item.get("depends_on", ()), *refs])
    manual, key = item.get("approval_policy") == "manual", call.headers["idempotency-key"]
    # Its own history does not tell whether these were right, those of other tasks do.
    refused = {"task_not_found", "task_canceled", *(GUARDED if "x-run-id" in call.headers else ())}
    args: Json = {"key": key, "edges": edges, "manual": manual, "refused": frozenset(refused)}
    reading.add(task_id, "create", call, seen, **args)


def _look(reading: Reading, call: Call, task_id: str) -> None:
    seen: Json = {}
    if _good(call):
        told = call.told["task"]
        seen = _task(told["task"])
        runs = sorted(told["runs"], key=lambda run: int(run["attempt"]))
        seen["runs"] = tuple((run["status"], run["fence"]) for run in runs)
    reading.add(task_id, "look", call, seen)


def _on_task(reading: Reading, call: Call, task_id: str, verb: str) -> None:
    seen = _task(call.told["task"]) if _good(call) else {}
    reading.add(task_id, verb, call, seen, task=task_id, **_once(call))


def _depend(reading: Reading, call: Call, task_id: str) -> None:
    seen = _task(call.told["task"]["task"]) if _good(call) else {}
    reading.add(task_id, "depend", call, seen, on=call.body["depends_on_task_id"])


def _undepend(reading: Reading, call: Call, task_id: str, on: str) -> None:
    seen = _task(call.told["task"]["task"]) if _good(call) else {}
    reading.add(task_id, "undepend", call, seen, on=on)


# ── runs ──


def _on_run(reading: Reading, call: Call, run_id: str, verb: str) -> None:
    if run_id in reading.names:
        task_id, attempt = reading.names[run_id]
        reading.add(task_id, verb, call, {}, attempt=attempt, **_once(call))


def _cancel_run(reading: Reading, call: Call, run_id: str) -> None:
    _on_run(reading, call, run_id, "cancel_run")


def _force(reading: Reading, call: Call, run_id: str, verb: str) -> None:
    kind = {"release": "force_release", "fail": "force_fail"}.get(verb, verb)
    _on_run(reading, call, run_id, kind)


def _claim(reading: Reading, call: Call) -> None:
    body = call.body
    key = call.headers.get("idempotency-key") or body.get("idempotency_key") or f"#{call.number}"
    if not call.known:
        reading.lost(call, key.replace("#", LOST))
    elif call.status == 200:
        claims = call.told.get("claims") or [call.told["claim"]]
        reading.claimed(call, claims, key, chained=False)


def _hold(reading: Reading, call: Call, run_id: str, verb: str) -> None:
    body, told = call.body, call.told if _good(call) else None
    _held(reading, call, run_id, verb, body, told)
    if verb == "complete" and "claim_next" in body:
        key = body["claim_next"].get("idempotency_key")
        key = key or f"complete:{run_id}:{_fence(call, body)}"
        if told and told["claim"]:
            claims = told.get("claims") or [told["claim"]]
            reading.claimed(call, claims, key, chained=True)
        elif told is None:
            reading.lost(call, key)


def _held(
    reading: Reading, call: Call, run_id: str, verb: str, body: Json, told: Json | None,
    refused: str | None = None,
) -> None:  # fmt: skip
    task_id, _ = reading.names[run_id]
    seen: Json = {} if refused is None else {"code": refused}
    args: Json = {"fence": _fence(call, body)}
    if verb == "heartbeat":
        args["checkpoint"] = body.get("checkpoint")
        if told:
            args["until"] = seconds(told["lease"]["lease_until"])
            reading.prolonged(call, args["until"], told["lease"]["lease_seconds"])
            seen["paused"] = told["paused"]
    elif verb == "complete":
        args["why"] = body.get("result")
    elif verb == "fail":
        args |= {"why": body["error"], "retryable": body.get("retryable", True)}
        if told and not call.replayed:
            following = told["next_run"]
            seen["next"] = following and following["attempt"]
    elif verb == "release" and (delay := body.get("delay_seconds")):
        args["after"] = reading.ledger.earliest[call.begun] + delay
    reading.add(task_id, verb, call, seen, **args)


def _bulk_heartbeat(reading: Reading, call: Call) -> None:
    told = {item["run_id"]: item for item in call.told["results"]} if _good(call) else {}
    for item in call.body["items"]:
        answer = told.get(item["run_id"])
        error = answer and answer["error"] and answer["error"]["diagnostic"]["code"]
        good = answer if answer and not error else None
        _held(reading, call, item["run_id"], "heartbeat", item, good, error)


# ── reviews ──


def _claim_review(reading: Reading, call: Call) -> None:
    body = call.body
    key = call.headers.get("idempotency-key") or body.get("idempotency_key") or f"#{call.number}"
    if not call.known:
        reading.lost(call, key, "review_claim")
    elif call.status == 200:
        told = call.told["claim"]
        task_id, attempt = told["task"]["id"], told["run"]["attempt"]
        reading.names.setdefault(told["review"]["review_id"], (task_id, attempt))
        until = seconds(told["lease"]["lease_until"])
        seen = {"fence": told["lease"]["fence"], "attempt": attempt}
        reading.add(task_id, "review_claim", call, seen, session=call.session, key=key, until=until)


def _hold_review(reading: Reading, call: Call, review_id: str, verb: str) -> None:
    task_id, attempt = reading.names[review_id]
    args: Json = {"fence": _fence(call, call.body), "attempt": attempt, "session": call.session}
    if verb == "heartbeat" and _good(call):
        args["until"] = seconds(call.told["lease"]["lease_until"])
    reading.add(task_id, f"review_{verb}", call, {}, **args)


def _verdict(reading: Reading, call: Call, review_id: str) -> None:
    task_id, attempt = reading.names[review_id]
    body, told = call.body, call.body["verdict"]
    fence = _fence(call, body) if body.get("claim_token") else None
    seen = {"circuit": call.told["circuit_opened"]} if _good(call) and not call.replayed else {}
    reading.add(
        task_id, "verdict", call, seen, fence=fence, attempt=attempt, outcome=told["outcome"],
        delivery=told["delivery_id"], session=call.session,
    )  # fmt: skip


_FORMS: Final[dict[str, Callable[..., None]]] = {
    r"POST /api/tasks": _create,
    r"POST /api/tasks/bulk": _bulk,
    r"POST /api/tasks/([^/]+)/children": _create,
    r"GET /api/tasks/([^/]+)": _look,
    r"POST /api/tasks/([^/]+)/(cancel|pause|resume|approve|reject|start)": _on_task,
    r"POST /api/tasks/([^/]+)/dependencies": _depend,
    r"DELETE /api/tasks/([^/]+)/dependencies/([^/]+)": _undepend,
    r"POST /api/task-runs/([^/]+)/cancel": _cancel_run,
    r"POST /api/runs/([^/]+)/(release|fail|retry|recover)": _force,
    r"POST /api/agent/tasks/claim-next": _claim,
    r"POST /api/agent/tasks/bulk/heartbeat": _bulk_heartbeat,
    r"POST /api/agent/tasks/([^/]+)/(heartbeat|complete|fail|release)": _hold,
    r"POST /api/agent/reviews/claim-next": _claim_review,
    r"POST /api/agent/reviews/([^/]+)/(heartbeat|release)": _hold_review,
    r"POST /api/task-reviews/([^/]+)/verdict": _verdict,
}
ROUTES: Final = {re.compile(form): how for form, how in _FORMS.items()}
