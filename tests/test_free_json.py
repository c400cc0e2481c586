"""What any JSON value of a caller must keep to."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from server.rules.free_json import UnfitJsonError, compact

WIDE = 1 << 20
values = some.recursive(
    some.none() | some.booleans() | some.integers(-(2**53), 2**53) | some.text(),
    lambda inner: some.lists(inner) | some.dictionaries(some.text(), inner),
)


def nested(levels: int) -> Any:
    value: Any = 1
    for level in range(levels):
        value = [value] if level % 2 else {"in": value}
    return value


def refusal(value: Any, limit_bytes: int = WIDE, tokens: bool = True) -> str:
    with pytest.raises(UnfitJsonError) as caught:
        compact(value, limit_bytes, tokens)
    return f"{caught.value.code} {caught.value.rule}"


def holds_nul(value: Any) -> bool:
    return "\\u0000" in msgspec.json.encode(value).decode().replace("\\\\", "")


@given(values)
def test_a_fit_value_comes_back_as_it_was(value: Any) -> None:
    if holds_nul(value):
        assert refusal(value, tokens=False) == "validation_failed characters"
    else:
        assert msgspec.json.decode(compact(value, WIDE, False)) == value


def test_the_compact_form_is_what_the_limit_counts() -> None:
    assert compact({"a": "é"}, 10, False) == '{"a":"é"}'
    assert refusal({"a": "é"}, 9) == "value_too_large size"


def test_sixty_four_levels_are_fit_and_one_more_is_not() -> None:
    assert compact(nested(64), WIDE, False)
    assert refusal(nested(65)) == "validation_failed nesting"
    assert refusal(nested(5000)) == "validation_failed nesting"


def test_many_brackets_beside_each_other_are_no_nesting() -> None:
    assert compact([[] for _ in range(1000)], WIDE, False)


def test_u0000_is_refused_in_texts_and_in_names_but_not_when_spelled_out() -> None:
    assert refusal(["a\0b"]) == "validation_failed characters"
    assert refusal({"a\0": 1}) == "validation_failed characters"
    assert compact({"a": "\\u0000"}, WIDE, False) == '{"a":"\\\\u0000"}'


@pytest.mark.parametrize("name", ["claim_token", "Claim_Token", "CLAIM_TOKEN"])
def test_metadata_may_not_hold_a_claim_token_at_any_depth(name: str) -> None:
    assert refusal({"a": [{name: 1}]}) == "secret_in_json secret"
    assert compact({"a": [{name: 1}]}, WIDE, False)
    assert compact({"a": "claim_token"}, WIDE, True)


def test_a_number_that_is_not_finite_as_float64_is_refused() -> None:
    assert refusal({"a": 10**400}) == "validation_failed number"
    assert refusal(-(10**400)) == "validation_failed number"
    assert compact(10**300, WIDE, False) == "1" + "0" * 300
