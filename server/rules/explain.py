"""Why a run is not claimed: the rules of claiming in their order, each with its code."""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec

from server.rules.lanes import Demands

MESSAGES: Final = {
    "task_canceled": "The task is canceled.",
    "task_draft": "The task is a draft.",
    "no_run": "The task has no run in the queue.",
    "run_active": "The run is being worked on.",
    "run_needs_attention": "The run needs a person's attention.",
    "task_terminal": "The task has ended.",
    "awaiting_approval": "The task waits for a person's approval.",
    "approval_rejected": "The task was not approved.",
    "awaiting_dependencies": "The task waits for other tasks.",
    "task_paused": "The task is paused.",
    "ancestor_paused": "A task above it is paused.",
    "not_yet_available": "The run is not to be claimed before its time.",
    "budget_exhausted": "The budget of the task is used up.",
    "concurrency_limit": "As many tasks with its concurrency key are worked on as may be.",
    "priority_too_low": "The task's priority is lower than the claimer takes.",
    "channel_mismatch": "The run is on another channel than the claimer's.",
    "owned_by_other": "The task belongs to somebody else.",
    "agent_not_allowed": "The task does not allow this claimer.",
    "missing_capabilities": "The claimer cannot do all that the task requires.",
}
PRIORITIES: Final = {"low": 10, "medium": 20, "high": 30, "urgent": 40}


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What decides whether a run of a task can be claimed, at one instant."""

    task_id: str
    status: str
    canceled: bool
    draft: bool
    approval_state: str | None
    paused_by_task_id: str | None
    closed_at: str | None
    priority: int
    run_id: str | None
    run_status: str | None
    session_id: str | None
    lease_until: str | None
    available_at: str | None
    due: bool
    delayed_by: str
    budget: dict[str, Any] | None
    spent: bool
    usage: dict[str, Any] | None
    concurrency_key: str | None
    concurrency_limit: int | None
    active: int | None
    dependencies_waiting: int
    waiting: list[dict[str, str]]
    failed_count: int
    demands: Demands
    as_of: str


class Asker(NamedTuple):
    """A claimer, as far as it is known; what is None is not checked."""

    agent_name: str | None
    session_id: str | None
    capabilities: list[str] | None
    channel: str | None
    priority_min: int | None
    peer_id: str | None


Fault = tuple[str, dict[str, Any]]


def faults(facts: Facts, asker: Asker) -> list[dict[str, Any]]:
    """Every rule that does not hold, in order: code, message, evidence."""
    found = [*_gates(facts), *_routing(facts, asker)]
    return [
        {"code": code, "message": MESSAGES[code], "evidence": evidence} for code, evidence in found
    ]


def _gates(facts: Facts) -> Iterator[Fault]:
    """The task's own gates, which hold for every claim."""
    if facts.canceled:
        yield "task_canceled", {"closed_at": facts.closed_at}
    elif facts.draft:
        yield "task_draft", {"status": facts.status}
    if facts.run_status == "needs_attention":
        yield "run_needs_attention", {"run_id": facts.run_id}
    elif facts.run_id is not None and facts.run_status != "queued":
        yield (
            "run_active",
            {
                "run_status": facts.run_status,
                "session_id": facts.session_id,
                "lease_until": facts.lease_until,
            },
        )
    elif facts.status in ("completed", "failed", "canceled"):
        yield "task_terminal", {"status": facts.status}
    elif facts.run_id is None:
        yield "no_run", {"status": facts.status}
    if facts.approval_state in ("pending", "rejected"):
        waits = facts.approval_state == "pending"
        code = "awaiting_approval" if waits else "approval_rejected"
        yield code, {"approval_state": facts.approval_state}
    if facts.dependencies_waiting:
        yield (
            "awaiting_dependencies",
            {
                "waiting": facts.waiting,
                "count": facts.dependencies_waiting,
                "failed_count": facts.failed_count,
            },
        )
    if facts.paused_by_task_id == facts.task_id:
        yield "task_paused", {"paused_by_task_id": facts.paused_by_task_id}
    elif facts.paused_by_task_id is not None:
        yield "ancestor_paused", {"paused_by_task_id": facts.paused_by_task_id}
    if facts.run_status == "queued" and not facts.due:
        yield "not_yet_available", {"available_at": facts.available_at, "cause": facts.delayed_by}
    if facts.spent:
        yield "budget_exhausted", {"budget": facts.budget, "usage": facts.usage}
    if facts.active is not None and facts.active >= (facts.concurrency_limit or 0):
        yield (
            "concurrency_limit",
            {
                "concurrency_key": facts.concurrency_key,
                "limit": facts.concurrency_limit,
                "active": facts.active,
            },
        )


def _routing(facts: Facts, asker: Asker) -> Iterator[Fault]:
    """What the task demands of its claimer."""
    demands = facts.demands
    if asker.priority_min is not None and facts.priority < asker.priority_min:
        yield "priority_too_low", {"priority": facts.priority, "priority_min": asker.priority_min}
    coordination = demands.channel or f"coord-{facts.run_id}"
    if asker.channel not in (None, demands.channel, f"coord-{facts.run_id}"):
        yield "channel_mismatch", {"network_channel": demands.channel, "channel": asker.channel}
    if _is_anothers(demands, asker):
        owner = {"kind": demands.owner_kind, "ref": demands.owner_ref}
        yield "owned_by_other", {"owner": owner}
    if asker.agent_name is not None and not _names(demands, asker.agent_name):
        yield "agent_not_allowed", {"agent_name": asker.agent_name}
    elif asker.agent_name is not None and not _lists(demands.channels, coordination):
        yield "agent_not_allowed", {"allowed_channel_ids": demands.channels}
    elif asker.peer_id is not None and not _lists(demands.peers, asker.peer_id):
        yield "agent_not_allowed", {"peer_id": asker.peer_id}
    if asker.capabilities is not None:
        missing = sorted({*(demands.capabilities or ())} - {*asker.capabilities})
        if missing:
            yield "missing_capabilities", {"missing": missing}


def _is_anothers(demands: Demands, asker: Asker) -> bool:
    match demands.owner_kind:
        case None:
            return False
        case "pool":
            return asker.agent_name not in (None, demands.owner_ref)
        case "agent_session":
            return asker.session_id not in (None, demands.owner_ref)
        case _:
            return asker.agent_name is not None or asker.session_id is not None


def _names(demands: Demands, agent_name: str) -> bool:
    return (
        demands.agent in (None, agent_name)
        and _lists(demands.worker_agents, agent_name)
        and _lists(demands.agents, agent_name)
    )


def _lists(listed: list[str] | None, name: str) -> bool:
    return listed is None or name in listed
