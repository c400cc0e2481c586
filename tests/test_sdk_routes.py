"""Every route has its method in the SDK, which says all that it takes and reads what it answers."""

import inspect
import re
from collections.abc import Callable, Iterator
from typing import (
    Any,
    Literal,
    NamedTuple,
    Unpack,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

import msgspec
import pytest

from agent_sdk import Client, Dependency, Event, Task, listen
from agent_sdk.api.reviews import Review, Verdict
from agent_sdk.api.runs import BulkRun
from agent_sdk.transport import Transport
from server.api.route import Route
from server.api.routes import ROUTES
from server.contract.base import Query, Request
from tests.shapes import object_of

# For other programs than agents: /tasks/{id}/stream is another name of /api/tasks/{id}/stream.
NOT_FOR_AGENTS = {"/metrics", "/openapi.json", "/docs/errors", "/tasks/x/stream"}
ITEMS: dict[Any, Any] = {
    Review: Review(review_id="x", task_id="x", run_id="x", status="requested"),
    Verdict: Verdict("approved", "good"),
}
# What `client.wait` adds, and what only some of the answers have that are read as these.
NOT_IN_ALL = {
    (BulkRun, "previous_run"),
    (Task, "error"),
    (Dependency, "result"),
    (Dependency, "result_bytes"),
    (Event, "sequence"),
}

# What the SDK says without being asked, or says in a header.
BY_ITSELF = {"idempotency_key", "fence", "run_id", "workspace", "workspace_id"}
# Second names, and what has one value only.
NOT_SAID = {
    "/api/agent/tasks/claim-next": {"required_capabilities", "wait"},
    "/api/tasks/x/dependencies": {"kind"},
    "/api/tasks/x/execution-profile": {"created_at", "updated_at"},
    "/api/tasks/x/stream": {"ticket"},
    "/api/observe/stream": {"ticket"},
    "/api/task-runs/x/reviews": {"task_id"},
    "/api/tasks/x/notifications/bridges": {"scope"},
}


class SentError(Exception):
    """A request would have been sent: its method and path, and what its answer is read as."""


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client whose calls end where they would be sent."""

    def call(_: Transport, into: Any, method: str, path: str, **how: Any) -> Any:
        raise SentError(method, path, into)

    def send(_: Transport, method: str, path: str, **how: Any) -> Any:
        raise SentError(method, path, None)

    def stream(_: Transport, path: str, **how: Any) -> Any:
        raise SentError("GET", path, None)

    for double in (call, send, stream):
        monkeypatch.setattr(Transport, double.__name__, double)
    with Client("http://127.0.0.1:1", api_key="k", agent_name="a") as made:
        yield made


def _methods(client: Client) -> Iterator[Callable[..., Any]]:
    yield from (client.whoami, client.stream_ticket, client.healthz, client.readyz, client.version)
    for noun in vars(client).values():
        if hasattr(noun, "_transport"):
            methods = inspect.getmembers(noun, inspect.ismethod)
            yield from (method for name, method in methods if not name.startswith("_"))


class Sent(NamedTuple):
    """What a method of the SDK sends."""

    by: Callable[..., Any]
    method: str
    path: str
    read: Any


def _sent(client: Client) -> Iterator[Sent]:
    """What each method sends, with each verb where it takes one."""
    for method in _methods(client):
        required = _required(method)
        hints = required.values()
        verbs = next((get_args(hint) for hint in hints if get_origin(hint) is Literal), ("x",))
        for verb in verbs:
            told = {p: ITEMS.get(h, verb if get_origin(h) else "x") for p, h in required.items()}
            named = {p.name: told.pop(p) for p in required if p.kind == p.KEYWORD_ONLY}
            with pytest.raises(SentError) as sent:
                list(method(*told.values(), **named))  # a stream begins when it is read
            yield Sent(method, *sent.value.args)


def _required(method: Callable[..., Any]) -> dict[inspect.Parameter, Any]:
    """The parameters that must be given, with their types."""
    hints = get_type_hints(method)
    return {
        parameter: hints[parameter.name]
        for parameter in inspect.signature(method).parameters.values()
        if parameter.default is parameter.empty and parameter.kind != parameter.VAR_KEYWORD
    }


def _routes() -> dict[tuple[str, str], Route]:
    named = {(route.method, re.sub(r"{\w+}", "x", route.path)): route for route in ROUTES}
    return {key: route for key, route in named.items() if key[1] not in NOT_FOR_AGENTS}


def test_every_route_has_a_method(client: Client) -> None:
    sent = {(call.method, call.path) for call in _sent(client)}
    assert set(_routes()) ^ sent == {("GET", listen.PATH)}


def test_whatever_the_sdk_reads_of_an_answer_is_in_it(client: Client) -> None:
    routes = _routes()
    for _, method, path, read in _sent(client):
        if read is not None and (method, path) in routes:
            (told,) = get_args(get_type_hints(routes[method, path].handler)["return"])
            assert set(_unknown(read, told)) - NOT_IN_ALL == set(), (method, path)


def test_whatever_a_route_takes_can_be_said(client: Client) -> None:
    said: dict[tuple[str, str], set[str]] = {}
    for by, method, path, _ in _sent(client):
        said.setdefault((method, path), set()).update(_parameters(by))
    for place, names in said.items():
        if route := _routes().get(place):
            assert _taken(route) - names - BY_ITSELF <= NOT_SAID.get(place[1], set()), place


def _parameters(method: Callable[..., Any]) -> Iterator[str]:
    yield from inspect.signature(method).parameters
    for hint in get_type_hints(method).values():
        kind = get_args(hint)[0] if get_origin(hint) is Unpack else hint
        if is_typeddict(kind):
            yield from kind.__annotations__


def _taken(route: Route) -> set[str]:
    """The fields of the route's query and body."""
    hints = get_type_hints(route.handler)
    takes = [h for h in hints.values() if isinstance(h, type) and issubclass(h, (Query, Request))]
    return {field.encode_name for kind in takes for field in msgspec.structs.fields(kind)}


def _unknown(read: Any, told: Any) -> Iterator[tuple[Any, str]]:
    """The fields that are read, and are not in what is told."""
    reads, tells = object_of(read), object_of(told)
    if reads is None or tells is None:
        return
    known = {field.name: field.type for field in msgspec.structs.fields(tells)}
    for field in msgspec.structs.fields(reads):
        if field.name in known:
            yield from _unknown(field.type, known[field.name])
        else:
            yield reads, field.name
