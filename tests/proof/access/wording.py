"""P12: nothing in an answer tells whether a thing exists elsewhere: the same bytes, headers and
statements for a thing of another workspace, one that never was and one that was deleted."""

import random
import re
from collections.abc import Iterator
from secrets import token_hex
from typing import Any, Final, NamedTuple

import httpx2

from server.rules.ids import new_id
from tests.client import Client
from tests.factories import Workspace
from tests.proof.access.asking import ask
from tests.proof.access.stages import Ids, staged
from tests.proof.access.table import ROWS, Row
from tests.world import World

# They differ from answer to answer, and say nothing.
OWN_HEADERS: Final = frozenset({"date", "x-request-id", "retry-after"})
TIME: Final = re.compile(r'"server_time":"[^"]*"')
KINDS: Final = (
    "task", "other", "run", "review", "bridge", "subscription", "key", "workspace", "session",
)  # fmt: skip
# Beside the table: ids that stand in bodies, queries and headers, not in paths.
ELSEWHERE: Final = (
    Row("POST /api/tasks", "AOM", "idle", 404, {"title": "t", "parent_task_id": "{task}"}),
    Row("POST /api/tasks", "AOM", "idle", 404, {"title": "t", "depends_on": ["{task}"]}),
    Row("POST /api/tasks/bulk", "AOM", "idle", 404,
        {"tasks": [{"ref": "a", "title": "t", "parent_task_id": "{task}"}]}),
    Row("POST /api/tasks/bulk", "AOM", "idle", 404,
        {"tasks": [{"ref": "a", "title": "t", "depends_on": ["{task}"]}]}),
    Row("POST /api/tasks/{own}/dependencies", "AOM", "idle", 404, {"depends_on_task_id": "{task}"}),
    Row("DELETE /api/tasks/{own}/dependencies/{task}", "AOM", "idle", 404),
    Row("POST /api/tasks/{own}/notifications/bridges", "OM", "bridge", 404,
        {"bridge_instance_id": "{bridge}", "delivery_mode": "reply"}),
    Row("GET /api/tasks/{own}/notifications/bridges/{subscription}", "VAOM", "told", 404),
    Row("DELETE /api/tasks/{own}/notifications/bridges/{subscription}", "OM", "told", 404),
    Row("POST /api/task-runs/{own_run}/reviews", "AOM", "review", 404,
        {"parent_review_id": "{review}"}),
    Row("POST /api/keys", "M", "nothing", 404,
        {"name": "k", "role": "viewer", "workspace": "{workspace}"}),
    Row("GET /api/whoami?workspace={workspace}", "VAOM", "nothing", 404),
    Row("GET /api/tasks?parent_task_id={task}", "VAOM", "idle"),
    Row("GET /api/task-runs?task_id={task}", "VAOM", "queued"),
    Row("GET /api/task-runs?session_id={session}", "VAOM", "held"),
    Row("GET /api/events?task_id={task}", "VAOM", "idle"),
    Row("GET /api/events?run_id={run}", "VAOM", "queued"),
    Row("POST /api/agent/tasks/claim-next", "AOM", "queued", 204, {"channel": "coord-{run}"}),
    Row("POST /api/runs/bulk/fail", "OM", "held", 200, {"run_ids": ["{run}"], "reason": "x"}),
    Row("POST /api/agent/tasks/bulk/heartbeat", "AOM", "held", 200,
        {"items": [{"run_id": "{run}"}]}),
)  # fmt: skip


class Asked(NamedTuple):
    """One call, and the ids with which it is asked by what is known of them there."""

    row: Row
    by: Client
    ids: dict[str, Ids]


def asked(world: World, luck: random.Random, share: float) -> Iterator[Asked]:
    """Calls about a thing: of another workspace, one that never was, one that is gone."""
    here, there = world.workspace(), world.workspace()
    own = staged("ended", there)
    known = {"own": own.ids["task"], "own_run": own.ids["run"], "nonce": token_hex(8)}
    roles = {"V": there.client("viewer"), "A": there.agent(), "O": there.operator}
    roles["M"] = Client(world.http, _admin_of(there))
    for row in (*ROWS, *ELSEWHERE):
        if row.roles and (row.about or row in ELSEWHERE) and luck.random() < share:
            elsewhere = staged(row.stage, here).ids
            ids = {"elsewhere": elsewhere | known, "never": _never(elsewhere) | known}
            if row.about == "task" and row not in ELSEWHERE:
                ids["gone"] = elsewhere | {"task": _gone(there)} | known
            by = "A" if row.agents else next(letter for letter in "OAVM" if letter in row.roles)
            yield Asked(row, roles[by], ids)


