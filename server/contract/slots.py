"""What limits the work on tasks: how many of them run at once, and what each may use up."""

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from server import limits
from server.contract.approvals import ApprovalFields, ApprovalPatch
from server.contract.base import Request
from server.contract.leases import Cost, Used

ConcurrencyKey = Annotated[
    str, Meta(min_length=1, max_length=limits.CONCURRENCY_KEY_LIMIT_CHARACTERS)
]
ConcurrencyLimit = Annotated[int, Meta(ge=1, le=limits.CONCURRENCY_LIMIT_RUNS)]


class BudgetInput(Request):
    """What a task may use up; null is unlimited."""

    max_total_tokens: Used | None = None
    max_cost: Cost | None = None

    def __post_init__(self) -> None:
        self.max_cost = None if self.max_cost is None else round(self.max_cost, 6)


class SlotFields(ApprovalFields):
    """What limits the work on a new task."""

    concurrency_key: ConcurrencyKey | UnsetType = UNSET
    concurrency_limit: ConcurrencyLimit | UnsetType = UNSET
    budget: BudgetInput | UnsetType = UNSET

    def __post_init__(self) -> None:
        self.budget = UNSET if self.budget == BudgetInput() else self.budget


class SlotPatch(ApprovalPatch):
    """What is to change in what limits the work on a task."""

    concurrency_key: ConcurrencyKey | UnsetType | None = UNSET
    concurrency_limit: ConcurrencyLimit | UnsetType | None = UNSET
    budget: BudgetInput | UnsetType | None = UNSET

    def __post_init__(self) -> None:
        self.budget = None if self.budget == BudgetInput() else self.budget
