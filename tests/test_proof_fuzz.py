"""A slice of the proof that no request makes the server fail, hang or grow."""

import re
from collections.abc import Iterator
from pathlib import Path
from secrets import randbelow

import pytest

from tests.proof.fuzz import byte_level, document
from tests.proof.fuzz.wire import Answer, faults
from tests.proof.ground import world_on
from tests.world import World

SECONDS = 4.0


@pytest.fixture
def fuzzed(fresh_database: str, tmp_path: Path) -> Iterator[World]:
    settings = {"WORKLEASE_TRUSTED_PROXIES": "127.0.0.1/32"}
    with world_on(fresh_database, tmp_path, **settings) as own:
        yield own


def test_an_answer_is_one_that_the_document_describes(fuzzed: World) -> None:
    """Chosen by chance; `make proof` makes more of them."""
    seed = randbelow(1_000_000)
    told = document.fuzz(fuzzed, seed, 1000, SECONDS)
    assert told.breaches == [], f"seed {seed}"
    assert told.tried["calls from the document"]


def test_spoiled_bytes_are_refused_in_the_words_of_the_contract(fuzzed: World) -> None:
    seed = randbelow(1_000_000)
    told = byte_level.fuzz(fuzzed, seed, 500, SECONDS)
    assert told.breaches == [], f"seed {seed}"
    assert told.tried["answered"]


def test_an_answer_that_the_document_lacks_is_found(
    fuzzed: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = document.DOCUMENT.read_text()
    lacking = tmp_path / "openapi.yaml"
    lacking.write_text(re.sub(r'^( +)"(20\d)":$', r'\1"299":', text, flags=re.M))
    monkeypatch.setattr(document, "DOCUMENT", lacking)
    [first, *_] = document.fuzz(fuzzed, 1, 60, SECONDS).breaches
    assert "curl" in first
    assert "UndefinedStatusCode" in first


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (Answer(500, b"", b""), "status 500"),
        (Answer(400, b"", b"no"), "none of the contract's"),
        (Answer(200, b"content-type: text/plain\r\n", b""), "date"),
    ],
)
def test_an_answer_that_should_not_be_is_found(answer: Answer, fault: str) -> None:
    assert any(fault in found for found in faults(answer, head_only=False))
