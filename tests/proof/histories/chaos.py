"""What goes wrong while clients call: each kind by its name, and when it comes."""

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

import psycopg

from server.db import schema
from tests.proof.histories.agents import LEASE_SECONDS
from tests.proof.histories.calls import Ledger
from tests.proof.histories.field import Caller, Field
from tests.proof.histories.stage import Stage
from tests.proof.histories.wire import RATES, Wire

DROP_ALL = """
select count(pg_terminate_backend(pid)) from pg_stat_activity
 where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'
"""
HOUR = 3600
# Of a hundred disturbances so many are of this kind.
WEIGHTS = {
    "server killed": 12, "database restarted": 4, "database killed": 6, "connections dropped": 28,
    "network cut": 25, "clock wrong": 25,
}  # fmt: skip
ALL = frozenset(WEIGHTS) | frozenset(RATES)
CHEAP = ALL - {"database restarted", "database killed"}


class Chaos:
    """Disturbs a round; `met` counts what happened."""

    def __init__(
        self, stage: Stage, wire: Wire, field: Field, callers: Sequence[Caller],
        dice: random.Random, faults: frozenset[str],
    ) -> None:  # fmt: skip
        self.stage, self.wire, self.field, self.callers = stage, wire, field, callers
        self.dice = dice
        self.met: Counter[str] = Counter()
        known: dict[str, Callable[[], Awaitable[None]]] = {
            "server killed": self._kill, "database restarted": self._restart,
            "database killed": self._crash, "connections dropped": self._drop,
            "network cut": self._cut, "clock wrong": self._confuse,
        }  # fmt: skip
        self.kinds = {name: how for name, how in known.items() if name in faults}

    async def rage(self, ledger: Ledger, apart: int, calls: int) -> None:
        """Goes on until so many calls were made: one disturbance after so many calls, about.

        First of each kind one, then any.
        """
        while self.kinds and len(ledger.calls) < calls:
            await ledger.later(self.dice.randint(apart // 2, apart * 3 // 2))
            weights = [0 if self.met[name] else 1 for name in self.kinds]
            weights = weights if any(weights) else [WEIGHTS[name] for name in self.kinds]
            [name] = self.dice.choices(list(self.kinds), weights)
            await self.kinds[name]()
            self.met[name] += 1

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


def _drop_all(conninfo: str) -> None:
    try:
        with psycopg.connect(conninfo, autocommit=True) as connection:
            connection.execute(DROP_ALL)
    except psycopg.OperationalError:
        pass


class Clock:
    """Time: it goes beyond the end of all leases at once, now and then."""

    def __init__(self, conninfo: str, ledger: Ledger, dice: random.Random) -> None:
        self.conninfo, self.ledger, self.dice = conninfo, ledger, dice

    async def pass_by(self, apart: int, calls: int) -> None:
        """Goes on until so many calls were made."""
        while len(self.ledger.calls) < calls:
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
