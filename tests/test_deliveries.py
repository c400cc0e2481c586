"""Deliveries: in order, at least once, signed, and patient with receivers that are not."""

import asyncio

import pytest
from standardwebhooks import Webhook

from server import limits
from server.db.pool import Database
from server.rules.seals import Seal
from tests.factories import Workspace, seconds
from tests.receiver import attempts, bridge, cursor, receiving, subscribe
from tests.world import Servers, World, delivering

LADDER = (5, 60, 300, 1800, 7200, 18_000, 36_000, 86_400)
SOON = 10


def test_a_message_is_whole_and_signed(world: World, workspace: Workspace) -> None:
    """As Standard Webhooks has it; the same id in every attempt."""
    task = workspace.task("tell me")
    with receiving() as receiver:
        to = bridge(workspace, receiver.url)
        wish = {"peer_id": "p", "thread_id": "t", "delivery_mode": "reply"}
        mine = subscribe(workspace, task.id, to, event_types=["task.created"], **wish)
        receiver.answer(500)
        world.deliver()
        world.advance(6)
        world.deliver()
    first, second = receiver.got
    assert (first.path, first.body) == ("/hook?a=1", second.body)
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.headers["webhook-id"].startswith(f"msg_{first.sequence}_")
    assert first.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert first.headers["user-agent"].startswith("worklease/")
    assert first.signed_by(to.signing_secret)
    data = first.told["data"]
    assert data["timeline"]["task"]["title"] == "tell me"
    assert data["subscription"] == wish | {
        "subscription_id": mine.subscription_id, "bridge_instance_id": to.id, "group_id": None,
    }  # fmt: skip


def test_the_reference_implementation_takes_a_message(alone: Servers) -> None:
    own = World(alone.start(
        WORKLEASE_BRIDGE_ALLOW_CIDRS="127.0.0.0/8", WORKLEASE_BRIDGE_ALLOW_HTTP=True,
        WORKLEASE_LOOPS=True,
    ).server)  # fmt: skip
    with receiving() as receiver:
        workspace = own.workspace()
        to = bridge(workspace, receiver.url)
        subscribe(workspace, workspace.task().id, to, event_types=["task.created"])
        assert receiver.came.acquire(timeout=SOON)
    [got] = receiver.got
    told = Webhook(to.signing_secret).verify(got.body, got.headers)
    assert (told["type"], told["data"]["sequence"]) == ("task.created", got.sequence)
    own.close()


def test_events_come_in_order_and_none_before_the_one_that_fails(
    world: World, workspace: Workspace
) -> None:
    task = workspace.task()
    with receiving() as receiver:
        wish = {"event_types": ["task.created", "task.updated"]}
        mine = subscribe(workspace, task.id, bridge(workspace, receiver.url), **wish)
        for title in "abc":
            workspace.operator.patch(f"/api/tasks/{task.id}", title=title)
        receiver.answer(204)
        receiver.answer(500)
        world.deliver()
        told = receiver.sequences()
        assert len(told) == 2
        assert cursor(workspace, mine).last_sequence == told[0]
        world.advance(6)
        world.deliver()
    wanted = [e.sequence for e in workspace.events() if e.event_type in wish["event_types"]]
    assert receiver.sequences() == [*wanted[:2], *wanted[1:]]
    assert cursor(workspace, mine).last_sequence == wanted[-1]
    assert cursor(workspace, mine).last_error is None


def test_the_ladder_has_nine_attempts_and_then_goes_on(world: World, workspace: Workspace) -> None:
    task = workspace.task()
    with receiving() as receiver:
        to = bridge(workspace, receiver.url)
        mine = subscribe(workspace, task.id, to, event_types=["task.created", "task.updated"])
        workspace.operator.patch(f"/api/tasks/{task.id}", title="new")
        for _ in range(9):
            receiver.answer(500, b"broken")
        for wait in (0, *LADDER):
            world.advance(wait * 1.11)
            world.deliver()
    made = attempts(workspace, to)
    assert [row.status for row in made] == [*["failed"] * 8, "dead", "delivered"]
    assert [row.attempt for row in made] == [*range(1, 10), 1]
    waits = [seconds(row.next_attempt_at, row.finished_at) for row in made[:8]]
    for waited, wanted in zip(waits, LADDER, strict=True):
        assert wanted * 0.9 <= waited <= wanted * 1.1
    assert (made[0].http_status, made[0].error) == (500, "HTTP 500: broken")
    assert cursor(workspace, mine).last_sequence == made[-1].sequence


