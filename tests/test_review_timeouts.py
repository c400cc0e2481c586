"""What the loop `reviews` does: deadlines, and reviewers that are not heard of any more."""

from tests.factories import Workspace, refused, seconds
from tests.judging import claim, review_of, reviewed, reviews
from tests.world import World

EXPIRE = "select put_back from expire_reviews(%s, %s, 3, 3)"
BREAKER = """
create function break() returns trigger language plpgsql as $$ begin raise 'broken'; end $$
"""
BROKEN = """
create trigger broken before update of outcome on review for each row
  when (new.run_id = '{}') execute function break()
"""


def test_a_review_that_nobody_does_times_out(workspace: Workspace, world: World) -> None:
    """It is asked for again; at the third time the circuit opens."""
    held = reviewed(workspace, review_timeout_seconds=60)
    for attempt in (1, 2, 3):
        world.expire_reviews()
        assert review_of(workspace, held.run_id).attempt == attempt
        assert workspace.get(held.task_id).status == "pending"
        world.advance(61)
    world.expire_reviews()
    last = review_of(workspace, held.run_id)
    assert (last.status, last.outcome, last.attempt) == ("circuit_opened", "timeout", 3)
    assert (last.confidence, last.delivery_id) == (None, None)
    assert (last.reviewed_by.kind, last.reviewed_by.ref) == ("daemon", "reviews")
    assert workspace.get(held.task_id).status == "blocked"
    kinds = [kind for kind in workspace.told(run_id=held.run_id) if "review" in kind]
    again = ["task.run_review_recorded", "task.run_review_timeout", "task.run_review_requested"]
    circuit = "task.run_review_circuit_opened"
    assert kinds == ["task.run_review_requested", *again, *again, circuit]


def test_who_holds_a_review_at_its_deadline_loses_it(workspace: Workspace, world: World) -> None:
    held = reviewed(workspace, review_timeout_seconds=60)
    review = claim(workspace.agent("eve"))
    world.advance(61)
    assert reviews(workspace.agent("bob")) == []
    world.expire_reviews()
    assert review_of(workspace, held.run_id).parent_review_id == review.review_id
    assert review.agent.get("/api/agent/leases").reviews == []
    assert claim(workspace.agent("bob")).fence == review.fence + 1


def test_a_review_whose_lease_lapsed_goes_to_the_next(workspace: Workspace, world: World) -> None:
    held = reviewed(workspace)
    review = claim(workspace.agent("eve"), lease_seconds=60)
    review.heartbeat()
    world.advance(61)
    world.expire_reviews()
    found = review_of(workspace, held.run_id)
    assert (found.status, found.lease_expiries) == ("requested", 1)
    assert (found.reviewer_agent_name, found.started_at) == (None, None)
    [event] = workspace.events(event_type="task.run_review_released")
    assert (event.payload["cause"], event.actor.ref) == ("lease_expired", "reviews")
    assert event.payload["session_id"] == review.agent.session
    assert claim(workspace.agent("bob")).fence == review.fence + 1


def test_the_third_expiry_of_one_review_is_an_error(workspace: Workspace, world: World) -> None:
    held = reviewed(workspace)
    for expiries in (1, 2, 3):
        review = claim(workspace.agent("eve"), lease_seconds=60)
        world.advance(61)
        world.expire_reviews()
        path = f"/api/task-reviews/{review.review_id}"
        assert workspace.operator.get(path).review.lease_expiries == expiries
    told = workspace.operator.get(path).review
    assert (told.status, told.outcome, told.confidence) == ("recorded", "error", None)
    assert review_of(workspace, held.run_id).attempt == 2
    assert workspace.get(held.task_id).status == "pending"


def test_leases_that_lapsed_in_an_outage_are_renewed(workspace: Workspace, world: World) -> None:
    """Nobody could heartbeat; a deadline does not move."""
    reviewed(workspace, review_timeout_seconds=60)
    reviewed(workspace)
    late, held = (claim(workspace.agent("eve"), lease_seconds=30) for _ in range(2))
    world.advance(31)
    with workspace.unchanged("review_lease"):
        world.expire_reviews_after_outage()
    world.expire_reviews()
    assert held.heartbeat().review.lease_expiries == 0
    assert seconds(late.heartbeat().lease.lease_until, late.claim.review.deadline_at) == 0
    world.advance(31)
    world.expire_reviews_after_outage()
    world.expire_reviews()
    with refused(409, "review_already_recorded", outcome="timeout"):
        late.heartbeat()


def test_a_timeout_by_hand_is_recorded_only(workspace: Workspace, world: World) -> None:
    held = workspace.agent().work(workspace.task(review_timeout_seconds=60).id)
    workspace.operator.post(f"/api/task-runs/{held.run_id}/reviews")
    world.advance(61)
    world.expire_reviews()
    review = review_of(workspace, held.run_id)
    assert (review.status, review.outcome) == ("recorded", "timeout")
    assert workspace.get(held.task_id).status == "completed"


def test_two_servers_put_a_review_back_once(workspace: Workspace, world: World) -> None:
    reviewed(workspace)
    held = claim(workspace.agent("eve"), lease_seconds=60)
    world.advance(61)
    assert workspace.at_two_servers(EXPIRE, [held.review_id]) == (1, 0)
    assert len(workspace.told(event_type="task.run_review_released")) == 1


def test_a_busy_task_is_left_for_the_next_pass(workspace: Workspace, world: World) -> None:
    held = reviewed(workspace, review_timeout_seconds=60)
    world.advance(61)
    with workspace.holding(held.task_id):
        world.expire_reviews()
        assert review_of(workspace, held.run_id).attempt == 1
    world.expire_reviews()
    assert review_of(workspace, held.run_id).attempt == 2


def test_a_review_that_cannot_be_ended_does_not_hold_up_others(lonely: World) -> None:
    """It is left alone for a minute."""
    workspace = lonely.workspace()
    bad, good = (reviewed(workspace, review_timeout_seconds=60) for _ in range(2))
    lonely.db.execute(BREAKER)
    lonely.db.execute(BROKEN.format(bad.run_id).encode())
    lonely.advance(61)
    lonely.expire_reviews()
    assert review_of(workspace, good.run_id).attempt == 2
    lonely.db.execute("drop trigger broken on review")
    lonely.expire_reviews()
    assert review_of(workspace, bad.run_id).attempt == 1
    lonely.advance(61)
    lonely.expire_reviews()
    assert review_of(workspace, bad.run_id).attempt == 2
