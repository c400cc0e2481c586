"""What a worker holds, a run or a review: what it shows without asking the server."""

import threading
from typing import Any, Generic, TypeVar

from agent_sdk.api.reviews import ReviewClaim
from agent_sdk.hold import Hold
from agent_sdk.types import Claim, Run, TaskReference

C = TypeVar("C", Claim, ReviewClaim)
H = TypeVar("H", bound=Hold)


class HeldWork(Generic[C, H]):
    """A claim, and whether it is still held."""

    def __init__(self, claim: C, hold: H) -> None:
        self.claim: C = claim
        self.hold: H = hold

    @property
    def task(self) -> TaskReference:
        """The task, as it was at the claim."""
        return self.claim.task

    @property
    def run(self) -> Run:
        """The run, as it was at the claim: the one to be done, or to be judged."""
        return self.claim.run

    @property
    def payload(self) -> Any:
        """The work's input."""
        return self.claim.payload

    @property
    def fence(self) -> int:
        """Rises with every claim of the task: a store that remembers it can refuse older ones."""
        return self.claim.lease.fence or 0

    @property
    def lost(self) -> threading.Event:
        """Set when the lease is lost."""
        return self.hold.lost

    @property
    def ended(self) -> bool:
        """Whether this holder ended it, or gave it back."""
        return self.hold.ended
