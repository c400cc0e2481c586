"""Claim tokens, API keys, identifiers and cursors."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as some

from server.errors import Problem
from server.rules import cursors, ids, tokens

SECRET, OTHER = b"s" * 32, b"o" * 32
fences = some.integers(0, 2**63 - 1)


@given(fences)
def test_a_token_says_its_fence_and_is_known_again(fence: int) -> None:
    token = tokens.claim_token(SECRET, "ws_1", "run_1", fence)
    assert re.fullmatch(rf"wlt_{fence}_[A-Za-z0-9_-]{{43}}", token)
    assert tokens.made_here(token, [SECRET], "ws_1", "run_1")
    assert tokens.made_here(token, [OTHER, SECRET], "ws_1", "run_1")


@pytest.mark.parametrize(
    ("secret", "workspace", "run"),
    [(OTHER, "ws_1", "run_1"), (SECRET, "ws_2", "run_1"), (SECRET, "ws_1", "run_2")],
)
def test_a_token_of_another_secret_workspace_or_run_is_not_ours(
    secret: bytes, workspace: str, run: str
) -> None:
    token = tokens.claim_token(SECRET, "ws_1", "run_1", 7)
    assert not tokens.made_here(token, [secret], workspace, run)


def test_another_fence_is_another_token() -> None:
    token = tokens.claim_token(SECRET, "ws_1", "run_1", 7)
    assert not tokens.made_here(token.replace("wlt_7_", "wlt_8_"), [SECRET], "ws_1", "run_1")


def test_the_parts_of_the_message_do_not_run_together() -> None:
    first = tokens.claim_token(SECRET, "ws_1", "2", 3)
    second = tokens.claim_token(SECRET, "ws_12", "", 3)
    assert first != second


@pytest.mark.parametrize(
    "text", ["", "wlt", "wlt_1", "wlt_01_" + "a" * 43, "wlt_-1_" + "a" * 43, "wlt_1_" + "a" * 42]
)
def test_a_text_without_the_form_is_no_token(text: str) -> None:
    assert tokens.parse_claim_token(text) is None


def test_an_api_key_names_its_id_and_is_never_the_same_twice() -> None:
    key_id = ids.new_id("key", 1)
    key = tokens.new_api_key(key_id)
    assert re.fullmatch(rf"wl_{key_id}_[A-Za-z0-9_-]{{43}}", key)
    assert tokens.new_api_key(key_id) != key
    assert key.startswith(tokens.api_key_prefix(key))
    assert len(tokens.api_key_prefix(key)) == 15
    assert len(tokens.api_key_hash(key)) == 32


def test_identifiers_sort_by_time_and_have_the_form_of_uuid_7() -> None:
    first, second = ids.uuid7(1_700_000_000_000), ids.uuid7(1_700_000_000_001)
    assert first < second
    assert re.fullmatch(
        r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", first
    )


@given(some.lists(some.text() | some.integers(-(2**53), 2**53) | some.none()))
def test_a_cursor_brings_back_its_values(values: list[object]) -> None:
    assert cursors.decode_cursor(b"list", cursors.encode_cursor(b"list", values)) == values


@pytest.mark.parametrize("damage", ["", "x", "é", "AAAA", "A" * 200])
def test_a_damaged_or_foreign_cursor_is_refused(damage: str) -> None:
    cursor = cursors.encode_cursor(b"list", ["a"])
    for scope, text in ((b"list", damage), (b"other", cursor), (b"list", cursor[:-2])):
        with pytest.raises(Problem) as caught:
            cursors.decode_cursor(scope, text)
        assert caught.value.code == "invalid_cursor"
