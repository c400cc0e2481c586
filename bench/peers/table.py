"""The comparison as a table."""

from typing import Any

COLUMNS = (
    "", "jobs a second, one by one", "in batches", "pick-up, median", "99th percentile",
    "the job of a stopped worker is taken over", "its late completion",
)  # fmt: skip
NONE = "-"


def page(told: dict[str, dict[str, Any]], versions: dict[str, str]) -> str:
    """Markdown, one line a queue."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for name, of in told.items():
        cells = [f"{name} {versions[name]}", _rate(of, "single"), _rate(of, "batch")]
        cells += [_milliseconds(of, "p50_ms"), _milliseconds(of, "p99_ms"), *_comes_back(of)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _rate(of: dict[str, Any], how: str) -> str:
    if how not in of:
        return NONE
    rates = of[how]
    return f"{of[f'{how}_median']:,.0f} ({min(rates):,.0f} - {max(rates):,.0f})"


def _milliseconds(of: dict[str, Any], which: str) -> str:
    return f"{of['pickup'][which]:.1f} ms" if "pickup" in of else NONE


def _comes_back(of: dict[str, Any]) -> tuple[str, str]:
    found = of.get("comes_back")
    if found is None:
        return NONE, NONE
    taken = f"after {found['after_seconds']:g} s" if found["taken_over"] else "no"
    late = "counts" if found["stale_completion_counted"] else "is refused"
    if not found["stale_handler_ended"]:
        late = "is not made"
    return taken, late if found["done_at_the_end"] else f"{late}; the job stays open"
