"""Operations facts: counted under their labels, logged at their level, never with a secret."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from server import telemetry
from server.telemetry import occur

METRICS_PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    # The log of a test ends with it, and what comes after must not write there.
    structlog.reset_defaults()


def _line(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    line = json.loads(capsys.readouterr().err)
    assert isinstance(line, dict)
    return line


def test_a_fact_is_counted_and_logged_by_one_call(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("info", "json")
    occur(telemetry.StreamResync, 2, reason="slow")
    assert b'worklease_sse_resyncs_total{reason="slow"} 2.0' in telemetry.exposition()
    line = _line(capsys)
    assert (line["event"], line["level"], line["count"]) == ("stream_resync", "info", 2)


def test_a_fact_below_the_level_is_counted_only(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("warning", "json")
    occur(telemetry.AuthFailed, reason="expired")
    assert b'worklease_auth_failures_total{reason="expired"} 1.0' in telemetry.exposition()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "secret",
    [
        "wl_key_0199aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee_c2VjcmV0c2VjcmV0",
        "wlt_12_c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0",
        "host=db password=c2VjcmV0",
        "postgresql://me:c2VjcmV0@db/worklease",
    ],
)
def test_no_secret_reaches_the_log(secret: str, capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("info", "json")
    try:
        raise ValueError(f"could not use {secret}")
    except ValueError as wrong:
        occur(telemetry.RequestFailed, exc_info=wrong, path=f"/x?key={secret}")
    logging.getLogger("psycopg.pool").warning("error connecting: %s", secret)
    shown = capsys.readouterr().err
    assert shown.count("redacted") == 3
    assert "c2VjcmV0" not in shown


def test_the_page_of_metrics_lists_exactly_those_that_exist() -> None:
    exposed = {
        line.split()[2]
        for line in telemetry.exposition().decode().splitlines()
        if line.startswith("# TYPE worklease_")
    }
    rows = [line for line in METRICS_PAGE.read_text().splitlines() if line.startswith("| `")]
    assert {row.split("`")[1] for row in rows} == exposed