@pytest.mark.parametrize(("status", "wait"), [(429, 120), (503, 120), (500, 5)])
def test_a_receiver_may_ask_for_time(
    world: World, workspace: Workspace, status: int, wait: int
) -> None:
    with receiving() as receiver:
        to = bridge(workspace, receiver.url)
        subscribe(workspace, workspace.task().id, to, event_types=["task.created"])
        receiver.answer(status, Retry_After="120")
        world.deliver()
    [row] = attempts(workspace, to)
    assert abs(seconds(row.next_attempt_at, row.finished_at) - wait) <= 0.5


def test_a_receiver_that_is_gone_disables_its_bridge(world: World, workspace: Workspace) -> None:
    """Deliveries wait until it is enabled again, and then go on from there."""
    task = workspace.task()
    with receiving() as receiver:
        to = bridge(workspace, receiver.url)
        mine = subscribe(workspace, task.id, to, event_types=["task.created"])
        receiver.answer(410)
        world.deliver()
        world.advance(3600)
        world.deliver()
        path = f"/api/bridges/{to.id}"
        told = workspace.operator.get(path).bridge
        assert (told.enabled, told.disabled_reason, told.version) == (False, "gone", 2)
        assert workspace.events()[-1].payload["reason"] == "gone"
        assert (len(receiver.got), cursor(workspace, mine).last_sequence) == (1, 0)
        assert workspace.operator.patch(path, enabled=True).bridge.disabled_reason is None
        world.deliver()
    assert len(set(receiver.sequences())) == len(receiver.got) - 1 == 1


def test_a_redirect_is_no_success_and_leads_nowhere(world: World, workspace: Workspace) -> None:
    with receiving() as receiver, receiving() as inside:
        to = bridge(workspace, receiver.url)
        subscribe(workspace, workspace.task().id, to, event_types=["task.created"])
        receiver.answer(307, Location=inside.url)
        world.deliver()
        assert (len(receiver.got), inside.got) == (1, [])
    assert attempts(workspace, to)[0].status == "failed"


def test_a_long_answer_is_not_read_to_its_end(world: World, workspace: Workspace) -> None:
    with receiving() as receiver:
        to = bridge(workspace, receiver.url)
        subscribe(workspace, workspace.task().id, to, event_types=["task.created"])
        receiver.answer(500, b"x" * 5_000_000)
        world.deliver()
    [row] = attempts(workspace, to)
    assert row.status == "failed"
    assert len(row.error) == 2048


def test_each_attempt_looks_again_where_the_name_leads(world: World, workspace: Workspace) -> None:
    """Also where the address was good when the bridge was made."""
    to = bridge(workspace, "http://127.0.0.1:9/")
    subscribe(workspace, workspace.task().id, to, event_types=["task.created"])
    world.db.execute("update bridge set url = 'https://10.0.0.1/' where bridge_id = %s", [to.id])
    world.deliver()
    [row] = attempts(workspace, to)
    assert (row.status, row.http_status) == ("failed", None)
    assert row.error == "the target is refused: address"


def test_a_name_that_does_not_resolve_fails_at_delivery(world: World, workspace: Workspace) -> None:
    to = bridge(workspace, "https://receiver.invalid/")
    subscribe(workspace, workspace.task().id, to, event_types=["task.created"])
    world.deliver()
    [row] = attempts(workspace, to)
    assert (row.status, row.http_status) == ("failed", None)
    assert workspace.operator.get(f"/api/bridges/{to.id}").bridge.last_error == row.error


