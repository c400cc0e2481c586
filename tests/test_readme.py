"""What the README shows works, and what it promises is tested."""

import re
from pathlib import Path

from agent_sdk import Client
from agent_sdk.testing import Server
from tests.agents import SOON, line_of, process

TESTS = Path(__file__).parent
README = (TESTS.parent / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
PROMISES = re.findall(r"^\| (P\d+) \|", README, re.MULTILINE)


def test_the_worker_of_the_readme_does_what_its_clients_ask_for(
    worklease: Server, clients: tuple[Client, Client]
) -> None:
    worker, client, graph = (code for code in PYTHON if not re.search(r"ctx\.spawn|gpu", code))
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
    (worker,) = (code for code in PYTHON if "ctx.spawn" in code)
    task = operator.tasks.create(title="count", payload={"texts": ["one two", "three"]})
    with process(worklease, agent, worker):
        assert operator.wait(task.id, timeout=SOON).result == 3


def test_every_promise_of_the_readme_is_named_by_a_test() -> None:
    assert [f"P{n}" for n in range(1, 13)] == PROMISES
    tests = "".join(path.read_text() for path in TESTS.glob("test_*.py"))
    assert [name for name in PROMISES if not re.search(rf"\b{name}\b", tests)] == []
