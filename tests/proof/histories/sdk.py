"""Clients that call through agent_sdk: in threads, and a worker that is a process of its own."""

import asyncio
import logging
import os
import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from agent_sdk import Client, Lease, errors
from tests.proof.histories.agents import LEASE_SECONDS
from tests.proof.histories.field import Field

# That servers are away for a while is the point here, and nothing to print.
logging.getLogger("agent_sdk").addHandler(logging.NullHandler())
# Its calls are known by this name.
NAME = "sleeper"
# Its clock is wrong; it tells where it stands all the time, so it can be stopped at any point.
WORKER = """
import time
real = time.time
time.time = lambda: real() + {skew}
from agent_sdk import Worker
worker = Worker(lease_seconds={seconds}, wait_seconds=1)
@worker.task
def handle(ctx):
    for n in range(3):
        ctx.checkpoint(f"step {{n}}")
    return "worked"
worker.run()
"""


class SdkCaller:
    """Calls until the round is over, whatever is refused."""

    name: str
    agent_name: str | None = None

    def __init__(self, field: Field, key: str, seed: int) -> None:
        self.field, self.key = field, key
        self.dice = random.Random(f"{seed} {self.name}")

    async def live(self) -> None:
        """Goes on in a thread of its own."""
        await asyncio.to_thread(self._live)

    def _live(self) -> None:
        with Client(self.field.url, api_key=self.key, agent_name=self.agent_name) as client:
            while not self.field.over:
                try:
                    self._turn(client)
                except errors.WorkleaseError:
                    continue

    def _turn(self, client: Client) -> None:
        raise NotImplementedError


class SdkAgent(SdkCaller):
    """Claims and ends runs."""

    name = "sdk agent"
    agent_name = "worker"

    def _turn(self, client: Client) -> None:
        lease = client.claim(lease_seconds=LEASE_SECONDS, wait_seconds=1)
        if lease is None:
            self.field.hungry += 1
            return
        self.field.runs.append(lease.run.id)
        if self.dice.random() < 0.5:
            lease.checkpoint(f"s{self.dice.randrange(1000)}")
        self._end(lease)

    def _end(self, lease: Lease) -> None:
        word = f"s{self.dice.randrange(1000)}"
        ends: list[Callable[[], Any]] = [
            lambda: lease.complete(word), lambda: lease.complete(word),
            lambda: lease.fail(word), lambda: lease.release(word), lease.heartbeat,
        ]  # fmt: skip
        self.dice.choice(ends)()


class SdkOperator(SdkCaller):
    """Makes tasks and steers them."""

    name = "sdk operator"

    def _turn(self, client: Client) -> None:
        tasks, runs = client.tasks, client.runs
        one = self.dice.choice(self.field.tasks) if self.field.tasks else ""
        run = self.dice.choice(self.field.runs) if self.field.runs else ""
        if not one or self.dice.random() < 0.3:
            new = self.field.new_id()
            self.field.tasks.append(new)
            tasks.create(id=new, title="t", retry={"strategy": "none"}, depends_on=[])
            return
        steps: list[Callable[[], Any]] = [
            lambda: tasks.get(one), lambda: tasks.get(one), lambda: tasks.pause(one, "seen"),
            lambda: tasks.resume(one), lambda: tasks.resume(one), lambda: tasks.approve(one),
            lambda: tasks.start(one), lambda: runs.retry(run), lambda: runs.recover(run),
        ]  # fmt: skip
        self.dice.choice(steps)()


class Sleeper:
    """A worker that is stopped now and then, and goes on as if nothing had been."""

    def __init__(self, field: Field, key: str, skew: float) -> None:
        environ = {k: v for k, v in os.environ.items() if not k.startswith("WORKLEASE_")}
        environ |= {
            "WORKLEASE_URL": field.url, "WORKLEASE_API_KEY": key, "WORKLEASE_AGENT_NAME": NAME,
        }  # fmt: skip
        code = WORKER.format(skew=skew, seconds=LEASE_SECONDS)
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], env=environ, stderr=subprocess.DEVNULL
        )

    def end(self) -> None:
        """Ends it without a word."""
        self.process.kill()
        self.process.wait()
