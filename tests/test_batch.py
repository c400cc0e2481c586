"""Batches: what goes wrong in one stays in it."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

import pytest

from server.api.batch import Batcher
from server.db.pool import Busy
from server.errors import Problem


class Call(NamedTuple):
    """A call that is about nothing else."""

    one: str


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_fault_in_one_batch_does_not_hold_up_the_batches_behind_it() -> None:
    async def serve(workspace_id: str, calls: Sequence[Call]) -> list[str]:
        if workspace_id == "broken":
            raise KeyError(workspace_id)
        return [call.one for call in calls]

    batcher: Batcher[Call, str] = Batcher("test", serve, 10, 5.0, lambda _: True)
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    calls = (batcher.submit(name, Call(name)) for name in ("broken", "sound"))
    async with asyncio.timeout(5):
        broken, sound = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(broken, Problem)
    assert (broken.code, sound) == ("internal_error", "sound")


async def test_a_workspace_that_is_held_up_is_served_aside() -> None:
    """The others do not wait for it, nor for what comes of it meanwhile; then it comes back."""
    free, log = asyncio.Event(), []

    async def first(workspace_id: str, calls: Sequence[Call]) -> list[str]:
        log.append(workspace_id)
        if workspace_id == "held" and not free.is_set():
            raise Busy
        return [call.one for call in calls]

    async def second(workspace_id: str, calls: Sequence[Call]) -> list[str]:
        await free.wait()
        return [call.one for call in calls]

    aside: Batcher[Call, str] = Batcher("test", second, 10, 5.0, lambda _: True)
    batcher: Batcher[Call, str] = Batcher("test", first, 10, 5.0, lambda _: True, aside)
    async with asyncio.timeout(5):
        held = [asyncio.ensure_future(batcher.submit("held", Call(f"{n}"))) for n in range(12)]
        for n in range(5):
            assert await batcher.submit("sound", Call(f"{n}")) == f"{n}"
            held.append(asyncio.ensure_future(batcher.submit("held", Call(f"later {n}"))))
        assert log.count("held") == 1
        free.set()
        assert [await call for call in held][-1] == "later 4"
        assert (await batcher.submit("held", Call("again")), log[-1]) == ("again", "held")


async def test_who_meets_a_lock_does_not_hold_up_the_other_calls_of_its_workspace() -> None:
    free = asyncio.Event()

    async def serve(_: str, calls: Sequence[Call]) -> list[str]:
        await asyncio.sleep(0)
        if not free.is_set() and any(call.one.startswith("held") for call in calls):
            raise Busy
        return [call.one for call in calls]

    batcher: Batcher[Call, str] = Batcher("test", serve, 100, 5.0, lambda _: True)
    names = [f"{'held' if n % 3 == 0 else 'free'} {n}" for n in range(30)]
    calls = {name: asyncio.ensure_future(batcher.submit("one", Call(name))) for name in names}
    async with asyncio.timeout(5):
        for name in names[1::3] + names[2::3]:
            assert await calls[name] == name
        assert not any(calls[name].done() for name in names[::3])
        free.set()
        assert [await calls[name] for name in names[::3]] == names[::3]
