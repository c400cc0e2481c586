"""Every answer has the fields that callers expect, in their places and with their types."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from tests.answers import ANSWERS
from tests.shapes import object_of
from tests.walk import Answer, walk
from tests.world import World

# Sessions do not fail, what has failed is not active, no command recovers a run, and no summary
# tells the channel.
ALWAYS_NULL = {
    "ActiveRun.error", "BoundSession.failure_kind", "Diagnostic.suggested_command",
    "RunSummary.coordination_channel",
}  # fmt: skip
# tests/test_deliveries.py sees these.
NOT_HERE = {f"Cursor.last_{what}" for what in ("delivered_at", "delivery_id", "error")}
NEVER_SEEN = ALWAYS_NULL | NOT_HERE


@pytest.fixture(scope="module")
def answers(world: World) -> list[Answer]:
    """What came back on a walk over the endpoints."""
    workspace = world.workspace()
    told = walk(workspace)
    assert workspace.faults() == {}
    return told


def test_no_endpoint_is_left_out(answers: list[Answer]) -> None:
    assert {answer.endpoint for answer in answers} == set(ANSWERS)


@pytest.mark.parametrize("endpoint", sorted(ANSWERS))
def test_an_answer_has_its_shape(answers: list[Answer], endpoint: str) -> None:
    status, kind = ANSWERS[endpoint]
    for answer in answers:
        if answer.endpoint == endpoint:
            assert answer.status == status
            assert kind or answer.body == b""
            if kind:
                msgspec.json.decode(answer.body, type=kind)


@pytest.mark.parametrize("endpoint", sorted(ANSWERS))
def test_a_field_that_is_not_there_is_missed(answers: list[Answer], endpoint: str) -> None:
    """So that the test above can fail: each field that it names, taken away once."""
    _, kind = ANSWERS[endpoint]
    for answer in answers:
        if answer.endpoint == endpoint and kind:
            body = msgspec.json.decode(answer.body)
            for place, name in list(_fields(kind, body)):
                value = place.pop(name)
                with pytest.raises(msgspec.ValidationError, match=f"missing required.*`{name}`"):
                    msgspec.convert(body, kind)
                place[name] = value


def test_every_field_was_seen_with_a_value(answers: list[Answer]) -> None:
    """So that its type was looked at."""
    seen: dict[tuple[str, str], bool] = {}
    for answer in answers:
        _, kind = ANSWERS[answer.endpoint]
        if kind:
            for value, name in _values(msgspec.json.decode(answer.body, type=kind)):
                full = getattr(value, name) not in (None, [])
                seen[type(value).__name__, name] = seen.get((type(value).__name__, name)) or full
    assert {".".join(field) for field, full in seen.items() if not full} == NEVER_SEEN


def _fields(kind: Any, value: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """The objects in a JSON value, each with each field that its shape names."""
    if isinstance(value, list):
        for item in value:
            yield from _fields(kind, item)
    elif isinstance(value, dict) and (shape := object_of(kind)):
        for field in msgspec.structs.fields(shape):
            yield value, field.name
            yield from _fields(field.type, value[field.name])


def _values(value: Any) -> Iterator[tuple[Any, str]]:
    """The objects in an answer, each with each of its fields."""
    if isinstance(value, list):
        for item in value:
            yield from _values(item)
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield value, name
            yield from _values(getattr(value, name))
