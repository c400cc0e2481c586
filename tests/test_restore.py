"""After a restore agents know more than the database: what came after the backup is void."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from server.db import schema
from tests import judging
from tests.factories import Held, Workspace, refused
from tests.judging import HeldReview
from tests.world import Process, Servers, World

# A proxy may still be connected.
ALONE = "select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = %s"


@contextmanager
def _backup(conninfo: str, directory: Path) -> Iterator[Servers]:
    """Servers on another database, with what is in this one now."""
    name = str(conninfo_to_dict(conninfo)["dbname"])
    names = {"own": sql.Identifier(name), "copy": sql.Identifier(f"{name}_backup")}
    with psycopg.connect(make_conninfo(conninfo, dbname="postgres"), autocommit=True) as db:
        db.execute(ALONE, [name])
        db.execute(sql.SQL("create database {copy} template {own}").format(**names))
        servers = Servers(make_conninfo(conninfo, dbname=f"{name}_backup"), directory)
        try:
            yield servers
        finally:
            servers.stop()
            db.execute(sql.SQL("drop database {copy} with (force)").format(**names))


def _claimed(workspace: Workspace, process: Process) -> list[Held | HeldReview]:
    """A run, a review that a policy asked for, and one that a person asked for."""
    agents = [workspace.agent(name) for name in ("worker", "judge", "judge")]
    for agent in agents:
        agent.http = process.http
    return [agents[0].claim(), *(judging.claim(agent) for agent in agents[1:])]


def test_what_was_claimed_behind_the_backup_is_refused_after_a_restore(
    alone: Servers, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """P2, P3: runs and reviews are claimed again, and no token of the lost time fits."""
    before = World(alone.start().server)
    workspace = before.workspace()
    judging.reviewed(workspace)
    done = workspace.agent().work(workspace.task().id)
    workspace.operator.post(f"/api/task-runs/{done.run_id}/reviews")
    workspace.task()
    before.close()
    alone.stop()
    with _backup(alone.conninfo, tmp_path_factory.mktemp("restored")) as restored:
        lost = _claimed(workspace, alone.start())
        assert schema.restored(restored.conninfo) == 3
        now = _claimed(workspace, restored.start())
        for old, new in zip(lost, now, strict=True):
            assert new.run_id == old.run_id
            with refused(409, "stale_fence"):
                old.by(new.agent, "heartbeat")
            new.heartbeat()
