"""Batches: what goes wrong in one stays in it."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

import pytest

from server.api.batch import Batcher
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
