"""What the README shows works, and what it promises is tested."""

import re
from pathlib import Path
from typing import Any

from agent_sdk import Client
from agent_sdk.testing import Server
from tests.agents import SOON, event_of, line_of, process

TESTS = Path(__file__).parent
README = (TESTS.parent / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
PROMISES = re.findall(r"^\| (P\d+) \|", README, re.MULTILINE)


def test_the_worker_of_the_readme_does_what_its_clients_ask_for(
    worklease: Server, clients: tuple[Client, Client]
) -> None:
    others = r"ctx\.spawn|gpu|worker\.review|client\.claims|def test_"
    worker, client, graph = (code for code in PYTHON if not re.search(others, code))
    with process(worklease, clients[1], worker):
        for code, answer in ((client, "Hello Ada"), (graph, "Hello report")):
            with process(worklease, clients[1], code) as asking:
                assert line_of(asking) == answer


def test_the_worker_of_the_readme_with_a_capability_gets_the_task_that_demands_it(
    worklease: Server, clients: tuple[Client, Client]
) -> None:
    worker, client = (code for code in PYTHON if "gpu" in code)
    with (
        process(worklease, clients[1], client) as asking,
        process(worklease, clients[1], worker),
    ):
        assert line_of(asking) == "120"


def test_the_job_of_the_readme_that_splits_itself_up_joins_its_parts(
    worklease: Server, clients: tuple[Client, Client]
) -> None:
    operator, agent = clients
    (worker,) = (code for code in PYTHON if "ctx.spawn" in code and "texts" in code)
    task = operator.tasks.create(title="count", payload={"texts": ["one two", "three"]})
    with process(worklease, agent, worker):
        assert operator.wait(task.id, timeout=SOON).result == 3


def test_the_agent_of_the_readme_waits_for_an_approval(
    worklease: Server, clients: tuple[Client, Client]
) -> None:
    operator, agent = clients
    (worker,) = (code for code in PYTHON if "approval_policy" in code)
    task = operator.tasks.create(title="release", payload={"version": "1.2"})
    with process(worklease, agent, worker):
        event_of(operator, task.id, "task.dependency_added")
        (child,) = operator.tasks.list(approval_state="pending").tasks
        assert child.status == "blocked"
        operator.tasks.approve(child.id)
        assert operator.wait(task.id, timeout=SOON).result == ["published 1.2"]


def test_the_reviewer_of_the_readme_judges_what_the_worker_did(
    worklease: Server, clients: tuple[Client, Client], reviewer: Client
) -> None:
    operator, agent = clients
    worker, *_ = PYTHON
    (judge,) = (code for code in PYTHON if "worker.review" in code)
    with process(worklease, agent, worker), process(worklease, reviewer, judge):
        task = operator.tasks.create(
            title="Greet Ada", payload={"name": "Ada"}, review_policy="on_success"
        )
        assert operator.wait(task.id, timeout=SOON).result == {"text": "Hello Ada"}
    (review,) = operator.reviews.of_task(task.id).reviews
    assert (review.outcome, review.reason) == ("approved", "polite")


def test_the_agent_of_the_readme_without_a_handler_does_its_work(
    worklease: Server, clients: tuple[Client, Client]
) -> None:
    (agent,) = (code for code in PYTHON if "client.claims" in code)
    task = clients[0].tasks.create(title="Greet Ada", payload={"name": "Ada"})
    with process(worklease, clients[1], agent):
        assert clients[0].wait(task.id, timeout=SOON).result == {"text": "Hello Ada"}


def test_the_test_of_the_readme_passes(worklease: Server) -> None:
    (code,) = (code for code in PYTHON if "def test_" in code)
    module: dict[str, Any] = {}
    exec(code, module)
    module["test_the_agent_greets"](worklease)


def test_every_call_that_the_readme_names_is_there(clients: tuple[Client, Client]) -> None:
    named = re.findall(r"client\.(\w+)\.(\w+)\(", README)
    assert len(named) > 20
    assert [call for call in named if not hasattr(getattr(clients[0], call[0]), call[1])] == []


def test_every_promise_of_the_readme_is_named_by_a_test() -> None:
    assert [f"P{n}" for n in range(1, 13)] == PROMISES
    tests = "".join(path.read_text() for path in TESTS.glob("test_*.py"))
    assert [name for name in PROMISES if not re.search(rf"\b{name}\b", tests)] == []
