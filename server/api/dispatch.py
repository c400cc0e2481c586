"""From a path to its endpoint: the whole of the server's routing."""

import time
from typing import TYPE_CHECKING, Final

from starlette.types import Receive, Scope, Send

from server.api import headers as read
from server.api.answer import send_problem
from server.api.endpoint import Endpoint
from server.api.route import Route
from server.api.tally import requests
from server.errors import Problem

if TYPE_CHECKING:
    from server.api.services import Services


class Node:
    """A place in the tree of paths: fixed parts win over a parameter."""

    __slots__ = ("endpoints", "fixed", "parameter")

    def __init__(self) -> None:
        self.fixed: dict[str, Node] = {}
        self.parameter: Node | None = None
        self.endpoints: dict[str, Endpoint] = {}


NOWHERE: Final = Node()


class Dispatcher:
    """The ASGI application of all routes."""

    def __init__(self, routes: tuple[Route, ...], services: "Services") -> None:
        self.services = services
        self._root = Node()
        for route in routes:
            self._add(route, Endpoint(route, services))

    def _add(self, route: Route, endpoint: Endpoint) -> None:
        node = self._root
        for part in route.path.split("/"):
            if part.startswith("{"):
                node.parameter = node.parameter or Node()
                node = node.parameter
            else:
                node = node.fixed.setdefault(part, Node())
        if route.method in node.endpoints:
            raise ValueError(f"two routes for {route.method} {route.path}")
        node.endpoints[route.method] = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ids: list[str] = []
        node = self._root
        for part in scope["path"].split("/"):
            inner = node.fixed.get(part)
            if inner is None:
                ids.append(part)
                inner = node.parameter or NOWHERE
            node = inner
        method = scope["method"]
        endpoints = node.endpoints
        endpoint = endpoints.get("GET" if method == "HEAD" else method)
        if endpoint is not None:
            await endpoint.serve(scope, receive, send, ids)
            return
        if endpoints:
            allowed = sorted({*endpoints, *(("HEAD",) if "GET" in endpoints else ())})
            problem = Problem("method_not_allowed", allowed=allowed)
        else:
            problem = Problem("route_not_found", path=scope["path"])
        requests.in_flight += 1
        began = time.perf_counter()
        try:
            request_id = read.request_id(dict(scope["headers"]))
            await send_problem(problem, send, request_id, self.services.config.url)
        finally:
            # Neither the path nor the method of such a call has bounds.
            requests.ended("", "", problem.status, time.perf_counter() - began)
