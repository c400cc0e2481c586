"""The lease as async handlers see it: what asks the server is awaited, the loop never blocks."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Unpack

from agent_sdk.fields import SpawnFields, UsageFields
from agent_sdk.graph import Graph
from agent_sdk.lease import Lease, LeaseView
from agent_sdk.types import Dependency, Task


class AsyncLease(LeaseView):
    """The `ctx` of async handlers: the calls of Lease that ask the server, to be awaited."""

    def __init__(self, lease: Lease) -> None:
        super().__init__(lease.claim, lease.hold)
        self._lease = lease

    def check(self) -> None:
        """Raise if the lease is lost."""
        self.hold.raise_loss()

    async def checkpoint(self, state: Any) -> None:
        """Store where the work stands; a later attempt finds it in `previous.checkpoint`."""
        await asyncio.to_thread(self._lease.checkpoint, state)

    async def progress(self, percent: float | None = None, message: str | None = None) -> None:
        """Say how far the work has come, at most once a second."""
        await asyncio.to_thread(self._lease.progress, percent, message)

    async def usage(self, **more: Unpack[UsageFields]) -> None:
        """Add to what this run has used: tokens, cost, tool calls, turns."""
        await asyncio.to_thread(self._lease.usage, **more)

    async def inputs(self) -> AsyncIterator[Dependency]:
        """What the task waited for, each with its whole result, oldest edge first."""
        inputs = self._lease.inputs()
        while (item := await asyncio.to_thread(next, inputs, None)) is not None:
            yield item

    async def spawn(self, name: str, **fields: Unpack[SpawnFields]) -> Task:
        """Make a child of the task, once: another attempt that spawns the name finds the child."""
        return await asyncio.to_thread(self._lease.spawn, name, **fields)

    async def submit(
        self, graph: Graph | Sequence[Mapping[str, Any]], *, name: str = "graph"
    ) -> dict[str, str]:
        """Submit a graph under the lease, once per name; answers the ids by ref."""
        return await asyncio.to_thread(self._lease.submit, graph, name=name)
