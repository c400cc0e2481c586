"""What any JSON value of a caller must keep to."""

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from server import limits

REFUSED_NAME: Final = "claim_token"
# An integer of fewer digits than this is finite as a float64.
HUGE_NUMBER: Final = b"0" * 309
DIGITS_TO_ZERO: Final = bytes.maketrans(b"123456789", b"000000000")


class UnfitJsonError(ValueError):
    """A free JSON value that breaks a rule; code is the error code it calls for."""

    def __init__(self, code: str, rule: str, message: str) -> None:
        self.code = code
        self.rule = rule
        super().__init__(message)


def compact(value: Any, limit_bytes: int, refuses_tokens: bool) -> str:
    """The compact form of a decoded value; UnfitJsonError if it breaks a rule."""
    try:
        encoded = msgspec.json.encode(value)
    except RecursionError:
        raise _too_deep() from None
    if len(encoded) > limit_bytes:
        raise UnfitJsonError("value_too_large", "size", f"is larger than {limit_bytes} bytes")
    # The text tells cheaply that most values cannot break a rule; only the others are walked.
    if encoded.count(b"{") + encoded.count(b"[") > limits.JSON_NESTING_LIMIT_LEVELS:
        _check_depth(value)
    if (
        b"\\u0000" in encoded
        or (refuses_tokens and REFUSED_NAME.encode() in encoded.lower())
        or HUGE_NUMBER in encoded.translate(DIGITS_TO_ZERO)
    ):
        _check_leaves(value, refuses_tokens)
    return encoded.decode()


def _inside(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(limits.JSON_NESTING_LIMIT_LEVELS):
        level = [c for outer in level for c in _inside(outer) if isinstance(c, dict | list)]
        if not level:
            return
    raise _too_deep()


def _check_leaves(value: Any, refuses_tokens: bool) -> None:
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, int):
        _check_number(value)
    elif isinstance(value, dict | list):
        if isinstance(value, dict):
            for name in value:
                _check_text(name)
                if refuses_tokens and name.lower() == REFUSED_NAME:
                    raise UnfitJsonError("secret_in_json", "secret", "may not hold a claim_token")
        for item in _inside(value):
            _check_leaves(item, refuses_tokens)


def _check_text(value: str) -> None:
    if "\0" in value:
        raise UnfitJsonError("validation_failed", "characters", "holds U+0000")


def _check_number(value: int) -> None:
    try:
        float(value)
    except OverflowError:
        raise UnfitJsonError("validation_failed", "number", "holds a number too large") from None


def _too_deep() -> UnfitJsonError:
    levels = limits.JSON_NESTING_LIMIT_LEVELS
    return UnfitJsonError("validation_failed", "nesting", f"is nested over {levels} levels deep")
