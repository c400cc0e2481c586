"""Inspect: what a task or run looks like, what is wrong with it, and what to do next."""

import msgspec

from server.api.context import Context, RunId, TaskId
from server.contract.base import Encoded
from server.contract.inspect import InspectResponse
from server.errors import Problem
from server.rules.inspect import FINDINGS, Facts, codes, evidence, is_expected, next_action
from server.store.inspect import read_inspection


async def inspect_task(ctx: Context, task_id: TaskId) -> Encoded[InspectResponse]:
    """Shows what is wrong with a task, and what to do next."""
    ttl = ctx.services.config.session_ttl_seconds
    found = await read_inspection(ctx.services.db, ctx.workspace_id, task_id, None, ttl)
    if found is None:
        raise Problem("task_not_found", id=task_id)
    return _told(ctx, found)


async def inspect_run(ctx: Context, run_id: RunId) -> Encoded[InspectResponse]:
    """Shows what is wrong with a run, and what to do next."""
    ttl = ctx.services.config.session_ttl_seconds
    found = await read_inspection(ctx.services.db, ctx.workspace_id, None, run_id, ttl)
    if found is None:
        raise Problem("run_not_found", id=run_id)
    return _told(ctx, found)


def _told(ctx: Context, found: str) -> Encoded[InspectResponse]:
    facts = msgspec.json.decode(found, type=Facts)
    expected = is_expected(facts)
    wrong = list(codes(facts, expected))
    diagnostics = [
        {
            "id": f"task.inspect.{code}.{facts.run_id}",
            "code": code,
            "severity": FINDINGS[code].severity,
            "category": "run",
            "title": FINDINGS[code].title,
            "message": FINDINGS[code].message,
            "suggested_command": None,
            "doc_url": f"{ctx.services.config.url}/docs/errors#{code}",
            "data_freshness": "live",
            "evidence": evidence(facts, code),
        }
        for code in wrong
    ]
    told = {"diagnostics": diagnostics, "next_action": next_action(facts, wrong, expected)}
    return Encoded(msgspec.json.encode({"inspect": {**facts.shown, **told}}))
