"""Cursors: where the next page of a list begins, valid for that list only."""

import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from server.errors import Problem

CHECK_BYTES: Final = 9


def encode_cursor(scope: bytes, values: Sequence[Any]) -> str:
    """A cursor behind the row with these sort values; scope names list, workspace and filters."""
    text = msgspec.json.encode(values)
    return urlsafe_b64encode(_check(scope, text) + text).rstrip(b"=").decode()


def decode_cursor(scope: bytes, cursor: str) -> list[Any]:
    """The sort values of a cursor; Problem invalid_cursor unless it was made for this scope."""
    try:
        raw = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
    except ValueError:
        raise Problem("invalid_cursor") from None
    check, text = raw[:CHECK_BYTES], raw[CHECK_BYTES:]
    if check != _check(scope, text):
        raise Problem("invalid_cursor")
    return msgspec.json.decode(text, type=list[Any])


def _check(scope: bytes, text: bytes) -> bytes:
    return hashlib.sha256(len(scope).to_bytes(4, "big") + scope + text).digest()[:CHECK_BYTES]
