"""What there is to know of a request's Struct beyond what msgspec checks itself."""

from typing import Any, NamedTuple

import msgspec
from msgspec import inspect

from server.contract.base import FreeJson, Patch


class Member(NamedTuple):
    """A field of a Struct as the slow path and the text check need it."""

    name: str
    annotation: Any
    required: bool
    nullable: bool
    # Exactly one of these says what the field, or each item of its list, is made of.
    struct: "Shape | None"
    free: type[FreeJson] | None
    text: bool
    # The values of an enum.
    choices: tuple[str, ...]
    many: bool
    limit_bytes: int | None
    # Of a list of Structs: how many there may be before the request is refused as a whole.
    most: int | None
    blank_is_null: bool


class Shape:
    """What there is to know of a Struct, found once."""

    def __init__(self, struct: type[msgspec.Struct]) -> None:
        self.struct = struct
        self.is_patch = issubclass(struct, Patch)
        self.immutable: frozenset[str] = getattr(struct, "immutable", frozenset())
        typed = {field.name: field.type for field in msgspec.structs.fields(struct)}
        self.members = tuple(_member(f, typed[f.name]) for f in struct_fields(struct))
        self.names = frozenset(member.name for member in self.members)
        self.texts = tuple((m.name, m.limit_bytes) for m in self.members if m.text and not m.many)
        self.lists = tuple((m.name, m.limit_bytes) for m in self.members if m.text and m.many)
        self.inner = tuple((m.name, m.struct, m.many) for m in self.members if m.struct)

    def is_tidy(self, value: Any) -> bool:
        """Whether every text is trimmed, not blank, without U+0000 and short enough in bytes."""
        for name, limit in self.texts:
            text = getattr(value, name)
            if text.__class__ is str and not _is_tidy(text, limit):
                return False
        for name, limit in self.lists:
            for text in getattr(value, name) or ():
                if not _is_tidy(text, limit):
                    return False
        for name, shape, many in self.inner:
            inner = getattr(value, name)
            if inner is None or inner is msgspec.UNSET:
                continue
            if many and not all(shape.is_tidy(item) for item in inner):
                return False
            if not many and not shape.is_tidy(inner):
                return False
        return True


def _is_tidy(text: str, limit_bytes: int | None) -> bool:
    # strip() answers the same object if there is nothing to strip.
    if not text or text.strip() is not text or "\0" in text:
        return False
    return limit_bytes is None or text.isascii() or len(text.encode()) <= limit_bytes


def struct_fields(struct: type[msgspec.Struct]) -> tuple[inspect.Field, ...]:
    """The fields of a Struct, as msgspec reads their annotations."""
    info = inspect.type_info(struct)
    return info.fields if isinstance(info, inspect.StructType) else ()


def plain_types(field: inspect.Field) -> list[tuple[inspect.Type, dict[str, Any]]]:
    """The types a field may have, each with what its annotation says besides."""
    types = field.type.types if isinstance(field.type, inspect.UnionType) else (field.type,)
    return [_plain_type(part) for part in types]


def _plain_type(part: inspect.Type) -> tuple[inspect.Type, dict[str, Any]]:
    return (part.type, part.extra or {}) if isinstance(part, inspect.Metadata) else (part, {})


def _member(field: inspect.Field, annotation: Any) -> Member:
    types = plain_types(field)
    lists = [part for part, _ in types if isinstance(part, inspect.ListType)]
    if lists:
        types += [_plain_type(part.item_type) for part in lists]
    structs = [part.cls for part, _ in types if isinstance(part, inspect.StructType)]
    frees = [part.cls for part, _ in types if isinstance(part, inspect.CustomType)]
    texts = [(p, extra) for p, extra in types if isinstance(p, inspect.StrType)]
    limits = [p.max_length for p, extra in texts if extra.get("unit") == "bytes"]
    return Member(
        name=field.encode_name,
        annotation=annotation,
        required=field.required,
        nullable=any(isinstance(part, inspect.NoneType) for part, _ in types),
        struct=Shape(structs[0]) if structs else None,
        free=frees[0] if frees else None,
        text=bool(texts),
        choices=tuple(
            str(value)
            for part, _ in types
            if isinstance(part, inspect.LiteralType)
            for value in part.values
        ),
        many=bool(lists),
        limit_bytes=limits[0] if limits else None,
        most=next((extra["most"] for _, extra in plain_types(field) if "most" in extra), None),
        blank_is_null=any(extra.get("blank") == "null" for _, extra in types),
    )
