"""Starts a server and the agents, kills one of them, shows the rest, and checks the log."""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from agent_sdk.client import Client
from agent_sdk.demo.audit import source_files
from agent_sdk.demo.screen import Screen
from agent_sdk.demo.story import Story
from agent_sdk.errors import WorkleaseError
from agent_sdk.local import Server, running_server
from agent_sdk.types import Task

AUDITORS = 4
REPORT = Path(".demo/report.md")
LOOK_SECONDS = 0.1
LIMIT_SECONDS = 110.0
# The kill comes when this part of the tasks is done.
KILL_AT = 0.25
STOP_SECONDS = 10.0
FAULTS_SHOWN = 20
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Agents = dict[str, subprocess.Popen[bytes]]


def main() -> int:
    """Run the demo; 0 if every task was completed once and in order, and the killed run too."""
    parser = argparse.ArgumentParser(prog="python -m agent_sdk.demo", description=__doc__)
    parser.add_argument("path", nargs="?", help="the source tree (or DEMO_PATH; default: here)")
    given = parser.parse_args().path or os.environ.get("DEMO_PATH") or "."
    root = Path(given).resolve()
    screen = Screen(Console())
    if not root.is_dir() or not source_files(root):
        screen.say(f"{root} is no directory with source files", "red")
        return 2
    for number in SIGNALS:
        signal.signal(number, _interrupt)
    screen.say("starting a server with a database of its own ...")
    try:
        with running_server() as server, server.agent as client, _agents(server) as agents:
            return _run(server, client, agents, screen, root)
    except KeyboardInterrupt:
        screen.say("stopped: agents, server and database are gone", "red")
        return 130
    except WorkleaseError as error:
        screen.say(str(error), "red")
        return 1


def _interrupt(*_: object) -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # what follows is bounded, and leaves nothing behind
    raise KeyboardInterrupt


@contextmanager
def _agents(server: Server) -> Iterator[Agents]:
    """The agent processes, stopped at the end of the block."""
    agents: Agents = {}
    try:
        for name in ["planner", *(f"auditor-{n}" for n in range(1, AUDITORS + 1))]:
            agents[f"local-{name}"] = _start(server, f"local-{name}")
        yield agents
    finally:
        _stop(agents)


def _run(server: Server, client: Client, agents: Agents, screen: Screen, root: Path) -> int:
    began = time.monotonic()
    screen.say(f"{server.url}, {len(agents)} agent processes; auditing {root}")
    plan = client.tasks.create(
        title="plan",
        payload={"root": str(root)},
        execution_profile={"worker": {"mode": "select", "required_capabilities": ["plan"]}},
    )
    planned = client.wait(plan.id, timeout=LIMIT_SECONDS)
    if planned.status != "completed":
        screen.say(
            f"the plan is {planned.status}: {client.tasks.get(plan.id).runs[0].error}", "red"
        )
        return 1
    story = Story()
    with screen.showing():
        victim = _watch(client, story, screen, _killer(agents, screen), began)
    return _judge(client, story, screen, planned, victim)


def _start(server: Server, name: str) -> subprocess.Popen[bytes]:
    role = "plan" if "planner" in name else "audit"
    with (server.directory / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "agent_sdk.demo.agents", role],
            env={**server.environment, "WORKLEASE_AGENT_NAME": name},
            stdin=subprocess.PIPE,  # when it closes, the demo is gone
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the demo, which stops its agents
        )


def _watch(
    client: Client,
    story: Story,
    screen: Screen,
    kill: Callable[[Client, Story], str | None],
    began: float,
) -> str | None:
    """Follow the log to its end; the task whose agent was killed."""
    victim: str | None = None
    while time.monotonic() - began < LIMIT_SECONDS:
        story.read(client.events.each(after_sequence=story.sequence))
        screen.show(story, victim)
        if story.over:
            break
        done = story.counts()["completed"] / max(len(story.tasks), 1)
        if victim is None and done >= KILL_AT:
            victim = kill(client, story)
        client.transport.pause(LOOK_SECONDS)
    return victim


def _killer(agents: Agents, screen: Screen) -> Callable[[Client, Story], str | None]:
    """A function that kills an agent which holds a lease, and answers the task it held."""

    def kill(client: Client, story: Story) -> str | None:
        # The youngest lease first: its holder is surely in the middle of the work.
        for held in sorted(story.held.values(), key=lambda held: held.since, reverse=True):
            process = agents.get(held.agent)
            if process is None:
                continue
            # Stopped first: so it is certain that it dies with the lease in its hands.
            process.send_signal(signal.SIGSTOP)
            client.transport.pause(LOOK_SECONDS)
            story.read(client.events.each(after_sequence=story.sequence))
            mine = [lease for lease in story.held.values() if lease.agent == held.agent]
            if mine:
                process.kill()
                title = story.tasks[mine[0].task_id].title
                screen.say(f"killed {held.agent} (SIGKILL) while it held {title}", "red")
                return mine[0].task_id
            process.send_signal(signal.SIGCONT)
        return None

    return kill


def _judge(client: Client, story: Story, screen: Screen, planned: Task, victim: str | None) -> int:
    expected = planned.result["files"] + planned.result["folders"] + 2
    faults = list(story.faults(expected))
    if victim is None:
        faults.append("no agent was killed")
    else:
        title = story.tasks[victim].title
        items = client.tasks.timeline(victim).timeline
        screen.timeline(f"What became of {title}", items, story.agents)
        if not story.recovered(victim):
            faults.append(f"{title} was not recovered from the agent that was killed")
    for fault in faults[:FAULTS_SHOWN]:
        screen.say(fault, "red")
    if faults:
        return 1
    path = REPORT.resolve()
    path.parent.mkdir(exist_ok=True)
    report = client.wait(planned.result["report"], timeout=1)
    path.write_text(report.result["markdown"])
    screen.say(
        f"proved from {story.sequence} events: {expected} tasks, each completed exactly once and in"
        " dependency order; the killed agent's lease ran out and its work was done by another",
        "green",
    )
    screen.say(f"report: {path}")
    return 0


def _stop(agents: Agents) -> None:
    for process in agents.values():
        process.terminate()
    for process in agents.values():
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdin is not None:
            process.stdin.close()
