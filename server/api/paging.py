"""Answers made of JSON that the database has rendered."""

from typing import Any, Final

from server.api.context import Context
from server.contract.base import Encoded, PageQuery

# Greater than every id: where a list by falling id begins.
BEHIND_ALL: Final = "~"


def pages(
    ctx: Context, query: PageQuery, name: str, rows: list[tuple[Any, ...]], *,
    extra: str = "", more: bool | None = None,
) -> Encoded[Any]:  # fmt: skip
    """A page of rows, each its JSON and then its sort values.

    more: whether others follow; if it is not told, a row beyond the limit says so.
    """
    shown, cursor = rows[: query.limit], "null"
    if len(rows) > query.limit if more is None else more:
        cursor = f'"{ctx.cursor(query, *shown[-1][1:])}"'
    items = ",".join(row[0] for row in shown)
    return Encoded(f'{{"{name}":[{items}],{extra}"next_cursor":{cursor}}}'.encode())
