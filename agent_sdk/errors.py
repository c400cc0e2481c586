"""What can go wrong (ApiError and its kin), and what a handler may raise to end its run."""
# ruff: noqa: N818 - LeaseLost says it without an Error behind

from collections.abc import Sequence
from typing import Any

import msgspec

NAME_ADVICE = ": set WORKLEASE_AGENT_NAME (or agent_name=...)"


class WorkleaseError(Exception):
    """Everything that the SDK raises."""


class ConfigError(WorkleaseError):
    """No key was found, or a setting makes no sense."""


class ConnectionFailed(WorkleaseError):
    """The server could not be reached within the time allowed for the call."""


class ApiError(WorkleaseError):
    """The server refused; branch on `code`, the texts are for people."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: int = 409,
        evidence: dict[str, Any] | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        body: bytes = b"",
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.evidence = evidence or {}
        self.request_id = request_id
        self.retry_after = retry_after
        self.body = body

    def __str__(self) -> str:
        facts = [self.code, *(f"{name}: {fact}" for name, fact in self.evidence.items())]
        if self.request_id:
            facts.append(f"request {self.request_id}")
        nameless = (self.code, self.evidence.get("header")) == ("identity_required", "X-Agent-Name")
        advice = NAME_ADVICE if nameless else ""
        return f"{self.message} ({', '.join(facts)}){advice}"


class NotFound(ApiError):
    """The object is unknown, deleted, or in another workspace."""


class Conflict(ApiError):
    """The state of the object does not allow the call."""


class Denied(ApiError):
    """The key is missing, wrong, or may not do this."""


class Invalid(ApiError):
    """The request itself is wrong; a repeat would be refused again."""


class Unavailable(ApiError):
    """The server is overloaded, draining or without its database; try later."""


class LeaseLost(ApiError):
    """The right to the run is gone: stop working, nothing that is handed in now counts."""


class Cancelled(LeaseLost):
    """The run was cancelled, or its holder is asked to stop."""


class BudgetExhausted(LeaseLost):
    """The task's budget is spent: the run is given back and waits until there is more."""


class Outcome(Exception):
    """What a handler raises to end its run otherwise than by returning a result."""


class Retry(Outcome):
    """Fail this attempt and try again, after `after` seconds or the task's own back-off."""

    def __init__(self, after: float | None = None, *, error: str = "retry requested") -> None:
        super().__init__(error)
        self.after = after
        self.error = error


class Fail(Outcome):
    """Fail the run, for good unless `retryable`."""

    def __init__(self, error: str, *, kind: str = "error", retryable: bool = False) -> None:
        super().__init__(error)
        self.error = error
        self.kind = kind
        self.retryable = retryable


class Release(Outcome):
    """Give the run back without burning an attempt; the next holder reads the note."""

    def __init__(self, note: str | None = None, *, delay: float = 0) -> None:
        super().__init__(note or "released")
        self.note = note
        self.delay = delay


class WaitFor(Outcome):
    """Give the run back until the children are done; then the handler runs again."""

    def __init__(self, children: Sequence[Any], *, checkpoint: Any = None) -> None:
        super().__init__(f"waits for {len(children)} tasks")
        self.children = children
        self.checkpoint = checkpoint


_BY_CODE: dict[str, type[ApiError]] = {
    "stale_fence": LeaseLost,
    "lease_expired": LeaseLost,
    "lease_revoked": LeaseLost,
    "lease_released": LeaseLost,
    "no_active_lease": LeaseLost,
    "foreign_run": LeaseLost,
    "run_canceled": Cancelled,
}
_BY_STATUS: dict[int, type[ApiError]] = {
    400: Invalid,
    401: Denied,
    403: Denied,
    404: NotFound,
    405: Invalid,
    409: Conflict,
    412: Conflict,
    413: Invalid,
    415: Invalid,
    422: Invalid,
    429: Unavailable,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}

# The answers to a holder's own call that mean, beside LeaseLost, that what it held is not its.
IS_GONE = frozenset(
    {
        "task_run_already_terminal",
        "run_not_found",
        "invalid_claim_token",
        "review_already_recorded",
        "review_closed",
        "review_not_found",
    }
)


class Diagnostic(msgspec.Struct, frozen=True):
    """What is wrong: programs read `code` and `evidence`, the texts are for people."""

    code: str
    message: str = ""
    id: str = ""
    evidence: dict[str, Any] = {}
    severity: str = "error"
    category: str = ""
    title: str = ""
    suggested_command: str | None = None
    doc_url: str | None = None
    data_freshness: str = "live"


class Envelope(msgspec.Struct, frozen=True):
    """The body of every refusal, and of every failed item of a bulk answer."""

    diagnostic: Diagnostic
    error: str = ""


def make(
    envelope: Envelope,
    *,
    status: int = 409,
    request_id: str | None = None,
    retry_after: float | None = None,
    body: bytes = b"",
) -> ApiError:
    """The exception for an envelope: by its code, else by its status."""
    diagnostic = envelope.diagnostic
    kind = _BY_CODE.get(diagnostic.code) or _BY_STATUS.get(status, ApiError)
    return kind(
        diagnostic.code,
        envelope.error or diagnostic.message,
        status=status,
        evidence=diagnostic.evidence,
        request_id=request_id or diagnostic.id.partition(".")[2] or None,
        retry_after=retry_after,
        body=body,
    )


def from_answer(status: int, headers: Any, body: bytes) -> ApiError:
    """The exception for an answer with a status of 400 or more, whoever wrote its body."""
    try:
        envelope = msgspec.json.decode(body, type=Envelope)
    except msgspec.MsgspecError:
        text = f"the server answered {status} without saying why"
        envelope = Envelope(Diagnostic("unexpected_answer", text))
    after: str = headers.get("Retry-After", "")
    return make(
        envelope,
        status=status,
        request_id=headers.get("X-Request-ID"),
        retry_after=float(after) if after.isdigit() else None,
        body=body,
    )


def is_about_usage(refusal: Invalid) -> bool:
    """Whether it is the reported usage that the server refused, and not what came with it."""
    faults: list[dict[str, Any]] = refusal.evidence.get("errors") or []
    named = any(str(fault.get("field")).startswith("usage") for fault in faults)
    return named or refusal.code == "currency_mismatch"


def as_lost(error: ApiError) -> LeaseLost | None:
    """The LeaseLost that an answer to the holder's own call means; None if it means something else.

    What ended the lease is told by the code, which stays as it was.
    """
    if isinstance(error, LeaseLost) or error.code in IS_GONE:
        return lost(error)
    return None


def lost(error: ApiError) -> LeaseLost:
    """What ended a lease, as what its holder is told."""
    if isinstance(error, LeaseLost):
        return error
    return LeaseLost(
        error.code,
        error.message,
        status=error.status,
        evidence=error.evidence,
        request_id=error.request_id,
    )
