"""Who may not see a thing asks for it: nothing of it is told, nothing of it changes."""

import re
from collections.abc import Iterator
from typing import Any, Final

import httpx2
import msgspec

from server.api.route import Route
from server.api.routes import ROUTES
from server.limits import STREAM_TICKET_SECONDS
from tests.client import Client
from tests.factories import Workspace
from tests.proof.mutants.trial import Trial
from tests.test_access import ABOUT
from tests.walk import Answer, walk

# What proves something, and the endpoints that hand it out.
SECRET: Final = re.compile(r"wlt_\d+_[\w-]{43}|wl_key_\w+_[\w-]{20,}|whsec_[\w+/=]+")
HANDED_OUT: Final = (
    "/claim-next",
    "/complete",
    "/claim",
    "/attach-session",
    "/keys",
    "/rotate",
    "/bridges",
)
KINDS: Final = ("task", "run", "review", "bridge", "subscription", "agent_session")
BODIES: Final = {
    (method, re.sub("{task}|{run}", "{id}", path)): body for method, path, body in ABOUT
}
MOST_IDS: Final = 1
# What moves by itself.
TIME: Final = re.compile(r"_at$|_time$|as_of|age|_ms$")


def strangers(trial: Trial) -> None:
    """A story in one workspace, and callers of another who ask for everything in it."""
    there, here = trial.world.workspace(), trial.world.workspace()
    admin, agent = here.client("admin"), here.agent("worker", "walker")
    nothing = _looks(admin)
    answers = walk(there)
    trial.operations += len(answers)
    _judge_secrets(answers)
    assert _looks(admin) == nothing, "a stranger sees that something happened"
    _shut_out(trial, there)
    names, own = _names(trial, there), here.task(auto_enqueue_on_ready=False).id
    before = there.snapshot()
    for method, path, body, asked in _questions(names, own):
        trial.operations += 1
        by = agent if path.startswith("/api/agent/") else admin
        _ask(by, method, path, body, asked, names)
    for path in _lists():
        trial.operations += 1
        told = there.operator.http.get(path, headers=there.operator.sent()).text
        _judge_secrets([Answer(f"GET {path}", 200, told.encode())])
    assert there.snapshot() == before, "a stranger changed something"
    log = trial.world.server.log.read_text()
    _judge_secrets([Answer("the server's log", 200, log.encode())])


def _looks(by: Client) -> dict[str, Any]:
    """What lists and counts tell, but for the time."""
    return {
        path: _timeless(by.http.get(path, headers=by.sent()).json())
        for path in _lists() if not path.startswith("/api/agent/")
    }  # fmt: skip


def _timeless(told: Any) -> Any:
    if isinstance(told, list):
        return [_timeless(each) for each in told]
    if isinstance(told, dict):
        return {name: _timeless(each) for name, each in told.items() if not TIME.search(name)}
    return told


def _shut_out(trial: Trial, there: Workspace) -> None:
    """Keys and tickets that are good no more, or never were, open nothing."""
    admin, http = trial.world.admin, trial.world.http
    one, other = (
        admin.post("/api/keys", name=name, role="operator", workspace=there.id).key
        for name in ("one", "other")
    )
    ticket = Client(http, one.secret).post("/api/auth/stream-ticket").ticket
    live = there.operator.post("/api/auth/stream-ticket").ticket
    for key in (one, other):
        admin.delete(f"/api/keys/{key.id}")
    assert _status(http, "/api/tasks", other.secret) == 401, "P12: a revoked key opens"
    for shown, why in ((ticket, "of a revoked key"), (f"{live[:-9]}AAAAAAAAA", "that is spoiled")):
        assert _opened(http, shown) == 401, f"P12: a ticket {why} opens"
    trial.world.advance(STREAM_TICKET_SECONDS + 1)
    assert _opened(http, live) == 401, "P12: a ticket whose time is over opens"


def _status(http: httpx2.Client, path: str, key: str) -> int:
    return http.get(path, headers={"Authorization": f"Bearer {key}"}).status_code


def _opened(http: httpx2.Client, ticket: str) -> int:
    with http.stream("GET", "/api/observe/stream", params={"ticket": ticket}) as answer:
        return answer.status_code


def _names(trial: Trial, there: Workspace) -> dict[str, list[str]]:
    """The ids of what there is, by kind."""
    rows = there.snapshot()
    key = trial.world.admin.get("/api/keys", workspace=there.id).keys[-1].id
    found = {
        kind: [row[f"{kind.removeprefix('agent_')}_id"] for row in rows[kind]][-MOST_IDS:]
        for kind in KINDS
    } | {"workspace": [there.id], "key": [key]}
    return {kind: names for kind, names in found.items() if names}


def _lists() -> list[str]:
    return [
        route.path for route in ROUTES
        if route.method == "GET" and "{" not in route.path and route.roles and not route.streams
    ]  # fmt: skip


def _questions(names: dict[str, list[str]], own: str) -> Iterator[tuple[str, str, Any, list[str]]]:
    """Every route about every kind of thing, and lists in which such a thing might stand."""
    for route in ROUTES:
        if "{" in route.path:
            for kind in names:
                for asked in names[kind]:
                    yield _about(route, asked, names)
    for path in _lists():
        yield "GET", path, None, []
        for kind in names:
            yield "GET", f"{path}?{kind}_id={names[kind][-1]}", None, [names[kind][-1]]
        yield "GET", f"{path}?workspace={names['workspace'][0]}", None, names["workspace"]
    task, run = names["task"][-1], names["run"][-1]
    for more in ({"parent_task_id": task}, {"depends_on": [task]}):
        yield "POST", "/api/tasks", {"title": "x", **more}, [task]
    wait = {"depends_on_task_id": task}
    yield "POST", f"/api/tasks/{own}/dependencies", wait, [task]
    yield "POST", "/api/leases/verify", {"run_id": run, "fence": 1}, [run]
    yield "POST", "/api/agent/tasks/claim-next", {"channel": f"coord-{run}"}, [run]
    yield "POST", "/api/agent/tasks/claim-next", {"max_runs": 100}, []
    yield "POST", "/api/agent/reviews/claim-next", {}, []


def _about(
    route: Route, asked: str, names: dict[str, list[str]]
) -> tuple[str, str, Any, list[str]]:
    others = {"depends_on_id": names["task"][0], "subscription_id": "mine"}
    put = {name: others.get(name, asked) for name in re.findall(r"{(\w+)}", route.path)}
    body = None if route.method in ("GET", "DELETE") else BODIES.get((route.method, route.path), {})
    return route.method, route.path.format(**put), body, [*put.values()]


def _ask(
    by: Client, method: str, path: str, body: Any, asked: list[str], names: dict[str, list[str]]
) -> None:
    content = None if body is None else msgspec.json.encode(body)
    answer = by.http.request(method, path, headers=by.sent(), content=content)
    assert answer.status_code < 500, f"{method} {path}: {answer.status_code}"
    if asked and "?" not in path:
        refused = answer.status_code >= 400 or answer.status_code == 204
        assert refused, f"{method} {path}: a stranger was answered {answer.status_code}"
    told = [
        name for kind in names for name in names[kind]
        if name not in asked and len(name) > len("walker") and name in answer.text
    ]  # fmt: skip
    assert not told, f"{method} {path}: a stranger was told of {told[0]}"


def _judge_secrets(answers: list[Answer]) -> None:
    for answer in answers:
        if not answer.endpoint.endswith(HANDED_OUT):
            for secret in SECRET.findall(answer.body.decode()):
                raise AssertionError(f"{answer.endpoint} tells a secret: {secret[:12]}…")
