"""The OpenAPI document: exactly the table of routes and the Structs of its handlers."""

import re
from functools import cache
from importlib.metadata import version
from inspect import getdoc
from typing import Any, Final, get_args, get_type_hints

import msgspec

from server.api.context import EventStream
from server.api.route import LETTERS, Route
from server.api.routes import ROUTES
from server.codes import CODES
from server.contract.base import Encoded, ErrorEnvelope, FreeJson

REF: Final = "#/components/schemas/{name}"
PLACE: Final = re.compile(r"{(\w+)}")
ROLES: Final = {letter: role for role, letter in LETTERS.items()}
WORDS: Final = {201: "Made.", 204: "Done; no body.", 503: "Not ready."}

EVERY: Final = (
    "invalid_query", "head_too_large", "internal_error", "shutting_down", "database_unavailable",
)  # fmt: skip
KNOWN: Final = (
    "authentication_required", "invalid_credentials", "forbidden", "identity_mismatch",
    "workspace_not_found", "rate_limited",
    # Two workspaces are named.
    "validation_failed",
)  # fmt: skip
WITH_BODY: Final = (
    "malformed_json", "body_too_large", "value_too_large", "unsupported_media_type",
    "unknown_field", "immutable_field", "secret_in_json",
)  # fmt: skip
KEYED: Final = ("idempotency_in_progress", "idempotency_key_reused")
GUARDED: Final = (
    "run_not_found", "foreign_run", "invalid_claim_token", "stale_fence", "no_active_lease",
    "lease_expired", "lease_released", "run_canceled", "task_run_already_terminal",
    "identity_required",
)  # fmt: skip


@cache
def document() -> dict[str, Any]:
    """The whole document."""
    structs = sorted({s for route in ROUTES for s in _structs(route)}, key=lambda s: s.__name__)
    _, schemas = msgspec.json.schema_components(structs, schema_hook=_free_json, ref_template=REF)
    paths: dict[str, Any] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Worklease",
            "version": version("worklease"),
            "description": "Lease-based coordination server for agent workers.",
        },
        "security": [{"bearer": []}, {"key": []}],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def document_json() -> bytes:
    """The document as it is served."""
    return msgspec.json.encode(document())


def document_yaml() -> str:
    """The document as it is kept in the repository."""
    return "\n".join(_yaml(document(), "")) + "\n"


def _structs(route: Route) -> set[Any]:
    hints = get_type_hints(route.handler)
    named = {ErrorEnvelope, hints.get("body"), _answer(hints)}
    return {kind for kind in named if _is_struct(kind)}


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _answer(hints: dict[str, Any]) -> Any:
    """The Struct of an answer; EventStream for a stream, None where there is no body."""
    told = hints["return"]
    return get_args(told)[0] if getattr(told, "__origin__", None) is Encoded else None


def _free_json(kind: type) -> dict[str, Any]:
    if not issubclass(kind, FreeJson):
        raise NotImplementedError(kind.__name__)
    return {"description": f"Any JSON value of at most {kind.limit_bytes} bytes."}


def _operation(route: Route) -> dict[str, Any]:
    hints = get_type_hints(route.handler, include_extras=True)
    summary = (getdoc(route.handler) or "").partition("\n")[0]
    told: dict[str, Any] = {"summary": summary, "operationId": _operation_id(route)}
    if route.roles:
        told["description"] = "Roles: " + ", ".join(ROLES[letter] for letter in route.roles) + "."
    else:
        told["security"] = []
    parameters = [*_path_parameters(route), *_query_parameters(route, hints), *_headers(route)]
    if parameters:
        told["parameters"] = parameters
    if "body" in hints:
        schema = {"$ref": REF.format(name=hints["body"].__name__)}
        told["requestBody"] = {"content": {"application/json": {"schema": schema}}}
    told["responses"] = _responses(route, hints)
    return told


def _operation_id(route: Route) -> str:
    # A path may be an alias of another; the handler's name alone would then stand twice.
    place = "" if route.path.startswith("/api/") or "{" not in route.path else "_alias"
    return route.handler.__name__ + place


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in PLACE.findall(route.path)
    ]


