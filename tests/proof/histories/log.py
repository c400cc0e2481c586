"""The log of a workspace beside the calls on it: each change has its event, each event its call."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.proof.histories.spec import Op

Key = tuple[Any, ...]
# By the kind of a call, the event that it leaves, and what tells it from others of the task.
LEAVES: Mapping[str, tuple[str, str | None]] = {
    "create": ("task.created", None), "complete": ("task.run_completed", "fence"),
    "fail": ("task.run_failed", "fence"), "release": ("task.run_released", "fence"),
    "force_release": ("released by force", "attempt"), "cancel": ("task.canceled", None),
    "force_fail": ("task.run_operator_forced_fail", "attempt"),
    "retry": ("task.run_operator_retry", "attempt"),
    "recover": ("task.run_recovered_from_attention", "attempt"),
    "approve": ("task.approved", None), "reject": ("task.rejected", None),
    "pause": ("task.paused", None), "resume": ("task.resumed", None),
    "depend": ("task.dependency_added", "on"), "undepend": ("task.dependency_removed", "on"),
    "verdict": ("task.run_review_recorded", "attempt"), "claim": ("task.run_claimed", "fence"),
    "review_claim": ("task.run_review_bound", None),
}  # fmt: skip
# These may be accepted without a change.
IDLE = frozenset({"cancel", "resume"})
CLAIMS = frozenset({"task.run_claimed", "task.run_review_bound"})


def faults(
    events: Sequence[Any], history: Mapping[str, Sequence[Op]], names: Mapping[str, tuple[str, int]]
) -> Iterator[str]:
    """What the log has too much or too little, and what stands in it in the wrong order."""
    must, may, told = (
        defaultdict[Key, list[Op]](list),
        defaultdict[Key, list[Op]](list),
        _told(events, names),
    )
    for task_id, ops in history.items():
        for op in ops:
            if op.kind in LEAVES and (op.answer is None or _fresh(op)):
                kind, by = LEAVES[op.kind]
                value = None if by is None else (op.answer or {}).get(by, op.args.get(by))
                sure = op.answer is not None and op.kind not in IDLE
                (must if sure else may)[kind, task_id, value].append(op)
    for key in must.keys() | told.keys():
        least, most = len(must[key]), len(must[key]) + len(may[key])
        if key[0] in CLAIMS:
            most = max(most, len(told[key]))  # of an unknown claim the fence is not known
        if not least <= len(told[key]) <= most:
            calls = sorted(op.call for op in must[key] + may[key])
            yield (
                f"{key}: {len(told[key])} events at {told[key]}, and calls {calls}, of which"
                f" {least} were accepted"
            )
    yield from _disorder({
        told[key][0]: must[key][0] for key in must
        if len(must[key]) == len(told[key]) == 1 and not may[key]
    })  # fmt: skip


def _fresh(op: Op) -> bool:
    return op.answer is not None and (op.answer["code"], op.answer.get("replayed")) == (None, False)


def _told(events: Sequence[Any], names: Mapping[str, tuple[str, int]]) -> dict[Key, list[int]]:
    """Where in the log the events of each key stand."""
    told = defaultdict[Key, list[int]](list)
    wanted = dict(LEAVES.values())
    for event in events:
        kind, payload = event.event_type, event.payload
        if kind == "task.run_review_circuit_opened":
            kind = "task.run_review_recorded"
        if kind == "task.run_released" and payload["manual"]:
            kind = "released by force"
        # No call did it itself: what came from above, and claims that the server took back.
        elsewhere = payload.get("propagated_from_task_id") or payload.get("reason") == "client_gone"
        if kind not in wanted or elsewhere:
            continue
        value = None
        if wanted[kind] == "attempt":
            value = names[payload.get("source_run_id") or event.run_id][1]
        elif wanted[kind] is not None:
            value = payload["depends_on_task_id" if wanted[kind] == "on" else "fence"]
        told[kind, event.task_id, value].append(event.sequence)
    return told


def _disorder(done: Mapping[int, Op]) -> Iterator[str]:
    """Events of calls of which one was answered before the other was made, the wrong way round."""
    latest: tuple[int, int, Op] | None = None
    for sequence, op in sorted(done.items()):
        if latest is not None and op.ended < latest[1]:
            yield (
                f"event {sequence} of call {op.call} stands behind {latest[0]} of call"
                f" {latest[2].call}, which was made later"
            )
        if latest is None or op.begun > latest[1]:
            latest = sequence, op.begun, op
