"""What operators see through the SDK: trees, graphs, reasons, inspections, and tickets."""

from itertools import islice

import httpx2

from agent_sdk import Client


def test_an_operator_sees_what_is_below_and_around_a_task(clients: tuple[Client, Client]) -> None:
    operator, agent = clients
    root = operator.tasks.create(title="root")
    child = operator.tasks.create_child(root.id, title="child", depends_on=[root.id])
    assert agent.claim()
    tree = operator.tasks.tree(root.id)
    assert tree.root.active_run
    assert tree.root.active_run.status == "claimed"
    assert [(node.task.id, node.depth) for node in tree.descendants] == [(child.id, 1)]
    around = operator.tasks.graph(child.id, direction="upstream")
    assert {node.id: node.distance for node in around.nodes} == {child.id: 0, root.id: -1}
    assert [(edge.depends_on_task_id, edge.satisfied) for edge in around.edges] == [
        (root.id, False)
    ]


def test_an_operator_learns_why_a_task_is_not_claimed(clients: tuple[Client, Client]) -> None:
    operator, agent = clients
    task = operator.tasks.create(
        title="render", execution_profile={"worker": {"required_capabilities": ["gpu"]}}
    )
    why = agent.tasks.explain(task.id, capabilities=["cpu", "disk"], priority_min="high")
    assert [reason.code for reason in why.reasons] == ["priority_too_low", "missing_capabilities"]
    assert why.reasons[1].evidence == {"missing": ["gpu"]}
    assert operator.tasks.explain(task.id, capabilities=["gpu"]).claimable


def test_an_operator_is_told_what_to_do_about_a_crash(clients: tuple[Client, Client]) -> None:
    operator, agent = clients
    task = operator.tasks.create(title="fragile", max_attempts=1)
    lease = agent.claim()
    assert lease
    lease.fail("it broke")
    told = operator.tasks.inspect(task.id)
    assert (told.target, told.next_action) == ("task", "recovery_required")
    assert [(one.code, one.severity) for one in told.diagnostics] == [("task_run_crashed", "error")]
    assert told.diagnostics[0].suggested_command is None
    run = operator.runs.inspect(lease.run.id)
    assert run.current_run
    assert (run.target, run.current_run.last_error_summary) == ("run", "it broke")
    totals = operator.runs.get(lease.run.id).summary
    assert (totals.last_event_type, totals.total_tokens) == ("task.run_failed", 0)


def test_a_ticket_opens_a_stream_without_a_key(clients: tuple[Client, Client]) -> None:
    operator, _ = clients
    task = operator.tasks.create(title="watched")
    ticket = operator.stream_ticket()
    url = f"{operator.settings.url}/api/tasks/{task.id}/stream"
    with httpx2.stream("GET", url, params={"ticket": ticket.ticket}) as stream:
        assert stream.status_code == 200
        assert "event: task.created" in islice(stream.iter_lines(), 9)
