"""Many of one kind in one request: tasks to create, leases to renew or end."""

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from server import limits
from server.contract.base import (
    Answer,
    BudgetRemaining,
    ErrorEnvelope,
    FieldError,
    FreeJson,
    Identifier,
    Request,
    Time,
)
from server.contract.leases import (
    Claim,
    ClaimWish,
    HeartbeatRequest,
    Lease,
    LeaseWork,
    StopReason,
)
from server.contract.references import TaskStatus
from server.contract.tasks import TaskFields
from server.errors import Problem

Ref = Annotated[str, Meta(min_length=1, max_length=128)]
Refs = list[Ref]


class TaskBulkItemResult(Answer):
    """What was made of one item."""

    ref: str
    id: str
    status: TaskStatus
    run_id: str | None


class TaskBulkResponse(Answer):
    """What was made of each item, in input order."""

    ids: dict[str, str]
    tasks: list[TaskBulkItemResult]
    count: int


class TaskDefaults(TaskFields):
    """Fields for every item that does not set them itself."""

    parent_task_id: Identifier | UnsetType = UNSET


class TaskBulkItem(TaskFields, kw_only=True):
    """One new task of many; refs name items of the same request."""

    id: Identifier | UnsetType = UNSET
    parent_task_id: Identifier | UnsetType = UNSET
    ref: Ref
    parent_ref: Ref | UnsetType = UNSET
    depends_on_refs: Refs | UnsetType = UNSET


class TaskBulkRequest(Request):
    """Many new tasks, all or none of them."""

    tasks: Annotated[
        list[TaskBulkItem], Meta(min_length=1, extra={"most": limits.TASKS_PER_BULK_COUNT})
    ]
    defaults: TaskDefaults | None = None

    def __post_init__(self) -> None:
        if len(self.tasks) > limits.TASKS_PER_BULK_COUNT:
            count = len(self.tasks)
            raise Problem("bulk_too_large", limit=limits.TASKS_PER_BULK_COUNT, count=count)
        untitled = self.defaults is None or self.defaults.title is UNSET
        child = self.defaults is not None and self.defaults.parent_task_id is not UNSET
        for index, item in enumerate(self.tasks):
            if untitled and item.title is UNSET:
                raise FieldError(f"tasks.{index}.title", "required", "is required")
            if item.parent_ref is not UNSET and (child or item.parent_task_id is not UNSET):
                raise FieldError(
                    f"tasks.{index}.parent_ref", "exclusive", "excludes parent_task_id"
                )


class BulkHeartbeatResult(Answer):
    """What became of one heartbeat."""

    run_id: str
    ok: bool
    lease: Lease | None
    cancel_requested: bool
    stop_reason: StopReason | None
    paused: bool
    budget_remaining: BudgetRemaining | None
    error: ErrorEnvelope | None


class BulkHeartbeatResponse(Answer):
    """What became of each heartbeat, in input order."""

    results: list[BulkHeartbeatResult]
    server_time: Time


class BulkCompleteResult(Answer):
    """What became of one completion."""

    run_id: str
    ok: bool
    replayed: bool
    lease: Lease | None
    error: ErrorEnvelope | None


class BulkCompleteResponse(Answer):
    """What became of each completion, in input order, and the next claim."""

    results: list[BulkCompleteResult]
    claim: Claim | None
    claims: list[Claim] | UnsetType = UNSET


class HeartbeatItem(HeartbeatRequest, kw_only=True):
    """One heartbeat of many."""

    run_id: Identifier


class CompleteItem(LeaseWork, kw_only=True):
    """One completion of many."""

    run_id: Identifier
    result: FreeJson | None = None


class BulkHeartbeatRequest(Request):
    """Many heartbeats of one session."""

    items: Annotated[
        list[HeartbeatItem], Meta(min_length=1, extra={"most": limits.LEASES_PER_BULK_COUNT})
    ]

    def __post_init__(self) -> None:
        _check_items([item.run_id for item in self.items])


class BulkCompleteRequest(Request):
    """Many completions of one session."""

    items: Annotated[
        list[CompleteItem], Meta(min_length=1, extra={"most": limits.LEASES_PER_BULK_COUNT})
    ]
    claim_next: ClaimWish | None = None

    def __post_init__(self) -> None:
        _check_items([item.run_id for item in self.items])


def _check_items(run_ids: list[str]) -> None:
    if len(run_ids) > limits.LEASES_PER_BULK_COUNT:
        raise Problem("bulk_too_large", limit=limits.LEASES_PER_BULK_COUNT, count=len(run_ids))
    if len(set(run_ids)) < len(run_ids):
        twice = next(run for at, run in enumerate(run_ids) if run in run_ids[:at])
        raise Problem("duplicate_item", run_id=twice)
