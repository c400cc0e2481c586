"""Queries into Structs."""

import re
from datetime import datetime
from typing import Any, Final, Generic, TypeVar
from urllib.parse import parse_qsl

import msgspec

from server.api.decode import MISSING, explained, trim
from server.api.shape import Member, Shape
from server.contract.base import FieldError, Query
from server.errors import Problem

Q = TypeVar("Q", bound=Query)
# msgspec takes 3.0 for an integer.
INTEGER: Final = re.compile(r"[+-]?\d+", re.ASCII)


class QueryDecoder(Generic[Q]):
    """Reads the query of a route into its Struct."""

    def __init__(self, struct: type[Q]) -> None:
        self._struct = struct
        self._members = {member.name: member for member in Shape(struct).members}

    def __call__(self, raw: bytes) -> Q:
        values: dict[str, Any] = {}
        for name, text in query_pairs(raw).items():
            member = self._members.get(name)
            if member is None:
                if name == "workspace":
                    continue
                raise _unknown(name)
            if not text.strip() and name in self._struct.kept_empty:
                values[name] = []
                continue
            value = _query_value(member, text)
            if value is not MISSING:
                values[name] = value
        try:
            return self._struct(**values)
        except FieldError as error:
            message = f"{error.field}: {error}"
            raise Problem("invalid_query", message, parameter=error.field) from None


def query_pairs(raw: bytes) -> dict[str, str]:
    """The parameters of a query, each once."""
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict")
    except ValueError:
        raise Problem("invalid_query", "The query is not UTF-8.", parameter=None) from None
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Problem("invalid_query", f"{twice} is given twice.", parameter=twice)
    return values


def _query_value(member: Member, text: str) -> Any:
    if not text.strip():
        return MISSING
    if "\0" in text:
        raise Problem("invalid_query", parameter=member.name)
    value = (
        [trim(member, part) for part in text.split(",") if part.strip()]
        if member.many
        else trim(member, text)
    )
    try:
        told = msgspec.convert(value, member.annotation, strict=False)
        if isinstance(told, datetime):
            # Or else a number would be the seconds since 1970.
            told = msgspec.convert(value, member.annotation)
    except msgspec.ValidationError as error:
        message = f"{member.name}: {explained(error, member.choices)}"
        raise Problem("invalid_query", message, parameter=member.name) from None
    if type(told) is int and not INTEGER.fullmatch(str(value)):
        message = f"{member.name}: Expected `int`, got `float`"
        raise Problem("invalid_query", message, parameter=member.name)
    return told


def refuse_parameters(raw: bytes) -> None:
    """For routes without parameters of their own."""
    for name in query_pairs(raw):
        if name != "workspace":
            raise _unknown(name)


def _unknown(name: str) -> Problem:
    return Problem("invalid_query", f"There is no parameter {name}.", parameter=name)


def shown_ticket(raw: bytes) -> str | None:
    """The ticket of a stream, if one is shown."""
    return query_pairs(raw).get("ticket") if b"ticket=" in raw else None
