"""Tasks: what is to be done."""

import time
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from server import limits
from server.api.context import Context, TaskId
from server.api.holding import guard
from server.api.paging import pages
from server.contract.base import Encoded, to_json
from server.contract.leases import WEIGHTS
from server.contract.profiles import ExecutionProfileInput
from server.contract.runs import CancelRequest, RunResponse, StartRequest
from server.contract.tasks import (
    ChildCreateRequest,
    TaskCreateRequest,
    TaskDetailResponse,
    TaskListQuery,
    TaskListResponse,
    TaskPatchRequest,
    TaskResponse,
    TaskRunResponse,
)
from server.errors import Problem
from server.rules.ids import new_id
from server.store import tasks
from server.store.base import Changed, Started

LISTED: Final = {
    "activity": tasks.list_tasks_by_activity,
    "created": tasks.list_tasks_by_creation,
}


async def list_tasks(ctx: Context, query: TaskListQuery) -> Encoded[TaskListResponse]:
    """Lists tasks, the most recently active first."""
    after_at, after_id = ctx.after(query) or ("infinity", "")
    filters = msgspec.structs.asdict(query)
    del filters["cursor"]
    filters["limit"] = query.reach
    filters["roots"] = query.parent_task_id == "none"
    if query.priority is not None:
        filters["priority"] = [WEIGHTS[name] for name in query.priority]
    listed = LISTED[query.sort]
    if query.parent_task_id not in (None, "none"):
        listed = tasks.list_children
    rows = await listed(
        ctx.services.db, workspace_id=ctx.workspace_id, after_at=after_at, after_id=after_id,
        **filters,
    )  # fmt: skip
    return pages(ctx, query, "tasks", rows)


async def create_task(ctx: Context, body: TaskCreateRequest) -> Encoded[TaskResponse]:
    """Makes a task, with its edges and demands."""
    return await _create(ctx, body, None)


async def create_child(
    ctx: Context, task_id: TaskId, body: ChildCreateRequest
) -> Encoded[TaskResponse]:
    """Makes a child of a task."""
    return await _create(ctx, body, task_id)


async def _create(
    ctx: Context, body: TaskCreateRequest | ChildCreateRequest, parent_task_id: str | None
) -> Encoded[TaskResponse]:
    told: dict[str, Any] = msgspec.json.decode(to_json(body), type=dict[str, msgspec.Raw])
    told.pop("workspace", None)
    task_id = new_task_id() if body.id is UNSET else body.id
    told |= {"n": 0, "id": task_id}
    if parent_task_id is not None:
        told["parent_task_id"] = parent_task_id
    check_depends_on(task_id, [] if body.depends_on is UNSET else body.depends_on, {})
    check_slots(told, "", {})
    check_profile(task_id, body.execution_profile, "", {})
    try:
        made = await tasks.create_tasks(
            ctx.services.db,
            workspace_id=ctx.workspace_id,
            cause=ctx.cause,
            tasks=msgspec.json.encode([told]).decode(),
            guard=guard(ctx),
            bulk=False,
            key=ctx.idempotency_key,
            request_hash=ctx.key_hash,
        )
    except Problem as problem:
        # Where it stands in the request says nothing when it stands alone.
        problem.evidence.pop("index", None)
        raise
    ctx.services.hub.changed(ctx.workspace_id, made.offers)
    return Encoded(made.body.encode(), version=made.version, replayed=made.replayed)


