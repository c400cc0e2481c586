"""What the log of a workspace tells of its reviews."""

from typing import Any

from tests.world import World

Fields = dict[str, Any]
REVIEWS = """
select v.review_id, v.run_id, v.policy, v.review_round, v.attempt, v.gating, v.status, v.outcome,
       v.fence, v.lease_expiries, _utc(v.deadline_at), _utc(v.requested_at), _utc(v.reviewed_at),
       v.reviewed_by_kind, v.reviewed_by_ref, v.continuation_run_id, v.session_id, v.agent_name,
       case when v.status = 'recorded' then v.reason end,
       case when v.status = 'recorded' then v.missing_work::text end
  from review v where v.workspace_id = %s
"""


class Reviews:
    """The reviews of a workspace, as its log has them."""

    def __init__(self) -> None:
        self.known: dict[str, Fields] = {}

    def see(self, kind: str, event: Any) -> bool:
        """Takes in the next event of a review; whether a gating one was claimed."""
        payload = event.payload
        if kind == "requested":
            self.known[payload["review_id"]] = payload | {
                "run_id": event.run_id, "state": "requested", "at": event.timestamp, "holder": (),
            }  # fmt: skip
            return False
        review = self.known[payload["review_id"]]
        if kind == "bound":
            assert review["state"] == "requested", "P1: claimed while somebody held it"
            holder = payload["session_id"], payload["reviewer_agent_name"]
            review |= {"state": "routed", "holder": holder}
            review["claims"] = review.get("claims", 0) + 1
        elif kind == "started":
            review["state"] = "in_review"
        elif kind == "canceled":
            review["state"] = "canceled"
        elif kind == "released":
            review |= {"state": "requested", "holder": ()}
            review["expiries"] = review.get("expiries", 0) + (payload["cause"] != "release")
        elif kind in ("recorded", "circuit_opened"):
            self._end(review, kind, event)
        return kind == "bound" and bool(review["gating"])

    def _end(self, review: Fields, kind: str, event: Any) -> None:
        lapsed = (event.actor.kind, event.payload["outcome"]) == ("daemon", "error")
        review["expiries"] = review.get("expiries", 0) + lapsed
        told = ("outcome", "reason", "missing_work", "continuation_run_id")
        review |= {name: event.payload.get(name) for name in told} | {
            "state": kind, "by": (event.actor.kind, event.actor.ref),
            "reviewed_at": event.timestamp,
        }  # fmt: skip

    def fence(self, review_id: str, task_fence: int) -> None:
        """Notes the number of a claim: the task's, or the next of its own."""
        review = self.known[review_id]
        review["fence_now"] = task_fence if review["gating"] else review["claims"]

    def forget(self, runs: dict[str, Fields]) -> None:
        """Leaves the reviews of these runs."""
        self.known = {n: r for n, r in self.known.items() if r["run_id"] in runs}


def compare(world: World, workspace_id: str, told: Reviews) -> None:
    """The table is as the log tells."""
    rows = {(*row[:19], row[19] and row[19].replace(" ", "")) for row in world.db.execute(
        REVIEWS, [workspace_id]
    )}  # fmt: skip
    assert rows == {
        (review_id, r["run_id"], r["policy"], r["review_round"], r["review_attempt"], r["gating"],
         r["state"], r.get("outcome"), r.get("fence_now"), r.get("expiries", 0), r["deadline_at"],
         r["at"], r.get("reviewed_at"), *(r.get("by") or (None, None)),
         r.get("continuation_run_id"), *(r["holder"] or (None, None)),
         *((r["reason"], str(r["missing_work"]).replace("'", '"').replace(" ", ""))
           if r["state"] == "recorded" else (None, None)))
        for review_id, r in told.known.items()
    }  # fmt: skip
