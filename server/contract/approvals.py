"""Approval: a human gate before work."""

from typing import Literal

from server.contract.base import Actor, Answer, Time

ApprovalPolicy = Literal["none", "manual"]
ApprovalState = Literal["not_required", "pending", "approved", "rejected"]
OnApprovalTimeout = Literal["wait", "reject"]


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
