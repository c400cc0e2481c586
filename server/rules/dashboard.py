"""A dashboard from what was counted."""

from typing import Any, Final

import msgspec

# In the order in which their shares are shown.
STATUSES: Final = (
    "completed", "pending", "in_progress", "ready", "blocked", "failed", "canceled", "draft",
)  # fmt: skip
RUN_STATUSES: Final = (
    "queued", "claimed", "starting", "running", "completed", "failed", "canceled",
    "needs_attention",
)  # fmt: skip
ACTIVE: Final = RUN_STATUSES[:4]


class Ailing(msgspec.Struct, frozen=True):
    """How many live leases missed a heartbeat, and how many have no live session."""

    stuck: int
    orphans: int


class Depth(msgspec.Struct, frozen=True):
    """The claimable runs of one channel."""

    network_channel: str | None
    count: int
    oldest_queued_at: str | None
    oldest_queue_age_ms: int


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the database counted; times with a unit, labels without one."""

    counts: dict[str, int]
    claim_longest_us: int
    start_longest_us: int
    depth: list[Depth]
    ailing: Ailing
    items: msgspec.Raw
    observed_at: str
    latest_activity_at: str | None
    age_ms: int | None
    backlog_threshold_ms: int
    stale_after_ms: int


def dashboard(facts: Facts) -> dict[str, Any]:
    """All of it, as the wire has it."""
    totals = _totals(facts.counts)
    queue = _queue(facts)
    health = _health(facts, queue["backlog_warning"])
    active = {status: totals[f"{status}_runs"] for status in ACTIVE}
    return {
        "totals": totals,
        "cards": _cards(facts, totals, health["status"]),
        "status_breakdown": _shares({s: totals[f"{s}_tasks"] for s in STATUSES}),
        "queue": queue,
        "health": health,
        "active_runs": {"total": totals["active_runs"], **active, "items": facts.items},
        "freshness": _freshness(facts, totals["active_runs"] > 0),
    }


def _totals(counts: dict[str, int]) -> dict[str, int]:
    tasks = {f"{status}_tasks": counts.get(f"task.{status}", 0) for status in STATUSES}
    runs = {f"{status}_runs": counts.get(f"run.{status}", 0) for status in RUN_STATUSES}
    return {
        "tasks_total": sum(tasks.values()),
        "runs_total": sum(runs.values()),
        **tasks,
        **runs,
        "awaiting_approval_tasks": counts.get("awaiting_approval", 0),
        "dependency_blocked_tasks": counts.get("dependency_blocked", 0),
        "active_runs": sum(runs[f"{status}_runs"] for status in ACTIVE),
    }


def _cards(facts: Facts, totals: dict[str, int], health: str) -> dict[str, Any]:
    forced = facts.counts.get("forced", 0)
    runs = ("active_runs", *(f"{status}_runs" for status in ACTIVE))
    return {
        "in_progress": {
            "tasks": totals["in_progress_tasks"],
            **{name: totals[name] for name in runs},
            "health_status": health,
        },
        "blocked": {
            "tasks": totals["blocked_tasks"],
            "awaiting_approval": totals["awaiting_approval_tasks"],
            "awaiting_dependencies": totals["dependency_blocked_tasks"],
            "health_status": _warn(totals["blocked_tasks"] > 0),
        },
        "failed": {
            "tasks": totals["failed_tasks"],
            "failed_runs": totals["failed_runs"],
            "forced_stops": forced,
            "health_status": _warn(totals["failed_tasks"] > 0 or forced > 0),
        },
        "latency": {
            "claim_latency_ms": _latency(facts.counts, "claimed", facts.claim_longest_us),
            "start_latency_ms": _latency(facts.counts, "started", facts.start_longest_us),
        },
    }


def _latency(counts: dict[str, int], kind: str, longest_us: int) -> dict[str, int]:
    samples = counts.get(kind, 0)
    return {
        "samples": samples,
        "average_ms": _rounded(counts.get(f"{kind}_us", 0), samples * 1000),
        "maximum_ms": _rounded(longest_us, 1000),
    }


def _rounded(amount: int, unit: int) -> int:
    return (2 * amount + unit) // (2 * unit) if unit else 0


def _shares(counts: dict[str, int]) -> list[dict[str, Any]]:
    """Whole percents by largest remainder: they sum to 100."""
    total = sum(counts.values())
    floors = {status: 100 * count // total for status, count in counts.items() if count}
    left = 100 - sum(floors.values())
    by_remainder = sorted(floors, key=lambda status: -(100 * counts[status] % total))
    more = set(by_remainder[:left])
    return [
        {"status": status, "count": counts[status], "share_percent": share + (status in more)}
        for status, share in floors.items()
    ]


def _queue(facts: Facts) -> dict[str, Any]:
    total = sum(depth.count for depth in facts.depth)
    oldest = min((d for d in facts.depth), key=lambda d: d.oldest_queued_at or "~", default=None)
    age_ms = oldest.oldest_queue_age_ms if oldest else 0
    warning = total > 0 and age_ms >= facts.backlog_threshold_ms
    return {
        "total": total,
        "oldest_queued_at": oldest.oldest_queued_at if oldest else None,
        "oldest_queue_age_ms": age_ms,
        "depth": facts.depth,
        "backlog_threshold_ms": facts.backlog_threshold_ms,
        "backlog_warning": warning,
        "backlog_status": _warn(warning),
    }


def _health(facts: Facts, backlog: bool) -> dict[str, Any]:
    stuck, orphans = facts.ailing.stuck, facts.ailing.orphans
    return {
        "stuck_runs": stuck,
        "active_orphan_runs": orphans,
        "queue_backlog": backlog,
        "status": _warn(stuck > 0 or orphans > 0 or backlog),
    }


def _freshness(facts: Facts, live: bool) -> dict[str, Any]:
    age_ms = facts.age_ms or 0
    stale = live and age_ms > facts.stale_after_ms
    status = "stale" if stale else "current"
    return {
        "observed_at": facts.observed_at,
        "latest_activity_at": facts.latest_activity_at,
        "age_ms": age_ms,
        "stale_after_ms": facts.stale_after_ms,
        "has_live_work": live,
        "stale": stale,
        "status": "empty" if facts.latest_activity_at is None else status,
    }


def _warn(wrong: bool) -> str:
    return "warn" if wrong else "ok"
