"""Sends what subscribers are to be told; a receiver that hangs holds up nobody but itself."""

import asyncio
from collections import Counter
from functools import partial

from server import limits
from server.db.pool import Asked, Database, Fault
from server.errors import Problem
from server.loops.every import in_pieces, in_turn
from server.net.outbound import Outbound, Posted
from server.rules.seals import Seal
from server.rules.webhooks import signed_headers
from server.store import bridges, deliveries
from server.store.deliveries import Message
from server.telemetry import DeliveryMade, LoopFailed, occur


class Deliveries:
    """The deliveries of one process: begun by each pass, ended in their own time."""

    def __init__(
        self, db: Database, begin: Asked, outbound: Outbound, seal: Seal, concurrency: int
    ) -> None:
        self._db = db
        # Waits for no lock for long: one workspace must not hold up the others.
        self._begin = begin
        self._outbound = outbound
        self._seal = seal
        self._concurrency = concurrency
        self._per_bridge = max(1, concurrency // 4)
        self._under_way: dict[asyncio.Task[None], str] = {}
        self._resealed = False
        self._stopping = False

    async def run_once(self) -> int:
        """Reads the logs on, and begins as many deliveries as there is room for; how many."""
        if not self._resealed:
            await self._reseal()
        await self._follow()
        room = self._concurrency - len(self._under_way)
        if room <= 0:
            return 0
        load = Counter(self._under_way.values())
        messages = await deliveries.take_deliveries(
            self._begin, limit=room, per_bridge=self._per_bridge,
            busy=[bridge_id for bridge_id, count in load.items() if count >= self._per_bridge],
            hold_seconds=limits.DELIVERY_HOLD_SECONDS,
        )  # fmt: skip
        for message in messages:
            task = asyncio.create_task(self._deliver(message))
            self._under_way[task] = message.bridge_id
            task.add_done_callback(self._under_way.pop)
        return len(messages)

    async def idle(self) -> None:
        """Returns when nothing is under way."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    async def stop(self) -> None:
        """Ends what is under way, if it can be ended in time."""
        self._stopping = True
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=limits.DELIVERY_LIMIT_SECONDS)
        await self.abandon()

    async def abandon(self) -> None:
        """Leaves what is under way; whoever finds its time up sends it again."""
        for task in list(self._under_way):
            task.cancel()
        await self.idle()

    async def _follow(self) -> None:
        size = limits.FOLLOW_PAGE_COUNT

        async def follow(workspace_id: str) -> int:
            read = partial(deliveries.follow_log, self._begin, workspace_id, size)
            return await in_pieces(read, size, limits.FOLLOW_PAGES_COUNT)

        await in_turn("deliveries", await deliveries.logs_to_follow(self._begin), follow)

    async def _deliver(self, message: Message) -> None:
        """Sends a message, then the next ones of the same cursor, in order."""
        following: Message | None = message
        try:
            for left in reversed(range(limits.DELIVERY_CHAIN_COUNT)):
                if following is None:
                    break
                following = await self._attempt(following, go_on=left > 0 and not self._stopping)
        except (Problem, Fault) as error:
            # The attempt is not noted: when its time is up it is made again.
            occur(LoopFailed, loop="deliveries", error=error)

    async def _attempt(self, message: Message, go_on: bool) -> Message | None:
        body = message.body.encode()
        secrets = [text for sealed in message.secrets if (text := self._seal.open(sealed))]
        if secrets:
            headers = signed_headers(message.message_id, message.at, body, secrets)
            posted = await self._outbound.post(message.url, headers, body)
        else:
            posted = Posted(None, "the signing secret cannot be read: rotate it", 0)
        result, following = await deliveries.finish_delivery(
            self._db, workspace_id=message.workspace_id, delivery_id=message.delivery_id,
            http_status=posted.http_status, error=posted.error,
            duration_ms=round(posted.duration_seconds * 1000),
            retry_after_seconds=posted.retry_after_seconds,
            hold_seconds=limits.DELIVERY_HOLD_SECONDS, go_on=go_on,
        )  # fmt: skip
        if result == "suppressed":
            return None
        occur(
            DeliveryMade, value=posted.duration_seconds, result=result, bridge_id=message.bridge_id,
            http_status=posted.http_status,
        )  # fmt: skip
        return following

    async def _reseal(self) -> None:
        """After WORKLEASE_SECRET changed: signing secrets are kept under the new one."""
        after = None
        while page := await bridges.sealed_secrets(self._db, after):
            for workspace_id, bridge_id, *kept in page:
                for sealed in filter(None, kept):
                    renewed = self._seal.renewed(sealed)
                    if renewed is not None:
                        await bridges.reseal(self._db, workspace_id, bridge_id, sealed, renewed)
            after = page[-1][1]
        self._resealed = True