def breaches(world: World, luck: random.Random, share: float = 1) -> Iterator[str]:
    """Answers that differ in more than the id that was asked for."""
    for call in asked(world, luck, share):
        told = {known: _told(world, call, ids) for known, ids in call.ids.items()}
        if len(set(told.values())) > 1:
            yield f"{call.row.endpoint}: the answers tell what exists elsewhere: {told}"
        status = next(iter(told.values()))[0]
        if call.row in ELSEWHERE and status != call.row.ok:
            yield f"{call.row.endpoint}: {call.row.ok} is due, {told} came"
    yield from _credentials(world)
    yield from _roles(world, luck, share)


def _told(world: World, call: Asked, ids: Ids) -> tuple[int, str, tuple[Any, ...]]:
    _, answer = ask(world.http, call.row, ids, call.by.sent())
    return _bare(answer, ids)


def _bare(answer: httpx2.Response, ids: Ids) -> tuple[int, str, tuple[Any, ...]]:
    """Status, text and headers, without request id and the ids that were asked for."""
    text = TIME.sub("", answer.text.replace(answer.headers["X-Request-ID"], "-"))
    for kind in KINDS:
        if ids.get(kind):
            text = text.replace(ids[kind], kind)
    sent = [(k, v) for k, v in answer.headers.items() if k not in OWN_HEADERS]
    return answer.status_code, text, tuple(sorted(sent))


def _credentials(world: World) -> Iterator[str]:
    """What is wrong with a credential is told to nobody."""
    own = world.workspace()
    good, expired = own.key("operator"), _ended_keys(world, own)
    shown = [*expired, good[:-3] + "abc", f"wl_{new_id('key', 7)}_{'A' * 43}", "x", good.upper()]
    answers = set()
    for n, text in enumerate(shown):
        address = {"X-Forwarded-For": f"10.9.9.{n}"}
        headers = {"Authorization": f"Bearer {text}", **address}
        answers.add(_bare(world.http.get("/api/tasks", headers=headers), {}))
    if len(answers) != 1:
        yield f"bad credentials are told apart: {answers}"


def _roles(world: World, luck: random.Random, share: float) -> Iterator[str]:
    """Who may not call something is told so whatever it names."""
    here, there = world.workspace(), world.workspace()
    viewer = there.client("viewer")
    for row in ROWS:
        if row.about and row.roles and "V" not in row.roles and luck.random() < share:
            ids = staged(row.stage, here).ids
            both = (ids, _never(ids))
            told = {_bare(ask(world.http, row, i, viewer.sent())[1], i) for i in both}
            if len(told) > 1:
                yield f"{row.endpoint}: a viewer is told what exists elsewhere: {told}"


def _ended_keys(world: World, own: Workspace) -> list[str]:
    """A key that was revoked."""
    key = world.admin.post("/api/keys", name=token_hex(8), role="viewer", workspace=own.id).key
    world.admin.delete(f"/api/keys/{key.id}")
    return [str(key.secret)]


def _admin_of(own: Workspace) -> str:
    wish = {"name": token_hex(8), "role": "admin", "workspace": own.id}
    text: str = own.world.admin.post("/api/keys", **wish).key.secret
    return text


def _never(ids: Ids) -> Ids:
    """Ids that nothing has; as long, and in the same order, as these."""
    turned = {known: known[:-1] + ("0" if known[-1] != "0" else "1") for known in ids.values()
              if known}  # fmt: skip
    return ids | {kind: turned[known] for kind, known in ids.items() if kind in KINDS}


def _gone(own: Workspace) -> str:
    task = own.task(auto_enqueue_on_ready=False)
    own.operator.delete(f"/api/tasks/{task.id}")
    return task.id
