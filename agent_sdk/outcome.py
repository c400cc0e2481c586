"""How a run ends: the rules that turn what a handler returned or raised into the last call."""
# ruff: noqa: N818 - NotJson says it without an Error behind

import math
import traceback
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from agent_sdk import errors

# The server cuts at the same length; done here, the end of a traceback survives.
ERROR_LIMIT_BYTES = 16 * 1024
NOTE_LIMIT_BYTES = 8 * 1024
MESSAGE_LIMIT_BYTES = 1024
_CUT = "\n…\n"


class NotJson(TypeError):
    """A value has no JSON form."""


class Ending(Struct, frozen=True):
    """The call that ends a run without completing it, and the tasks to wait for before it."""

    verb: Literal["fail", "release"]
    body: dict[str, Any]
    wait_for: Sequence[str] = ()

    @classmethod
    def failed(
        cls,
        error: str,
        *,
        kind: str = "error",
        retryable: bool = True,
        retry_after: float | None = None,
    ) -> "Ending":
        """End the run with an error."""
        body: dict[str, Any] = {
            "error": clean(error, ERROR_LIMIT_BYTES) or kind,
            "failure_kind": kind,
            "retryable": retryable,
        }
        if retry_after is not None:
            body["retry_after_seconds"] = round(retry_after)
        return cls("fail", body)

    @classmethod
    def released(cls, note: str | None = None, *, delay: float = 0) -> "Ending":
        """Give the run back."""
        body: dict[str, Any] = {"delay_seconds": round(delay)}
        if note:
            body["note"] = clean(note, NOTE_LIMIT_BYTES)
        return cls("release", body)


def ending_of(error: BaseException) -> Ending:
    """What an exception that left the handler means for its run."""
    try:
        return _ending_of(error)
    except (NotJson, ArithmeticError, AttributeError, TypeError, ValueError) as unusable:
        # A checkpoint that is not JSON, a delay that is no number, a child that is no task.
        return Ending.failed(describe(unusable), retryable=False)


def _ending_of(error: BaseException) -> Ending:
    match error:
        case errors.Retry():
            return Ending.failed(error.error, retry_after=error.after)
        case errors.Fail():
            return Ending.failed(error.error, kind=error.kind, retryable=error.retryable)
        case errors.Release():
            return Ending.released(error.note, delay=error.delay)
        case errors.WaitFor():
            body = {} if error.checkpoint is None else {"checkpoint": as_json(error.checkpoint)}
            return Ending("release", body, [_id_of(child) for child in error.children])
        case errors.BudgetExhausted():
            return Ending.released("the budget of the task is spent")
        case errors.Cancelled():
            return Ending.failed("cancelled on request", kind="canceled", retryable=False)
    return Ending.failed(describe(error))


def refused_result(refusal: errors.Invalid) -> Ending:
    """What the server's refusal of a result means for the run: the same again would not help."""
    kind = "result_too_large" if refusal.status == 413 else "result_refused"
    return Ending.failed(str(refusal), kind=kind, retryable=False)


def describe(error: BaseException) -> str:
    """An exception as text, the message first since lists show the first line."""
    # Its text as well, since that of some exceptions cannot be made.
    try:
        told = traceback.TracebackException.from_exception(error)
        return f"{type(error).__name__}: {told}\n\n{''.join(told.format())}"
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        # An exception may have any code in it.
        return f"{type.__repr__(type(error))}, which cannot be shown"


def as_json(value: Any) -> msgspec.Raw:
    """The value's JSON, made once; raises NotJson."""
    try:
        text = msgspec.json.encode(value)
        # What becomes null may have been a number that JSON has no form for.
        if b"null" in text:
            _check_numbers(msgspec.to_builtins(value, enc_hook=_checked_before))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise NotJson(f"not JSON: {error}") from error
    return msgspec.Raw(text)


def _checked_before(value: Any) -> None:
    if not isinstance(value, msgspec.Raw):
        raise TypeError(f"{type(value).__name__} has no JSON form")


def _check_numbers(value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is no number of JSON's")
    if isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            _check_numbers(item)


def clean(text: str, limit: int) -> str:
    """The text as the server takes it: no NUL, no lone surrogates, the middle cut if too long."""
    data = text.replace("\0", "").encode("utf-8", "replace")
    if len(data) <= limit:
        return data.decode()
    head = min(1024, limit // 4)
    tail = limit - head - len(_CUT.encode())
    return data[:head].decode("utf-8", "ignore") + _CUT + data[-tail:].decode("utf-8", "ignore")


def _id_of(task: Any) -> str:
    return task if isinstance(task, str) else str(task.id)