def _query_parameters(route: Route, hints: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    if "query" in hints:
        _, schemas = msgspec.json.schema_components([hints["query"]], ref_template=REF)
        for name, schema in schemas[hints["query"].__name__]["properties"].items():
            told: dict[str, Any] = {"name": name, "in": "query", "schema": schema}
            if any(part.get("type") == "array" for part in schema.get("anyOf", [schema])):
                told |= {"style": "form", "explode": False}
            found.append(told)
    if route.roles:
        found.append({"name": "workspace", "in": "query", "schema": {"type": "string"}})
    return found


def _headers(route: Route) -> list[dict[str, Any]]:
    names = {
        "X-Session-ID": route.agent,
        "Idempotency-Key": route.keyed,
        "X-Run-ID": route.guarded,
        "X-Claim-Token": route.guarded,
        "If-Match": route.method == "PATCH",
    }
    return [
        {"name": name, "in": "header", "required": name == "X-Session-ID",
         "schema": {"type": "string"}}
        for name, taken in names.items() if taken
    ]  # fmt: skip


def _responses(route: Route, hints: dict[str, Any]) -> dict[str, Any]:
    answer = _answer(hints)
    told: dict[int, Any] = {}
    for status in route.ok:
        told[status] = {"description": WORDS.get(status, "Done.")}
        told[status]["headers"] = {"X-Request-ID": {"schema": {"type": "string"}}}
        if route.method == "PATCH":
            told[status]["headers"]["ETag"] = {"schema": {"type": "string"}}
        if hints["return"] is EventStream:
            told[status]["content"] = {"text/event-stream": {"schema": {"type": "string"}}}
        elif status != 204:
            told[status]["content"] = {route.media_type: {"schema": _schema(answer)}}
    for status, codes in sorted(_errors(route, hints).items()):
        content = {"application/json": {"schema": {"$ref": REF.format(name="ErrorEnvelope")}}}
        if status not in told:
            told[status] = {"description": ", ".join(codes), "content": content}
    return {str(status): told[status] for status in sorted(told)}


def _schema(answer: Any) -> dict[str, Any]:
    if _is_struct(answer):
        return {"$ref": REF.format(name=answer.__name__)}
    return {"type": "string" if answer is str else "object"}


def _errors(route: Route, hints: dict[str, Any]) -> dict[int, list[str]]:
    codes = {*EVERY, *route.errors}
    codes |= set(KNOWN) if route.roles else set()
    codes |= {"identity_required"} if route.agent else set()
    codes |= {"forbidden_operator_action"} if route.operator else set()
    codes |= set(WITH_BODY) if "body" in hints else set()
    codes |= {"invalid_cursor"} if "cursor" in _query_names(hints) else set()
    codes |= {"empty_patch", "version_mismatch"} if route.method == "PATCH" else set()
    codes |= set(KEYED) if route.keyed else set()
    codes |= set(GUARDED) if route.guarded else set()
    by_status: dict[int, list[str]] = {}
    for code in sorted(codes):
        by_status.setdefault(CODES[code].status, []).append(code)
    return by_status


def _query_names(hints: dict[str, Any]) -> tuple[str, ...]:
    return hints["query"].__struct_fields__ if "query" in hints else ()


def _yaml(value: Any, indent: str) -> list[str]:
    """A value in YAML's block style; scalars are JSON, which YAML reads as it is."""
    lines: list[str] = []
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            key = name if re.fullmatch(r"[A-Za-z_$/][\w$/{}.-]*", name) else _scalar(name)
            lines += _entry(f"{indent}{key}:", inner, indent + "  ")
    elif isinstance(value, list) and value:
        for inner in value:
            lines += _entry(f"{indent}-", inner, indent + "  ")
    return lines


def _entry(head: str, value: Any, indent: str) -> list[str]:
    if isinstance(value, dict | list) and value:
        return [head, *_yaml(value, indent)]
    return [f"{head} {_scalar(value)}"]


def _scalar(value: Any) -> str:
    return msgspec.json.encode(value).decode()
