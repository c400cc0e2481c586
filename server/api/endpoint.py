"""The one decoder: from an ASGI request to a handler's arguments, and from its answer back."""

import time
from inspect import signature
from typing import TYPE_CHECKING, Annotated, Any, Final, get_args, get_origin, get_type_hints

import msgspec
from starlette.types import Receive, Scope, Send

from server.api import headers as read
from server.api.answer import NOTHING, send_answer, send_problem, send_stream
from server.api.context import Caller, Context, EventStream
from server.api.decode import BodyDecoder
from server.api.query import QueryDecoder, refuse_parameters, shown_ticket
from server.api.route import Route
from server.api.shape import plain_types, struct_fields
from server.api.tally import requests
from server.contract.base import Patch
from server.errors import Problem, unfit
from server.rules.ids import is_id
from server.telemetry import AuthFailed, RequestFailed, occur

if TYPE_CHECKING:
    from server.api.services import Services

NOBODY: Final = Caller("", "", "", "", "", False, None, None, "", "", "http")
CLIENT_CLOSED_STATUS: Final = 499


class ClientGone(Exception):  # noqa: N818 - nothing is wrong; there is nobody to answer
    """The client left before its request was whole."""


class Endpoint:
    """A route, compiled."""

    def __init__(self, route: Route, services: "Services") -> None:
        self.route = route
        self._services = services
        self._identity = services.identity
        self._public_url = services.config.url
        hints = get_type_hints(route.handler, include_extras=True)
        names = list(signature(route.handler).parameters)[1:]
        # Path ids come in the order of the path, each with the code that an unfit one answers.
        self._ids = tuple(
            (name, get_args(hints[name])[1])
            for name in names
            if get_origin(hints[name]) is Annotated
        )
        self._query = QueryDecoder(hints["query"]) if "query" in hints else None
        struct = hints.get("body")
        self._body = BodyDecoder(struct) if struct else None
        fields = struct.__struct_fields__ if struct else ()
        self._takes_token = "claim_token" in fields
        self._takes_key = "idempotency_key" in fields
        self._is_patch = struct is not None and issubclass(struct, Patch)
        self._has_conditions = self._takes_token or route.keyed or route.guarded or self._is_patch
        self._selector = _selector(struct) if struct else None

    async def serve(self, scope: Scope, receive: Receive, send: Send, ids: list[str]) -> None:
        """Answers one request."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        request_id = read.request_id(headers)
        route = self.route
        began = time.perf_counter()
        requests.in_flight += 1
        status = CLIENT_CLOSED_STATUS
        try:
            answer = await self._answer(scope, headers, receive, request_id, ids)
            if answer.__class__ is EventStream:
                status = 200
                fault = await send_stream(answer, scope, receive, send, request_id)
                if fault is not None:
                    occur(RequestFailed, request_id=request_id, route=route.path, error=fault)
            else:
                answer = answer or NOTHING
                status = answer.status or route.ok[0]
                packs = not route.agent
                await send_answer(answer, status, packs, scope, headers, send, request_id)
        except Problem as problem:
            status = problem.status
            if status == 401:
                occur(AuthFailed, request_id=request_id, route=route.path, reason=problem.code)
            await send_problem(problem, send, request_id, self._public_url)
        except ClientGone:
            pass
        except Exception as error:  # noqa: BLE001 - the last place where a fault can be told
            occur(RequestFailed, request_id=request_id, route=route.path, error=error)
            if status == CLIENT_CLOSED_STATUS:
                status = 500
                await send_problem(Problem("internal_error"), send, request_id, self._public_url)
        finally:
            requests.ended(route.method, route.path, status, time.perf_counter() - began)

    async def _answer(
        self,
        scope: Scope,
        headers: dict[bytes, bytes],
        receive: Receive,
        request_id: str,
        ids: list[str],
    ) -> Any:
        """Checks in the order of the contract, then calls the handler."""
        route, identity = self.route, self._identity
        caller: Caller | None = NOBODY
        visit = None
        if len(headers) < len(scope["headers"]):
            read.refuse_repeated(scope["headers"])
        if b"wl_key_" in scope["query_string"]:
            raise Problem("invalid_credentials", "A key has no place in an address.")
        ticket = shown_ticket(scope["query_string"]) if route.streams else None
        if ticket is not None:
            caller = await identity.ticket(scope, route, ticket)
        elif route.roles:
            caller = identity.recall(scope, headers, route.agent)
            if caller is None:
                visit = await identity.visit(scope, headers, route)
            else:
                route.admit(caller.role)
        arguments = self._path(ids)
        raw = b""
        body: Any = None
        if self._body is not None:
            raw = await self._read(headers, receive)
            body = arguments["body"] = self._body(raw or b"{}")
        if self._query is not None:
            arguments["query"] = self._query(scope["query_string"])
        elif scope["query_string"]:
            refuse_parameters(scope["query_string"])
        named = getattr(body, self._selector) if self._selector else None
        if named:
            visit = await identity.select(scope, headers, route, named)
        if visit is not None:
            caller = await identity.caller(visit, headers, route.agent)
        context = Context(
            self._services, route.action, request_id, scope, headers, receive, caller or NOBODY
        )
        context.body = raw
        if self._has_conditions:
            self._conditions(context, headers, body)
        return await route.handler(context, **arguments)

    def _path(self, ids: list[str]) -> dict[str, Any]:
        arguments: dict[str, Any] = {}
        for (name, code), value in zip(self._ids, ids, strict=True):
            if not is_id(value):
                raise Problem(code, id=value)
            arguments[name] = value
        return arguments

    async def _read(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        """The body, read no further than its limit."""
        limit = self.route.body_limit_bytes
        read.check_content(headers, limit)
        message = await receive()
        body: bytes = message.get("body", b"")
        if message.get("more_body"):
            body = await _rest(body, limit, receive)
        elif message["type"] == "http.disconnect":
            raise ClientGone
        if len(body) > limit:
            raise Problem("body_too_large", limit_bytes=limit)
        if not body and read.lost_body(headers):
            raise Problem("malformed_json", "The body is lost behind an Upgrade header.", offset=0)
        return body

    def _conditions(self, context: Context, headers: dict[bytes, bytes], body: Any) -> None:
        """Reads what may come as a header or as a field."""
        if self._takes_token and b"x-claim-token" in headers:
            token = headers[b"x-claim-token"].decode("latin-1").strip()
            body.claim_token = _either("claim_token", token, body.claim_token)
        if self.route.keyed:
            given = body.idempotency_key if self._takes_key else None
            key = read.idempotency_key(headers)
            context.idempotency_key = _either("idempotency_key", key, given)
        if self.route.guarded:
            context.guard = read.guard(headers)
        if self._is_patch:
            given = None if body.version is msgspec.UNSET else body.version
            context.if_match = _either("version", read.if_match(headers), given)
            body.version = msgspec.UNSET
            if all(value is msgspec.UNSET for value in msgspec.structs.astuple(body)):
                raise Problem("empty_patch")


async def _rest(body: bytes, limit: int, receive: Receive) -> bytes:
    parts = bytearray(body)
    more = True
    while more and len(parts) <= limit:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        parts += message.get("body", b"")
        more = message.get("more_body", False)
    return bytes(parts)


def _selector(struct: type[msgspec.Struct]) -> str | None:
    """The field of a body that names the request's workspace."""
    for field in struct_fields(struct):
        if any(extra.get("selects") for _, extra in plain_types(field)):
            return field.encode_name
    return None


def _either(name: str, first: Any, second: Any) -> Any:
    """One value that may come in two places."""
    if first is None or second is None or first == second:
        return second if first is None else first
    raise unfit(name, "exclusive", "differs from the header")
