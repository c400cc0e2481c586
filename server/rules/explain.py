"""Why a run is not claimed: its gates, which the database knows, and the rules of routing."""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec

from server.rules.lanes import Demands

MESSAGES: Final = {
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
    run_id: str | None
    priority: int
    # Those that are closed for everybody, in their order: code, message, evidence.
    gates: list[dict[str, Any]]
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
    return facts.gates + [
        {"code": code, "message": MESSAGES[code], "evidence": evidence}
        for code, evidence in _routing(facts, asker)
    ]


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
