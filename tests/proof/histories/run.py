"""Histories: clients call at once while servers, database and network fail, and all is looked at.

A run goes in rounds, each in a workspace of its own. `run` is for one stage, whatever its servers
and its schema are; `prove` is the part of the proof.
"""

import asyncio
import random
import tempfile
import time
from collections import Counter
from collections.abc import Collection
from functools import partial
from pathlib import Path

import httpx2
import uvloop

from tests.client import Client
from tests.factories import Workspace
from tests.proof.histories.agents import LEASE_SECONDS, Agent, Reviewer
from tests.proof.histories.calls import Ledger
from tests.proof.histories.chaos import ALL, HOUR, Chaos, Clock
from tests.proof.histories.check import Judgement
from tests.proof.histories.field import Caller, Field
from tests.proof.histories.operators import Operator
from tests.proof.histories.sdk import SdkAgent, SdkOperator, Sleeper
from tests.proof.histories.stage import Stage, own_stage
from tests.proof.histories.wire import Wire
from tests.proof.part import Bounds, Told
from tests.serving import Server, until
from tests.world import World

CALLS = 6000
# Each round has a seed of its own: that of the run, and its number.
ROUNDS = 1000
# One of each after so many calls, about.
DISTURBED, LAPSED = 250, 120
LIVE = """
select (select count(*) from lease where workspace_id = %(ws)s and ended_at is null)
     + (select count(*) from review_lease where workspace_id = %(ws)s and ended_at is null)
"""
AHEAD = "select coalesce(extract(epoch from (select offset_by from test_clock)), 0)::float8"


class Round:
    """One workspace, its clients and what they saw."""

    def __init__(self, stage: Stage, seed: int, faults: frozenset[str], calls: int) -> None:
        self.stage, self.seed, self.faults, self.calls = stage, seed, faults, calls
        self.dice = random.Random(seed)
        self.ledger = Ledger()
        self.met: Counter[str] = Counter()
        self.breaches: list[str] = []

    def play(self, told: Told) -> None:
        """Calls, and looks at what came of it."""
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            world = World(self.stage.servers[0])
            workspace = world.workspace(starvation_seconds=604800)
            self.ledger.ahead = [_ahead(world)] * 2
            world.close()
            runner.run(self._live(workspace))
            workspace.world = world = World(self.stage.servers[0])
            workspace.operator = Client(world.http, workspace.operator.key)
            self._judge(world, workspace, told)
            world.close()

    async def _live(self, workspace: Workspace) -> None:
        wire = Wire(self.ledger, self.stage.urls, random.Random(self.seed), self.faults)
        field = Field(await wire.open(), self.ledger, workspace.name)
        callers = self._callers(field, workspace)
        agent, operator = workspace.key("agent"), workspace.key("operator")
        lives = [
            *(caller.live() for caller in callers),
            SdkAgent(field, agent, self.seed).live(),
            SdkOperator(field, operator, self.seed).live(),
        ]
        sleeper = None
        if "worker paused" in self.faults:
            sleeper = Sleeper(field, agent, self.dice.uniform(-12, 12) * HOUR)
        clock = Clock(self.stage.conninfo, self.ledger, random.Random(self.seed + 1))
        chaos = Chaos(
            self.stage, wire, clock, field, callers, sleeper, random.Random(self.seed + 2),
            self.faults,
        )  # fmt: skip
        try:
            async with asyncio.TaskGroup() as group:
                for life in lives:
                    group.create_task(life)
                group.create_task(clock.pass_by(field, LAPSED))
                await chaos.rage(self.ledger, min(DISTURBED, self.calls // 10), self.calls)
                field.over = wire.calm = True
                self.ledger.hurry()
        finally:
            if sleeper is not None:
                sleeper.end()
        await wire.quiet()
        for caller in callers:
            await caller.close()
        await wire.close()
        await clock.move(3 * LEASE_SECONDS)
        self.met += chaos.met + wire.met
        self.breaches += field.breaches

    def _callers(self, field: Field, workspace: Workspace) -> list[Caller]:
        agents: list[Caller] = [
            Agent(f"agent-{n}", field, workspace.agent(), self.seed) for n in range(4)
        ]
        reviewer = Reviewer("reviewer", field, workspace.agent("judge"), self.seed)
        return [*agents, reviewer, *(
            Operator(f"operator-{n}", field, workspace.operator, self.seed) for n in range(2)
        )]  # fmt: skip

    def _judge(self, world: World, workspace: Workspace, told: Told) -> None:
        for server in self.stage.servers:
            until(partial(_is_alone, server))
        until(lambda: world.db.execute(LIVE, {"ws": workspace.id}).fetchone() == (0,))
        judgement = Judgement(self.ledger, workspace.log())
        judgement.histories(world, workspace.id)
        judgement.log()
        judgement.tables(world, workspace.id)
        self.kinds, tried = judgement.kinds, told.tried
        for name, amount in {
            "operations": len(self.ledger.calls),
            "faults": sum(self.met.values()),
            "unknown outcomes": sum(not call.known for call in self.ledger.calls),
            "tasks checked": len(judgement.reading.history),
            "events replayed": len(judgement.events),
            "searches given up": judgement.undecided,
        }.items():
            tried[name] = int(tried.get(name, 0)) + amount
        tried["largest search"] = max(int(tried.get("largest search", 0)), judgement.largest)
        for breach in self.breaches + judgement.breaches:
            told.breaches.append(
                f"seed {self.seed // ROUNDS}, round {self.seed % ROUNDS}: {breach}"
            )


def _is_alone(server: Server) -> bool:
    """Whether a server is at work on no call but the one that asks."""
    told = httpx2.get(f"{server.url}/metrics", trust_env=False).text
    return "worklease_http_requests_in_flight 1.0" in told


def _ahead(world: World) -> float:
    [[ahead]] = world.db.execute(AHEAD)
    return float(ahead)


def run(
    stage: Stage, seed: int, seconds: float, *, faults: Collection[str] = ALL, calls: int = CALLS
) -> Told:
    """Rounds until the time is up or a promise was found broken, at least one."""
    told, kinds, met = Told(), Counter[str](), Counter[str]()
    end, number = time.monotonic() + seconds, 0
    while number == 0 or (time.monotonic() < end and not told.breaches):
        played = Round(stage, seed * ROUNDS + number, frozenset(faults), calls)
        played.play(told)
        kinds += played.kinds
        met += played.met
        number += 1
    told.tried |= {f"fault: {name}": amount for name, amount in sorted(met.items())}
    told.tried |= {f"operation: {name}": amount for name, amount in kinds.most_common()}
    return told


def prove(bounds: Bounds) -> Told:
    """Random histories under every kind of fault."""
    with (
        tempfile.TemporaryDirectory(prefix="worklease-histories-") as directory,
        own_stage(Path(directory)) as stage,
    ):
        return run(stage, bounds.seed, bounds.seconds)
