"""The scheduler: stops and resumes all claims, of one workspace or of all."""

import asyncio
import time
from contextlib import suppress
from datetime import datetime
from typing import Final

from server import limits
from server.api.context import EVERY_WORKSPACE, Context, leaving
from server.api.feed import pause
from server.contract.base import Encoded
from server.contract.scheduler import (
    BacklogQuery,
    BacklogResponse,
    DrainRequest,
    DrainResult,
    SchedulerReasonRequest,
    SchedulerResponse,
)
from server.store import scheduler
from server.store.scheduler import Drained

DRAIN_REASON: Final = "scheduler drain"
# A drain looks when something happens, but not more often, and after a while in any case.
LOOK_EVERY_SECONDS: Final = 0.1
LOOK_AGAIN_SECONDS: Final = 2.0


async def get_scheduler(ctx: Context) -> Encoded[SchedulerResponse]:
    """Shows whether claims are stopped, and the numbers of the queue."""
    return _shown(await scheduler.read_scheduler(ctx.services.db, _reach(ctx)))


async def get_backlog(ctx: Context, query: BacklogQuery) -> Encoded[BacklogResponse]:
    """Lists the queued runs in the order in which they are claimed."""
    after_at, after_id = ctx.after(query) or ("-infinity", "")
    rows, total = await scheduler.read_backlog(
        ctx.services.db, workspace_id=_reach(ctx), include_paused=query.include_paused,
        after_at=after_at, after_id=after_id, limit=query.reach,
    )  # fmt: skip
    shown, more = rows[: query.limit], len(rows) > query.limit
    cursor = f'"{ctx.cursor(query, *shown[-1][1:])}"' if more else "null"
    runs = ",".join(row[0] for row in shown)
    told = f'{{"backlog":{{"runs":[{runs}],"total":{total}}},"next_cursor":{cursor}}}'
    return Encoded(told.encode())


async def pause_scheduler(ctx: Context, body: SchedulerReasonRequest) -> Encoded[SchedulerResponse]:
    """Stops all claims: once this is answered, none commits. Held leases go on."""
    status = await scheduler.pause_scheduler(ctx.services.db, _reach(ctx), ctx.cause, body.reason)
    ctx.services.hub.changed(_reach(ctx), 0)
    return _shown(status)


async def resume_scheduler(
    ctx: Context, body: SchedulerReasonRequest
) -> Encoded[SchedulerResponse]:
    """Lets claims go on. A workspace stays paused while all workspaces are."""
    status, offers = await scheduler.resume_scheduler(
        ctx.services.db, _reach(ctx), ctx.cause, body.reason
    )
    ctx.services.hub.changed(_reach(ctx), offers)
    return _shown(status)


async def drain_scheduler(ctx: Context, body: DrainRequest) -> Encoded[DrainResult]:
    """Stops all claims, and waits for those that are held; the answer comes after 55 s at most."""
    reason = body.reason or DRAIN_REASON
    started_at = await scheduler.start_drain(ctx.services.db, _reach(ctx), ctx.cause, reason)
    ctx.services.hub.changed(_reach(ctx), 0)
    seconds = min(body.timeout_seconds, limits.DRAIN_ANSWER_SECONDS)
    async with leaving(ctx) as gone:
        told = await _drained(ctx, started_at, seconds, gone)
    ctx.services.hub.changed(_reach(ctx), 0)
    return Encoded(told.body.encode())


async def _drained(
    ctx: Context, started_at: datetime, seconds: float, gone: "asyncio.Task[None]"
) -> Drained:
    """How a drain stands when it is over, or when time is up; holds no connection meanwhile."""
    services, ends = ctx.services, time.monotonic() + seconds
    with services.hub.watch(_reach(ctx)) as news:
        gone.add_done_callback(lambda _: news.set())
        while True:
            news.clear()
            told = await scheduler.look_at_drain(services.db, _reach(ctx), ctx.cause, started_at)
            left = ends - time.monotonic()
            if told.over or left <= 0 or gone.done() or services.draining:
                return told
            with suppress(TimeoutError):
                await asyncio.wait_for(news.wait(), min(left, LOOK_AGAIN_SECONDS))
            await pause(min(left, LOOK_EVERY_SECONDS))


def _reach(ctx: Context) -> str:
    """The workspace that is meant, or all."""
    return EVERY_WORKSPACE if ctx.caller.every_workspace else ctx.workspace_id


def _shown(status: str) -> Encoded[SchedulerResponse]:
    return Encoded(f'{{"scheduler":{status}}}'.encode())
