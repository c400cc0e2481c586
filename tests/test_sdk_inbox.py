"""The inbox and the dashboard through the SDK."""

from agent_sdk import Client


def test_an_operator_finds_what_needs_it_and_puts_it_away(clients: tuple[Client, Client]) -> None:
    operator, _ = clients
    task = operator.tasks.create(title="dangerous", approval_policy="manual")
    (lane,) = operator.inbox.get(lane="approvals", unread=True).groups
    assert [(item.task.id, item.blocking_reason) for item in lane.items] == [
        (task.id, "awaiting_approval")
    ]
    assert operator.inbox.read(task.id).read
    assert operator.inbox.get(lane="approvals").groups[0].unread_count == 0
    assert operator.inbox.dismiss(task.id).dismissed
    assert operator.inbox.get(lane="approvals").total == 0
    assert operator.inbox.archive(task.id).archived
    assert operator.inbox.get().archived_total == 1
    assert not operator.inbox.unarchive(task.id).archived


def test_a_dashboard_counts_what_its_filter_lets_through(clients: tuple[Client, Client]) -> None:
    operator, agent = clients
    operator.submit([{"title": "a"}, {"title": "b", "network_channel": "blue"}])
    assert agent.claim(channel="blue")
    whole = operator.dashboard.get()
    assert (whole.totals.tasks_total, whole.totals.claimed_runs, whole.queue.total) == (2, 1, 1)
    assert [(one.status, one.share_percent) for one in whole.status_breakdown] == [
        ("in_progress", 50),
        ("ready", 50),
    ]
    blue = operator.dashboard.get(network_channel="blue")
    assert (blue.totals.tasks_total, blue.queue.total, blue.freshness.status) == (1, 0, "current")
