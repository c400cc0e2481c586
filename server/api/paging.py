"""Answers made of JSON that the database has rendered."""

from typing import Any, Final

from server.api.context import Context
from server.contract.base import Encoded, PageQuery

# Greater than every id: where a list by falling id begins.
BEHIND_ALL: Final = "~"


def page(
    ctx: Context, query: PageQuery, name: str, items: str, count: int, *last: Any
) -> Encoded[Any]:
    """A page of a list; last: the sort values of its last row."""
    more = count == query.limit
    cursor = f'"{ctx.cursor(query, *last)}"' if more else "null"
    return Encoded(f'{{"{name}":{items},"next_cursor":{cursor}}}'.encode())


def pages(
    ctx: Context, query: PageQuery, name: str, rows: list[tuple[Any, ...]], *,
    extra: str = "", more: bool | None = None,
) -> Encoded[Any]:  # fmt: skip
    """A page of rows, each its JSON and then its sort values; more: whether others follow."""
    if more is None:
        more = len(rows) == query.limit
    cursor = f'"{ctx.cursor(query, *rows[-1][1:])}"' if more and rows else "null"
    items = ",".join(row[0] for row in rows)
    return Encoded(f'{{"{name}":[{items}],{extra}"next_cursor":{cursor}}}'.encode())
