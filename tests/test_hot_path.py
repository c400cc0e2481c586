"""Keys, budgets and reviews cost a claim and a completion nothing where they are not used."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import psycopg
import pytest

from server.store.leases import CLAIM_RUNS, COMPLETE_RUNS
from tests.factories import Agent, Held, Workspace
from tests.judging import reviewed

TELL = """
load 'auto_explain'; set client_min_messages = notice;
set auto_explain.log_level = notice; set auto_explain.log_min_duration = 0;
set auto_explain.log_nested_statements = on; set auto_explain.log_analyze = on;
set auto_explain.log_timing = off
"""
LANES = "select array_agg(lane_id) from lane where workspace_id = %s"
CAUSE = {"actor_kind": "agent_session", "actor_ref": "s", "origin_kind": "http", "origin_ref": "t"}
Told = list[str]


@contextmanager
def _listening(workspace: Workspace) -> Iterator[tuple[psycopg.Connection[Any], Told]]:
    """A connection that tells every statement that it executes; what it did is undone."""
    told: Told = []
    with psycopg.connect(workspace.world.server.conninfo) as own:
        own.execute(TELL.encode())
        own.add_notice_handler(lambda notice: told.append(notice.message_primary or ""))
        yield own, told
        own.rollback()


def _claim(workspace: Workspace) -> Told:
    """The statements of a claim of one run, with their plans."""
    call = {"n": 0, "team": 0, "session_id": "s", "agent_name": "a", "max_runs": 1, "cause": CAUSE}
    with _listening(workspace) as (own, told):
        [[lanes]] = own.execute(LANES, [workspace.id])
        team = {"team": 0, "lanes": lanes, "priority_min": 0}
        told.clear()
        given = {
            "workspace_id": workspace.id, "teams": _json([team]), "calls": _json([call]),
            "newest_lane": max(lanes), "outer": b"o", "inner": b"i", "outer_previous": b"",
            "inner_previous": b"",
        }  # fmt: skip
        assert own.execute(CLAIM_RUNS.encode(), given).fetchone() is not None
        return list(told)


def _complete(workspace: Workspace, held: Held) -> Told:
    digest = held.claim.lease.claim_token_hash
    assert digest is not None
    call = {
        "n": 0, "run_id": held.run_id, "session_id": held.agent.session, "agent_name": "worker",
        "token_hash": digest.removeprefix("sha256:"), "token_fence": held.fence, "genuine": True,
        "cause": CAUSE,
    }  # fmt: skip
    with _listening(workspace) as (own, told):
        given = {"workspace_id": workspace.id, "calls": _json([call])}
        told.clear()
        [row] = own.execute(COMPLETE_RUNS.encode(), given)
        assert row[1] is None
        return list(told)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _statements(told: Told) -> list[str]:
    return re.findall("Query Text: (.*)", "\n".join(told))


def _rows(told: Told) -> tuple[float, str]:
    """How many rows all steps of a plan handed on or sorted out, of the plan that has most."""
    return max((_rows_of(plan), plan) for plan in told)


def _rows_of(plan: str) -> float:
    steps = re.findall(r"actual rows=([\d.]+) loops=(\d+)", plan)
    removed = re.findall(r"Rows Removed by .*: (\d+)", plan)
    return sum(float(rows) * int(loops) for rows, loops in steps) + sum(map(int, removed))


def _keyed(workspace: Workspace, count: int) -> None:
    items = [{"ref": str(n), "title": "t"} for n in range(count)]
    defaults = {"concurrency_key": "deploy", "concurrency_limit": 2}
    workspace.operator.post("/api/tasks/bulk", tasks=items, defaults=defaults)


def test_keys_budgets_and_reviews_of_others_cost_a_claim_and_a_completion_no_statement(
    workspace: Workspace, agent: Agent
) -> None:
    for _ in range(3):
        workspace.task(priority="urgent")
    held = agent.claim()
    before = _statements(_claim(workspace)), _statements(_complete(workspace, held))
    _keyed(workspace, 50)
    agent.work(workspace.task(concurrency_key="build").id, "release", delay_seconds=60)
    workspace.task(budget={"max_cost": 0})
    reviewed(workspace, "always")
    after = _statements(_claim(workspace)), _statements(_complete(workspace, held))
    assert after == before


@pytest.mark.parametrize("first", ["keyed", "free"])
def test_ten_thousand_that_wait_for_a_slot_cost_a_claim_nothing(
    workspace: Workspace, agent: Agent, first: str
) -> None:
    """Nor a completion, whether they are of the same key or of none."""
    _keyed(workspace, 20)
    if first == "free":
        for _ in range(3):
            workspace.task(priority="urgent")
    held = agent.claim()
    before = _rows(_claim(workspace)), _rows(_complete(workspace, held))
    _keyed(workspace, 10_000)
    after = _rows(_claim(workspace)), _rows(_complete(workspace, held))
    for (most, plan), (few, _) in zip(after, before, strict=True):
        assert most < few + 20, plan
