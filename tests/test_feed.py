"""The live end of the log: who joins hears what comes from then on, and nothing before."""

from server.api.feed import Feed, Subscriber, Topic
from server.api.turns import Turns
from server.db.pool import Database
from tests.factories import Workspace


def test_who_is_counted_but_has_not_joined_is_sent_nothing(workspace: Workspace) -> None:
    """P9: it reads the log up to where it joins, and would hear that twice."""
    task = workspace.task()

    async def follows(db: Database) -> None:
        feed = Feed(db, workspace.id)
        first, second = (Subscriber(Turns(), Topic("task", task.id), 9) for _ in range(2))
        await feed.join(first)
        feed.admit(second)
        workspace.cancel(task.id, reason="over")
        feed.hint()
        told = await first.take(5)
        await feed.join(second)
        assert told is not None
        assert second.joined_at >= told.sequence > first.joined_at
        assert await second.take(0) is None
        for subscriber in (first, second):
            feed.leave(subscriber)

    workspace.world.run(follows)
