"""What goes wrong while clients call: each kind by its name, and when it comes."""

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

import psycopg

from server.db import schema
from tests.proof.histories.agents import LEASE_SECONDS
from tests.proof.histories.calls import Call, Ledger
from tests.proof.histories.field import Caller, Field
from tests.proof.histories.sdk import NAME, Sleeper
from tests.proof.histories.stage import Stage
from tests.proof.histories.wire import RATES, Wire

DROP_ALL = """
select count(pg_terminate_backend(pid)) from pg_stat_activity
 where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'
"""
HOUR = 3600
# For how many calls a worker is waited for that has nothing to do.
PATIENCE = 100
# Of a hundred disturbances so many are of this kind.
WEIGHTS = {
    "server killed": 12, "database restarted": 4, "database killed": 6, "connections dropped": 28,
    "network cut": 25, "clock wrong": 25, "worker paused": 15,
}  # fmt: skip
ALL = frozenset(WEIGHTS) | frozenset(RATES)
CHEAP = ALL - {"database restarted", "database killed"}


class Clock:
    """Time: it goes beyond the end of all leases at once, now and then."""

    def __init__(self, conninfo: str, ledger: Ledger, dice: random.Random) -> None:
        self.conninfo, self.ledger, self.dice = conninfo, ledger, dice

    async def pass_by(self, field: Field, apart: int) -> None:
        """Goes on until the round is over."""
        while not field.over:
            await self.ledger.later(self.dice.randint(apart // 2, apart * 3 // 2))
            await self.move(LEASE_SECONDS + 1)

    async def move(self, seconds: float) -> None:
        """Moves the servers' clock forward; how far it got is not known if the database is away."""
        ahead = self.ledger.ahead
        ahead[1] += seconds
        try:
            await asyncio.to_thread(schema.move_clock, self.conninfo, seconds)
        except (schema.SchemaError, psycopg.OperationalError):
            return
        ahead[0] += seconds


class Chaos:
    """Disturbs a round; `met` counts what happened."""

    def __init__(
        self, stage: Stage, wire: Wire, clock: Clock, field: Field, callers: Sequence[Caller],
        sleeper: Sleeper | None, dice: random.Random, faults: frozenset[str],
    ) -> None:  # fmt: skip
        self.stage, self.wire, self.clock, self.field = stage, wire, clock, field
        self.callers, self.sleeper, self.dice = callers, sleeper, dice
        self.met: Counter[str] = Counter()
        known: dict[str, Callable[[], Awaitable[None]]] = {
            "server killed": self._kill, "database restarted": self._restart,
            "database killed": self._crash, "connections dropped": self._drop,
            "network cut": self._cut, "clock wrong": self._confuse, "worker paused": self._pause,
        }  # fmt: skip
        self.kinds = {name: how for name, how in known.items() if name in faults}

    async def rage(self, ledger: Ledger, apart: int, calls: int) -> None:
        """Goes on until so many calls were made: one disturbance after so many calls, about.

        First of each kind one, then any; and not before each kind of fault has happened.
        """
        while len(ledger.calls) < calls or not self._complete():
            await ledger.later(self.dice.randint(apart // 2, apart * 3 // 2))
            if self.kinds:
                weights = [0 if self.met[name] else 1 for name in self.kinds]
                weights = weights if any(weights) else [WEIGHTS[name] for name in self.kinds]
                [name] = self.dice.choices(list(self.kinds), weights)
                await self.kinds[name]()
                self.met[name] += 1

    def _complete(self) -> bool:
        return (
            self.kinds.keys() <= self.met.keys() and self.wire.rates.keys() <= self.wire.met.keys()
        )

    async def _kill(self) -> None:
        await self.stage.kill(self.dice.choice(self.stage.servers))

    async def _restart(self) -> None:
        await self._away(signal.SIGINT)

    async def _crash(self) -> None:
        await self._away(self.dice.choice([signal.SIGQUIT, signal.SIGKILL]))

    async def _away(self, how: signal.Signals) -> None:
        """Clients that are refused meanwhile wait until the database is back."""
        self.field.up.clear()
        try:
            await self.stage.restart(how)
        finally:
            self.field.up.set()

    async def _drop(self) -> None:
        await asyncio.to_thread(_drop_all, self.stage.conninfo)

    async def _cut(self) -> None:
        self.wire.cut()

    async def _confuse(self) -> None:
        self.dice.choice(self.callers).skew = self.dice.uniform(-12, 12) * HOUR

    async def _pause(self) -> None:
        """Stops the worker while it asks as a holder, until its lease is long over."""
        assert self.sleeper is not None
        asks = asyncio.get_running_loop().create_future()

        def watch(call: Call) -> None:
            holds = call.headers.get("x-agent-name") == NAME and call.path.endswith("/heartbeat")
            if holds and not asks.done():
                asks.set_result(None)

        self.wire.watch = watch
        waits = asyncio.ensure_future(self.field.ledger.later(PATIENCE))
        await asyncio.wait([asks, waits], return_when=asyncio.FIRST_COMPLETED)
        self.sleeper.process.send_signal(signal.SIGSTOP)
        await self.clock.move(LEASE_SECONDS + 1)
        await self.field.ledger.later(self.dice.randint(30, 90))
        self.sleeper.process.send_signal(signal.SIGCONT)


def _drop_all(conninfo: str) -> None:
    try:
        with psycopg.connect(conninfo, autocommit=True) as connection:
            connection.execute(DROP_ALL)
    except psycopg.OperationalError:
        pass