def new_task_id() -> str:
    """An id for a task whose maker chose none."""
    return new_id("task", time.time_ns() // 1_000_000)


def check_depends_on(task_id: str, depends_on: list[str], place: dict[str, Any]) -> None:
    """Refuses edges that no task can have; place: where in a request of many it stands."""
    limit = limits.DEPENDENCIES_PER_TASK_COUNT
    if len(depends_on) > limit:
        raise Problem("dependency_limit", limit=limit, count=len(depends_on), **place)
    if task_id in depends_on:
        raise Problem("dependency_self", task_id=task_id, **place)
    if len(set(depends_on)) < len(depends_on):
        twice = next(d for at, d in enumerate(depends_on) if d in depends_on[:at])
        raise Problem("dependency_exists", id=twice, **place)


def check_slots(fields: dict[str, Any], prefix: str, place: dict[str, Any]) -> None:
    """Refuses a limit without a key; a key without a limit gets one slot."""
    if "concurrency_key" in fields:
        fields.setdefault("concurrency_limit", 1)
    elif "concurrency_limit" in fields:
        fault = {"field": f"{prefix}concurrency_limit", "rule": "requires",
                 "message": "requires concurrency_key"}  # fmt: skip
        raise Problem("validation_failed", errors=[fault], **place)


def check_profile(
    task_id: str, profile: ExecutionProfileInput | UnsetType, prefix: str, place: dict[str, Any]
) -> None:
    """Refuses a profile that says it is another task's."""
    if profile is not UNSET and profile.task_id not in (None, task_id):
        fault = {"field": f"{prefix}execution_profile.task_id", "rule": "match",
                 "message": "is not the task that is made"}  # fmt: skip
        raise Problem("validation_failed", errors=[fault], **place)


async def get_task(ctx: Context, task_id: TaskId) -> Encoded[TaskDetailResponse]:
    """Shows a task with all that surrounds it."""
    found = await tasks.get_task(ctx.services.db, ctx.workspace_id, task_id)
    if found is None:
        raise Problem("task_not_found", id=task_id)
    return Encoded(found[0].encode(), version=found[1])


async def patch_task(
    ctx: Context, task_id: TaskId, body: TaskPatchRequest
) -> Encoded[TaskResponse]:
    """Changes the fields that the body names."""
    changed = await tasks.patch_task(
        ctx.services.db,
        workspace_id=ctx.workspace_id,
        cause=ctx.cause,
        task_id=task_id,
        changes=to_json(body),
        version=ctx.if_match,
    )
    return changed_task(ctx, changed)


async def delete_task(ctx: Context, task_id: TaskId) -> None:
    """Removes a task that has no children and no open run; its events stay."""
    offers = await tasks.delete_task(ctx.services.db, ctx.workspace_id, ctx.cause, task_id)
    ctx.services.hub.changed(ctx.workspace_id, offers)


async def cancel_task(ctx: Context, task_id: TaskId, body: CancelRequest) -> Encoded[TaskResponse]:
    """Cancels a task and all below it."""
    changed = await tasks.cancel_task(
        ctx.services.db,
        workspace_id=ctx.workspace_id,
        cause=ctx.cause,
        role=ctx.caller.role,
        task_id=task_id,
        reason=body.reason,
        metadata=body.metadata.text if body.metadata else None,
    )
    return changed_task(ctx, changed)


async def start_task(ctx: Context, task_id: TaskId, body: StartRequest) -> Encoded[TaskRunResponse]:
    """Queues a run of a task that waits for nothing."""
    return task_and_run(ctx, await _start(ctx, task_id, body, "start"))


async def enqueue_run(ctx: Context, task_id: TaskId, body: StartRequest) -> Encoded[RunResponse]:
    """Queues a run; on a blocked task it waits for the gates."""
    made = await _start(ctx, task_id, body, "enqueue")
    ctx.services.hub.changed(ctx.workspace_id, made.offers)
    return Encoded(f'{{"run":{made.run}}}'.encode(), replayed=made.replayed)


def changed_task(ctx: Context, changed: Changed) -> Encoded[Any]:
    """Tells others of a transition; its answer."""
    ctx.services.hub.changed(ctx.workspace_id, changed.offers)
    return Encoded(changed.body.encode(), version=changed.version)


def task_and_run(ctx: Context, made: Started) -> Encoded[TaskRunResponse]:
    """Tells others of what may have queued a run; its answer."""
    ctx.services.hub.changed(ctx.workspace_id, made.offers)
    told = f'{{"task":{made.task},"run":{made.run or "null"}}}'
    return Encoded(told.encode(), version=made.version, replayed=made.replayed)


async def _start(ctx: Context, task_id: str, body: StartRequest, reason: str) -> Started:
    return await tasks.start_task(
        ctx.services.db,
        workspace_id=ctx.workspace_id,
        cause=ctx.cause,
        role=ctx.caller.role,
        task_id=task_id,
        reason=reason,
        channel=body.network_channel,
        metadata=body.metadata.text if body.metadata else None,
        key=ctx.idempotency_key,
        request_hash=ctx.key_hash,
    )
