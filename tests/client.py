"""A client that holds every answer of a server against the contract."""

import re
from functools import cache
from typing import Any, Self, get_args, get_origin, get_type_hints

import httpx2
import msgspec

from server.api.context import EventStream
from server.api.openapi import document
from server.api.route import Route
from server.api.routes import ROUTES
from server.contract.base import Encoded, ErrorEnvelope

TIMEOUT_SECONDS = 90


class RefusedError(Exception):
    """An answer of status 400 or more."""

    def __init__(self, answer: httpx2.Response) -> None:
        self.answer = answer
        self.envelope = msgspec.json.decode(answer.content, type=ErrorEnvelope)
        self.status = answer.status_code
        self.code = self.envelope.diagnostic.code
        self.evidence = self.envelope.diagnostic.evidence
        super().__init__(f"{self.status} {self.code} {self.evidence}")


def connections(url: str) -> httpx2.Client:
    """Connections to one server, for any number of clients."""
    limits = httpx2.Limits(max_connections=200, max_keepalive_connections=100)
    return httpx2.Client(base_url=url, timeout=TIMEOUT_SECONDS, trust_env=False, limits=limits)


class Client:
    """A caller: sends the same headers each time; `last` is the newest answer it got."""

    last: httpx2.Response

    def __init__(self, http: httpx2.Client, key: str, **headers: str) -> None:
        self.http, self.key = http, key
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self._sent = {"Content-Type": "application/json", **self.headers}
        if key:
            self._sent["Authorization"] = f"Bearer {key}"

    def also(self, **headers: str) -> Self:
        """The same caller with further headers."""
        return type(self)(self.http, self.key, **self.headers | headers)

    def sent(self) -> dict[str, str]:
        """The headers of each request."""
        return dict(self._sent)

    def get(self, path: str, **query: Any) -> Any:
        """Reads; None leaves a parameter out."""
        told = {name: value for name, value in query.items() if value is not None}
        return self.send("GET", path, params=told)

    def post(self, path: str, key: str | None = None, /, **body: Any) -> Any:
        """Makes or does something, under an Idempotency-Key if one is given."""
        headers = {"Idempotency-Key": key} if key else {}
        return self.send("POST", path, content=msgspec.json.encode(body), headers=headers)

    def patch(self, path: str, **body: Any) -> Any:
        """Changes something."""
        return self.send("PATCH", path, content=msgspec.json.encode(body))

    def put(self, path: str, **body: Any) -> Any:
        """Replaces something."""
        return self.send("PUT", path, content=msgspec.json.encode(body))

    def delete(self, path: str) -> Any:
        """Removes something."""
        return self.send("DELETE", path)

    @property
    def replayed(self) -> bool:
        """Whether the newest answer was that of an earlier call."""
        return self.last.headers.get("Idempotent-Replayed") == "true"

    def send(self, method: str, path: str, **how: Any) -> Any:
        """The decoded answer; raises RefusedError. Both must keep to the contract."""
        headers = {**self._sent, **how.pop("headers", {})}
        self.last = answer = self.http.request(method, path, headers=headers, **how)
        return checked(method, path, answer)


def checked(method: str, path: str, answer: httpx2.Response) -> Any:
    """The answer as the Struct of its route; raises RefusedError if it is an error."""
    assert "Date" in answer.headers
    assert answer.headers["X-Request-ID"]
    route = _route(method, path.partition("?")[0])
    if answer.status_code >= 400 and (route is None or answer.status_code not in route.ok):
        refused = RefusedError(answer)
        assert refused.envelope.error == refused.envelope.diagnostic.message
        wanted = f"{refused.code}.{answer.headers['X-Request-ID']}"
        assert refused.envelope.diagnostic.id == wanted
        assert route is None or refused.code in _documented(route, refused.status), refused
        raise refused
    assert route is not None
    assert answer.status_code in route.ok
    told = _decoded(route, answer)
    version = getattr(getattr(told, "task", None), "version", None)
    assert version is None or answer.headers.get("ETag") == f'"{version}"'
    return told


def _decoded(route: Route, answer: httpx2.Response) -> Any:
    kind = _answer(route)
    if answer.status_code == 204 or kind is None:
        assert (answer.status_code, answer.content) == (204, b"")
        return None
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return answer.text
    return msgspec.json.decode(answer.content, type=kind)


@cache
def _answer(route: Route) -> Any:
    told = get_type_hints(route.handler)["return"]
    if get_origin(told) is Encoded:
        return get_args(told)[0]
    return None if told is type(None) else EventStream


@cache
def _documented(route: Route, status: int) -> list[str]:
    answers = document()["paths"][route.path][route.method.lower()]["responses"]
    told: str = answers.get(str(status), {"description": ""})["description"]
    return told.split(", ")


@cache
def _patterns() -> list[tuple[re.Pattern[str], Route]]:
    # Fixed parts win over parameters: of several that fit, the one with the fewest parameters.
    routes = sorted(ROUTES, key=lambda route: route.path.count("{"))
    return [(re.compile(re.sub(r"{\w+}", "[^/]+", route.path)), route) for route in routes]


def _route(method: str, path: str) -> Route | None:
    method = "GET" if method == "HEAD" else method
    fits = (r for form, r in _patterns() if r.method == method and form.fullmatch(path))
    return next(fits, None)
