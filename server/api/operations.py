"""What the server says about itself and about its caller."""

import hmac
import time
from importlib.metadata import version as version_of
from typing import Any

import msgspec

from server import limits, telemetry
from server.api.context import Context
from server.api.tally import requests
from server.contract.base import Encoded
from server.contract.operations import (
    AgeCheck,
    Checks,
    DatabaseCheck,
    HealthResponse,
    ReadyResponse,
    SchemaCheck,
    VersionResponse,
    WhoamiResponse,
)
from server.db.pool import Database
from server.db.schema import EXPECTED
from server.errors import Problem
from server.store.keys import whoami as read_whoami
from server.store.operations import Readiness, read_readiness

API_VERSION = 1


async def whoami(ctx: Context) -> Encoded[WhoamiResponse]:
    """Tells who the server takes the caller for."""
    caller = ctx.caller
    server_time, expires_at = await read_whoami(ctx.services.db, caller.key_id)
    told = {
        "role": caller.role,
        "key_id": caller.key_id,
        "key_name": caller.key_name,
        "agent_name": caller.agent_name,
        "session_id": caller.session_id,
        "workspace": {"id": caller.workspace_id, "name": caller.workspace_name},
        "actor": {"kind": caller.actor_kind, "ref": caller.actor_ref},
        "origin": {"kind": caller.origin_kind, "ref": ctx.action},
        "all_workspaces": caller.all_workspaces,
        "expires_at": expires_at,
        "server_version": version_of("worklease"),
        "server_time": server_time,
    }
    return Encoded(msgspec.json.encode({"whoami": told}))


async def healthz(ctx: Context) -> Encoded[HealthResponse]:
    """Says that the process serves; touches nothing."""
    return Encoded(b'{"status":"ok"}')


async def readyz(ctx: Context) -> Encoded[ReadyResponse]:
    """Says whether this process can do its work, and why not."""
    began = time.perf_counter()
    found = await _look(ctx.services.db)
    latency_ms = round((time.perf_counter() - began) * 1000, 3) if found else None
    notify = _age(ctx.services.notify_age_seconds(), limits.READY_NOTIFY_AGE_SECONDS)
    sweep = _age(found.sweep_age_seconds if found else None, limits.READY_SWEEP_AGE_SECONDS)
    database = DatabaseCheck(ok=found is not None, latency_ms=latency_ms)
    checks = Checks(database=database, schema=_schema(found), notify=notify, sweep=sweep)
    ready = database.ok and checks.schema.ok and not ctx.services.draining
    degraded = not (notify.ok and sweep.ok)
    body = msgspec.json.encode(ReadyResponse(ready=ready, degraded=degraded, checks=checks))
    return Encoded(body, status=200 if ready else 503)


async def version(ctx: Context) -> Encoded[VersionResponse]:
    """Says what runs here."""
    told = VersionResponse(
        name="worklease",
        version=version_of("worklease"),
        commit=None,
        api_version=API_VERSION,
        schema_version=EXPECTED,
    )
    return Encoded(msgspec.json.encode(told))


async def metrics(ctx: Context) -> Encoded[str]:
    """Shows the metrics in Prometheus' text form."""
    token = ctx.services.config.metrics_token
    if token is not None:
        shown = ctx.headers.get(b"authorization")
        if shown is None:
            raise Problem("authentication_required", "The metrics need their token.")
        if not hmac.compare_digest(shown, b"Bearer " + token.encode()):
            raise Problem("invalid_credentials", "The metrics token is not valid.")
    requests.tell()
    return Encoded(telemetry.exposition(), content_type=telemetry.CONTENT_TYPE.encode())


async def openapi(ctx: Context) -> Encoded[dict[str, Any]]:
    """Shows this description of the interface."""
    return Encoded(ctx.services.openapi)


async def _look(db: Database) -> Readiness | None:
    try:
        return await read_readiness(db)
    except Problem:
        return None


def _schema(found: Readiness | None) -> SchemaCheck:
    if found is None:
        return SchemaCheck(ok=False, version=None, compatible_from=None, expected=EXPECTED)
    return SchemaCheck(
        ok=found.compatible_from <= EXPECTED <= found.version,
        version=found.version,
        compatible_from=found.compatible_from,
        expected=EXPECTED,
    )


def _age(seconds: float | None, limit_seconds: float) -> AgeCheck:
    ok = seconds is not None and seconds <= limit_seconds
    return AgeCheck(ok=ok, age_seconds=None if seconds is None else round(seconds, 3))
