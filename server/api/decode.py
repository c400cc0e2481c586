"""Bodies into Structs: straight while they are right, field by field to explain what is not."""

import re
from typing import Any, Final, Generic, TypeVar

import msgspec

from server.api.shape import Member, Shape
from server.contract.base import FieldError, FreeJson, Request
from server.errors import Problem
from server.rules.free_json import UnfitJsonError, compact

R = TypeVar("R", bound=Request)

MISSING: Final = object()
OFFSET: Final = re.compile(r"\(byte (\d+)\)")
PLACE: Final = re.compile(r" - at `(?:\$\.(\w+))?[^`]*`$")
RULES: Final = (
    ("missing required", "required"),
    ("of length", "length"),
    (">=", "range"),
    ("<=", "range"),
    ("out of range", "range"),
    ("matching regex", "pattern"),
    ("enum value", "enum"),
    ("timezone", "timezone"),
)


def free_json(kind: type[Any], value: Any) -> Any:
    """msgspec's hook for the one type it does not know."""
    return kind(compact(value, kind.limit_bytes, kind.refuses_tokens))


class BodyDecoder(Generic[R]):
    """Reads the body of a route into its Struct."""

    def __init__(self, struct: type[R]) -> None:
        self._decoder = msgspec.json.Decoder(struct, dec_hook=free_json)
        self._shape = Shape(struct)
        self._struct = struct

    def __call__(self, raw: bytes) -> R:
        try:
            value = self._decoder.decode(raw)
        except (ValueError, RecursionError):
            return self._explain(raw)
        return value if self._shape.is_tidy(value) else self._explain(raw)

    def _explain(self, raw: bytes) -> R:
        """The slow path: neatens what may be neatened, else raises with every fault."""
        given = _parse(raw)
        faults = Faults(given)
        clean = faults.struct(self._shape, given, "")
        if faults.found or faults.refusal:
            raise faults.problem()
        try:
            return msgspec.convert(clean, self._struct, dec_hook=free_json)
        except msgspec.ValidationError as error:
            faults.add("", error)
            raise faults.problem() from None


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.ValidationError, RecursionError):
        raise _unreadable_members(raw) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _malformed(raw, error) from None
    if not isinstance(value, dict):
        raise Problem("malformed_json", offset=0)
    return value


def _malformed(raw: bytes, error: Exception) -> Problem:
    place = OFFSET.search(str(error))
    return Problem("malformed_json", offset=int(place[1]) if place else len(raw))


def _unreadable_members(raw: bytes) -> Problem:
    """What to say of a body that is JSON, but holds what no Struct could."""
    faults = Faults({})
    try:
        members = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except RecursionError:
        faults.found.append(_fault("", "nesting", "is nested too deep"))
        return faults.problem()
    except msgspec.ValidationError:
        return Problem("malformed_json", offset=0)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        # What could not be read came before what is no JSON at all.
        return _malformed(raw, error)
    for name, text in members.items():
        try:
            msgspec.json.decode(text)
        except msgspec.ValidationError as error:
            faults.add(name, error)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return _malformed(raw, error)
        except RecursionError:
            faults.found.append(_fault(name, "nesting", "is nested too deep"))
    return faults.problem()


def explained(error: msgspec.ValidationError, choices: tuple[str, ...]) -> str:
    """What is wrong with a value; of an enum, what it may be."""
    if choices and "enum value" in str(error):
        return f"must be one of {', '.join(choices)}"
    return PLACE.sub("", str(error))


def _fault(field: str, rule: str, message: str) -> dict[str, str]:
    return {"field": field, "rule": rule, "message": message}