def test_the_events_of_a_workspace_come_from_the_time_they_are_wanted(
    world: World, workspace: Workspace
) -> None:
    workspace.task("before")
    with receiving() as receiver:
        to = bridge(
            workspace, receiver.url, workspace_event_types=["task.created", "bridge.updated"]
        )
        workspace.task("after")
        world.deliver()
        workspace.operator.patch(f"/api/bridges/{to.id}", name="new")
        world.deliver()
        workspace.operator.patch(f"/api/bridges/{to.id}", workspace_event_types=None)
        workspace.task("later")
        world.deliver()
    created, updated = (got.told["data"] for got in receiver.got)
    assert created["timeline"]["task"]["title"] == "after"
    assert created["subscription"] is None
    assert (updated["type"], updated["timeline"]["task"]) == ("bridge.updated", None)


def test_one_server_at_a_time_delivers_a_cursor(world: World, workspace: Workspace) -> None:
    """A receiver that hangs holds up nobody else, and no connection to the database."""

    async def race(db: Database) -> None:
        async with delivering(db) as one, delivering(db) as other:
            slow.open.clear()
            await one.run_once()
            await asyncio.to_thread(slow.came.acquire)
            assert await other.run_once() == 0
            subscribe_fast()
            assert await other.run_once() == 1
            await other.idle()
            slow.open.set()
            await one.idle()

    with receiving() as slow, receiving() as quick:
        to = bridge(workspace, slow.url)
        subscribe(workspace, workspace.task().id, to, event_types=["task.created"])

        def subscribe_fast() -> None:
            fast = bridge(workspace, quick.url, "quick")
            subscribe(workspace, workspace.task().id, fast, event_types=["task.created"])

        world.run(race)
    assert (len(slow.got), len(quick.got)) == (1, 1)


def test_what_a_dead_server_began_is_sent_again(world: World, workspace: Workspace) -> None:
    """At least once: a crash between the delivery and the move of the cursor repeats it."""

    async def crash(db: Database) -> None:
        async with delivering(db) as sending:
            receiver.open.clear()
            await sending.run_once()
            await asyncio.to_thread(receiver.came.acquire)
            await sending.abandon()
            receiver.open.set()

    with receiving() as receiver:
        to = bridge(workspace, receiver.url)
        subscribe(workspace, workspace.task().id, to, event_types=["task.created"])
        world.run(crash)
        world.deliver()
        assert len(receiver.got) == 1
        world.advance(limits.DELIVERY_HOLD_SECONDS)
        world.deliver()
    assert len(receiver.got) == 2
    assert len({got.headers["webhook-id"] for got in receiver.got}) == 1
    assert [row.status for row in attempts(workspace, to)] == ["failed", "delivered"]


def test_an_attempt_that_outlives_its_subscription_moves_nothing(
    world: World, workspace: Workspace
) -> None:
    task = workspace.task()
    path = f"/api/tasks/{task.id}/notifications/bridges/mine"

    async def remove(db: Database) -> None:
        async with delivering(db) as sending:
            receiver.open.clear()
            await sending.run_once()
            await asyncio.to_thread(receiver.came.acquire)
            await asyncio.to_thread(workspace.operator.delete, path)
            receiver.open.set()
            await sending.idle()

    with receiving() as receiver:
        to = bridge(workspace, receiver.url)
        wish = {"event_types": ["task.created"], "subscription_id": "mine"}
        subscribe(workspace, task.id, to, **wish)
        receiver.answer(500)
        world.run(remove)
        assert [row.status for row in attempts(workspace, to)] == ["suppressed"]
        assert cursor(workspace, subscribe(workspace, task.id, to, **wish)).last_sequence == 0


def test_signing_secrets_survive_a_change_of_the_servers_secret(
    world: World, workspace: Workspace
) -> None:
    old = Seal([b"the former secret of this server"])
    with receiving() as receiver:
        to = bridge(workspace, receiver.url)
        kept = old.close(to.signing_secret)
        world.db.execute("update bridge set secret = %s where bridge_id = %s", [kept, to.id])
        subscribe(workspace, workspace.task().id, to, event_types=["task.created"])
        world.deliver(b"the former secret of this server")
        [got] = receiver.got
        assert got.signed_by(to.signing_secret)
    [[now]] = world.db.execute("select secret from bridge where bridge_id = %s", [to.id])
    assert Seal([world.server.secret]).open(now) == to.signing_secret
