"""Whole graphs of tasks in one request."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import UNSET

from server.api.context import Context
from server.api.holding import guard
from server.api.tasks import check_depends_on, check_profile, check_slots, new_task_id
from server.contract.base import Encoded, to_json
from server.contract.bulk import TaskBulkItem, TaskBulkRequest, TaskBulkResponse
from server.errors import Problem
from server.rules.graphs import find_cycle
from server.store import tasks

Fields = dict[str, Any]


async def create_tasks(ctx: Context, body: TaskBulkRequest) -> Encoded[TaskBulkResponse]:
    """Makes many tasks, all or none; refs name tasks of the same request."""
    told = _resolved(body)
    try:
        made = await tasks.create_tasks(
            ctx.services.db,
            workspace_id=ctx.workspace_id,
            cause=ctx.cause,
            tasks=msgspec.json.encode(told).decode(),
            guard=guard(ctx),
            bulk=True,
            key=ctx.idempotency_key,
            request_hash=ctx.key_hash,
        )
    except Problem as problem:
        index = problem.evidence.get("index")
        if index is not None:
            problem.evidence["ref"] = body.tasks[index].ref
        raise
    ctx.services.hub.changed(ctx.workspace_id, made.offers)
    return Encoded(made.body.encode(), replayed=made.replayed)


def _resolved(body: TaskBulkRequest) -> list[Fields]:
    """The items with ids for refs and with the defaults in their place."""
    defaults = _fields(body.defaults) if body.defaults else {}
    _spread_defaults(body)
    ids: dict[str, str] = {}
    for index, item in enumerate(body.tasks):
        if item.ref in ids:
            raise Problem("duplicate_ref", index=index, ref=item.ref)
        ids[item.ref] = new_task_id() if item.id is UNSET else item.id
    _check_ids(body.tasks, ids)
    _check_cycles(body.tasks, ids)
    _check_scopes(body.tasks, ids)
    told = []
    for index, item in enumerate(body.tasks):
        place = {"index": index, "ref": item.ref}
        fields = defaults | _fields(item)
        fields |= {"n": index, "id": ids[item.ref]}
        check_slots(fields, f"tasks.{index}.", place)
        check_profile(ids[item.ref], item.execution_profile, f"tasks.{index}.", place)
        if item.parent_ref is not UNSET:
            fields["parent_task_id"] = _known(ids, item.parent_ref, "parent_ref", place)
        waits_for = _waits_for(item, ids, place)
        check_depends_on(ids[item.ref], waits_for, place)
        fields["depends_on"] = waits_for
        for name in ("parent_ref", "depends_on_refs"):
            fields.pop(name, None)
        told.append(fields)
    return told


def _spread_defaults(body: TaskBulkRequest) -> None:
    """Gives each item the common values that are checked against it, where it has no own.

    Before any check: common edges too may name tasks of the request, and close a cycle.
    """
    for item in body.tasks if body.defaults else ():
        for name in ("depends_on", "parent_task_id", "scope", "execution_profile"):
            if getattr(item, name) is UNSET:
                setattr(item, name, getattr(body.defaults, name))


def _check_ids(items: list[TaskBulkItem], ids: Mapping[str, str]) -> None:
    seen: set[str] = set()
    for index, item in enumerate(items):
        if ids[item.ref] in seen:
            raise Problem("task_exists", id=ids[item.ref], index=index, ref=item.ref)
        seen.add(ids[item.ref])


def _check_cycles(items: list[TaskBulkItem], ids: Mapping[str, str]) -> None:
    """Refuses cycles of edges, and of parents, within the request; paths are of refs."""
    refs = {task_id: ref for ref, task_id in ids.items()}
    edges = {}
    for index, item in enumerate(items):
        place = {"index": index, "ref": item.ref}
        waits_for = [refs[d] for d in _waits_for(item, ids, place) if d in refs]
        if item.ref in waits_for:
            raise Problem("dependency_self", task_id=ids[item.ref], **place)
        edges[item.ref] = waits_for
    parents = {ref: [parent] for ref, parent in _parents(items, ids).items()}
    path = find_cycle(edges) or find_cycle(parents)
    if path is not None:
        raise Problem("dependency_cycle", path=path)


def _parents(items: list[TaskBulkItem], ids: Mapping[str, str]) -> dict[str, str]:
    """The ref of each item's parent, where that is in the request too."""
    refs = {task_id: ref for ref, task_id in ids.items()}
    found = {}
    for item in items:
        parent = item.parent_ref if item.parent_ref is not UNSET else None
        if parent is None and item.parent_task_id is not UNSET:
            parent = refs.get(item.parent_task_id)
        if parent is not None:
            found[item.ref] = parent
    return found


def _check_scopes(items: list[TaskBulkItem], ids: Mapping[str, str]) -> None:
    """A workspace-scoped parent has workspace-scoped children."""
    scopes = {item.ref: item.scope for item in items}
    parents = _parents(items, ids)
    for index, item in enumerate(items):
        parent = parents.get(item.ref)
        if parent in scopes and scopes[item.ref] == "global" != scopes[parent]:
            fault = {"field": f"tasks.{index}.scope", "rule": "scope",
                     "message": "must be that of the parent"}  # fmt: skip
            raise Problem("validation_failed", errors=[fault], index=index, ref=item.ref)


def _waits_for(item: TaskBulkItem, ids: Mapping[str, str], place: Fields) -> list[str]:
    given = [] if item.depends_on is UNSET else item.depends_on
    refs = [] if item.depends_on_refs is UNSET else item.depends_on_refs
    return [*given, *(_known(ids, ref, "depends_on_refs", place) for ref in refs)]


def _known(ids: Mapping[str, str], ref: str, field: str, place: Fields) -> str:
    if ref not in ids:
        raise Problem("ref_unknown", **{**place, "ref": ref, "field": field})
    return ids[ref]


def _fields(struct: msgspec.Struct) -> Fields:
    fields: Fields = msgspec.json.decode(to_json(struct), type=dict[str, msgspec.Raw])
    return fields