class Faults:
    """Collects all that is wrong with a body."""

    def __init__(self, given: dict[str, Any]) -> None:
        self._given = given
        self.found: list[dict[str, str]] = []
        # A fault with a code of its own; told when there is no other.
        self.refusal: Problem | None = None

    def problem(self) -> Problem:
        if self.refusal is not None and not self.found:
            return self.refusal
        first = self.found[0]
        message = f"{first['field'] or 'The body'}: {first['message']}"
        return Problem("validation_failed", message, errors=self.found, **self._item(first))

    def _item(self, first: dict[str, str]) -> dict[str, Any]:
        """Which item of a bulk create the first fault is in."""
        head, _, rest = first["field"].partition(".")
        index, _, field = rest.partition(".")
        if head != "tasks" or not index.isdecimal():
            return {}
        item = self._given["tasks"][int(index)]
        ref = item.get("ref") if isinstance(item, dict) else None
        return {"index": int(index), "ref": ref, "field": field}

    def add(self, path: str, error: msgspec.ValidationError, choices: tuple[str, ...] = ()) -> None:
        cause = error.__cause__
        if isinstance(cause, FieldError):
            self.found.append(_fault(f"{path}{cause.field}", cause.rule, str(cause)))
            return
        message = explained(error, choices)
        rule = next((rule for words, rule in RULES if words in str(error)), "type")
        # A Struct as a whole says itself which of its members it is about.
        place = PLACE.search(str(error)) if not path or path.endswith(".") else None
        member = place[1] if place else None
        self.found.append(_fault(f"{path}{member or ''}".rstrip("."), rule, message))

    def struct(self, shape: Shape, given: Any, path: str) -> Any:
        """The members as they may be converted; what may not is added to the faults."""
        if not isinstance(given, dict):
            self.found.append(_fault(path.rstrip("."), "type", "must be an object"))
            return given
        for name in given:
            if name not in shape.names:
                code = "immutable_field" if name in shape.immutable else "unknown_field"
                place = self._item({"field": f"{path}{name}"})
                raise Problem(code, **(place | {"field": f"{path}{name}"}))
        before = len(self.found)
        clean = {}
        for member in shape.members:
            value = _neaten(member, given.get(member.name, MISSING), shape.is_patch)
            if value is not MISSING:
                clean[member.name] = self.member(member, value, f"{path}{member.name}")
            elif member.required:
                self.found.append(_fault(f"{path}{member.name}", "required", "is required"))
        if path and len(self.found) == before and self.refusal is None:
            try:
                msgspec.convert(clean, shape.struct, dec_hook=free_json)
            except msgspec.ValidationError as error:
                self.add(path, error)
        return clean

    def member(self, member: Member, value: Any, path: str) -> Any:
        if value is not None and member.struct is not None:
            if member.many and isinstance(value, list):
                if member.most is not None and len(value) > member.most:
                    # Telling what is wrong with each of millions would take minutes.
                    raise Problem("bulk_too_large", limit=member.most, count=len(value))
                return [self.struct(member.struct, v, f"{path}.{i}.") for i, v in enumerate(value)]
            if not member.many:
                return self.struct(member.struct, value, f"{path}.")
        if value is not None and member.free is not None:
            self.free(member.free, value, path)
            return value
        for text in value if member.many and isinstance(value, list) else (value,):
            if isinstance(text, str) and "\0" in text:
                self.found.append(_fault(path, "characters", "may not hold U+0000"))
                return value
            limit = member.limit_bytes
            if isinstance(text, str) and limit is not None and len(text.encode()) > limit:
                self.found.append(_fault(path, "length", f"is longer than {limit} bytes"))
                return value
        try:
            msgspec.convert(value, member.annotation)
        except msgspec.ValidationError as error:
            self.add(f"{path}.", error, member.choices)
        return value

    def free(self, kind: type[FreeJson], value: Any, path: str) -> None:
        try:
            compact(value, kind.limit_bytes, kind.refuses_tokens)
        except UnfitJsonError as error:
            if error.code == "validation_failed":
                self.found.append(_fault(path, error.rule, str(error)))
            elif error.code == "value_too_large":
                self.refusal = Problem(error.code, field=path, limit_bytes=kind.limit_bytes)
            else:
                self.refusal = Problem(error.code, field=path)


def _neaten(member: Member, value: Any, is_patch: bool) -> Any:
    """Trims texts, folds enums, and drops what stands for absent."""
    if value is None:
        return value if is_patch else MISSING
    if not (member.text or member.choices) or member.free is not None:
        # A blank in the place of another type is absent as well, where absent is allowed.
        return MISSING if _is_blank(value) and _may_drop(member, is_patch) else value
    if member.many and isinstance(value, list):
        return [trim(member, item) for item in value]
    value = trim(member, value)
    if value == "" and member.blank_is_null:
        return None
    return MISSING if value == "" and _may_drop(member, is_patch) else value


def _is_blank(value: Any) -> bool:
    return isinstance(value, str) and not value.strip()


def _may_drop(member: Member, is_patch: bool) -> bool:
    return member.nullable if is_patch else True


def trim(member: Member, value: Any) -> Any:
    """A text without blanks at its ends, an enum in lower case; other values as they are."""
    if not isinstance(value, str):
        return value
    return value.strip().lower() if member.choices else value.strip()
