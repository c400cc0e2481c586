"""A slice of the proof that nobody gets in: some cells of every row, and the search for secrets."""

from pathlib import Path
from secrets import randbelow

import pytest

from tests.proof.access import canary, part
from tests.proof.access.canary import Told


def test_a_caller_is_answered_as_the_table_says(fresh_database: str, tmp_path: Path) -> None:
    """P2, P12: chosen by chance; `make proof` asks all of it."""
    seed = randbelow(1_000_000)
    assert part.glance(fresh_database, tmp_path, seed) == [], f"seed {seed}"


def test_a_secret_is_in_no_answer_but_the_one_that_hands_it_out(
    fresh_database: str, tmp_path: Path
) -> None:
    """P12."""
    seed = randbelow(1_000_000)
    assert list(canary.breaches(fresh_database, tmp_path, seed, 0.02)) == [], f"seed {seed}"


@pytest.mark.parametrize("where", ["the log", "GET /api/events", "a notification", "metrics"])
def test_a_secret_that_is_where_it_has_no_place_is_found(where: str) -> None:
    token, key = f"wlt_7_{'t' * 43}", f"wl_key_{'0' * 36}_{'k' * 43}"
    handed = [
        Told("POST /api/agent/tasks/claim-next", token), Told("POST /api/keys", key),
        Told("POST /api/bridges", f"whsec_{'s' * 44}"),
        Told("POST /api/auth/stream-ticket", "wls_abc.def"),
    ]  # fmt: skip
    assert list(canary.found(handed, {})) == []
    seen = [*handed, Told(where, f"… {token[-43:]} …")]
    assert list(canary.found(seen, {})) == [f"a claim token stands in {where}"]
