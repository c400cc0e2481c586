"""Approval: a human gate before work."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from server import limits
from server.contract.base import Actor, Answer, Patch, Reason, Request, Time

ApprovalPolicy = Literal["none", "manual"]
ApprovalState = Literal["not_required", "pending", "approved", "rejected"]
OnApprovalTimeout = Literal["wait", "reject"]
ApprovalTimeout = Annotated[
    int, Meta(ge=limits.APPROVAL_TIMEOUT_MIN_SECONDS, le=limits.APPROVAL_TIMEOUT_LIMIT_SECONDS)
]


class Approval(Answer):
    """Whether a task waits for an approval, and how it was decided."""

    approval_policy: ApprovalPolicy
    approval_state: ApprovalState
    approval_timeout_seconds: int | None
    on_approval_timeout: OnApprovalTimeout
    approval_requested_at: Time | None
    approval_decided_at: Time | None
    approval_decided_by: Actor | None
    approval_reason: str | None
    approval_expired: bool


class ApprovalFields(Request):
    """Whether a new task needs an approval."""

    approval_policy: ApprovalPolicy | UnsetType = UNSET
    approval_timeout_seconds: ApprovalTimeout | UnsetType = UNSET
    on_approval_timeout: OnApprovalTimeout | UnsetType = UNSET


class ApprovalPatch(Patch):
    """What is to change in the approval of a task."""

    approval_policy: ApprovalPolicy | UnsetType = UNSET
    approval_timeout_seconds: ApprovalTimeout | UnsetType | None = UNSET
    on_approval_timeout: OnApprovalTimeout | UnsetType = UNSET


class RejectRequest(Request):
    """Why a task is not approved."""

    reason: Reason | None = None
