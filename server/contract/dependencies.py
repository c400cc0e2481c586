"""A dependency: an edge between tasks."""

from typing import Literal

from server.contract.base import Answer, Identifier, Json, PageQuery, Request, Time
from server.contract.references import TaskReference, TaskStatus

DependencyKind = Literal["blocks"]


class Dependency(Answer):
    """One task waits for another."""

    task_id: str
    depends_on_task_id: str
    kind: DependencyKind
    created_at: Time
    satisfied: bool


class DependencyReference(Dependency):
    """A dependency with the task it waits for."""

    depends_on: TaskReference


class DependencyItem(DependencyReference):
    """A dependency with the result of the task it waits for."""

    result: Json
    result_bytes: int | None


class DependencyListResponse(Answer):
    """A page of dependencies."""

    dependencies: list[DependencyItem]
    next_cursor: str | None


class DependencyListQuery(PageQuery):
    """Which dependencies of a task to list."""

    include_result: bool = False
    status: list[TaskStatus] | None = None


class DependencyAddRequest(Request):
    """What the task is to wait for."""

    depends_on_task_id: Identifier
    kind: DependencyKind = "blocks"
