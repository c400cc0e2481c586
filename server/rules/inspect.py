"""What is wrong with a run, and what is to be done next."""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec

from server.rules.lanes import Claimer, Demands, eligible


class Finding(NamedTuple):
    """What is the same whenever something of this kind is wrong."""

    severity: str
    title: str
    message: str


FINDINGS: Final = {
    "task_run_needs_attention": Finding(
        "error", "Run needs attention", "Its lease expired too often; recover, fail or cancel it."
    ),
    "task_run_stuck": Finding(
        "warn", "Run stuck", "Its holder missed at least one heartbeat."
    ),
    "task_run_stale_lease": Finding(
        "error", "Stale lease", "Its lease has lapsed, and no sweep has ended it yet."
    ),
    "task_run_orphan": Finding(
        "error", "Orphan run", "The session that holds it has not been seen for long."
    ),
    "task_run_crashed": Finding(
        "error", "Run failed", "It failed, no later run follows it, and the task is failed."
    ),
    "task_run_stranded": Finding(
        "warn", "Run stranded", "It waits in the queue, and no active session can take it."
    ),
    "task_run_starved": Finding("warn", "Run starved", "It has waited in the queue for long."),
    "task_budget_exhausted": Finding(
        "warn", "Budget exhausted", "The task has used up its budget while a run is open."
    ),
}  # fmt: skip
RECOVER: Final = frozenset(list(FINDINGS)[:5])


class Peer(msgspec.Struct, frozen=True):
    """A session that may come for work, with what it last asked for."""

    session_id: str
    agent_name: str
    channel: str | None
    capabilities: list[str]


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What inspection is made of; `shown` is passed on as it is."""

    shown: dict[str, msgspec.Raw]
    run_id: str | None
    run_status: str | None
    attempt: int | None
    lease_expiries: int | None
    newest: bool | None
    task_id: str
    task_status: str
    approval_state: str | None
    open_run: bool
    # What the newest run waits for: an open review, or one that stopped the task (blocked).
    review: str | None
    lease_until: str | None
    heartbeat_at: str | None
    stuck: bool
    stale: bool
    orphan: bool
    # No gate keeps it from being claimed.
    free: bool
    long_queued: bool
    starved: bool
    spent: bool
    demands: Demands | None
    sessions: list[Peer]


def is_expected(facts: Facts) -> bool:
    """Whether some active session could claim the run; which peer it speaks for is not known."""
    demands = msgspec.structs.replace(facts.demands or Demands(), peers=None)
    return any(
        eligible(
            demands,
            Claimer(peer.agent_name, peer.session_id, peer.channel, None,
                    frozenset(peer.capabilities)),
        )
        for peer in facts.sessions
    )  # fmt: skip


def codes(facts: Facts, expected: bool) -> Iterator[str]:
    """What is wrong with the run, in order."""
    if facts.run_status == "needs_attention":
        yield "task_run_needs_attention"
    if facts.stuck:
        yield "task_run_stuck"
    if facts.stale:
        yield "task_run_stale_lease"
    if facts.orphan:
        yield "task_run_orphan"
    if facts.run_status == "failed" and facts.newest and facts.task_status == "failed":
        yield "task_run_crashed"
    if facts.long_queued and not expected:
        yield "task_run_stranded"
    if facts.starved:
        yield "task_run_starved"
    if facts.spent:
        yield "task_budget_exhausted"


def evidence(facts: Facts, code: str) -> dict[str, Any]:
    """What a finding goes by."""
    told = {
        "task_id": facts.task_id,
        "run_id": facts.run_id,
        "status": facts.run_status,
        "attempt": facts.attempt,
        "lease_until": facts.lease_until,
        "heartbeat_at": facts.heartbeat_at,
        "as_of": facts.shown["as_of"],
    }
    more = {"lease_expiries": facts.lease_expiries} if code == "task_run_needs_attention" else {}
    return told | more


def next_action(facts: Facts, found: list[str], expected: bool) -> str:
    """What somebody is to do, or what is waited for."""
    if not RECOVER.isdisjoint(found):
        return "recovery_required"
    if facts.task_status == "blocked" and facts.approval_state == "pending":
        return "approval_required"
    if facts.task_status == "pending" or facts.review == "blocked":
        return "review_required"
    if not facts.open_run:
        ended = facts.task_status in ("completed", "failed", "canceled")
        return "terminal" if ended else "start_required"
    if facts.run_status != "queued":
        return "running"
    if "task_run_stranded" in found:
        return "stranded"
    if not facts.free:
        return "waiting_for_gate"
    return "claim_available" if expected else "waiting_for_session"
