"""The agents, each a process of its own: `python -m agent_sdk.demo.agents plan|audit`."""

import logging
import os
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec

from agent_sdk.demo.audit import (
    Measures,
    folder_of,
    folders_of,
    measure,
    report,
    source_files,
    summed_up,
)
from agent_sdk.graph import Graph
from agent_sdk.lease import Lease
from agent_sdk.worker import Worker

LEASE_SECONDS = 5
# An agent that asks a model takes minutes for a task. So that one sees something, these take
# their time too: together about as long as this, a single task never longer than the maximum.
WATCHABLE_SECONDS = 40.0
TASK_SECONDS_MAX = 0.5
GRACE_SECONDS = 2.0


def plan(ctx: Lease) -> Any:
    """Make a task per file, one per folder that waits for them, and one for the report."""
    root = Path(ctx.payload["root"])
    files = source_files(root)
    folders = folders_of(files)
    pace = min(TASK_SECONDS_MAX, WATCHABLE_SECONDS / (len(files) + len(folders)))
    graph = Graph(
        max_lease_expiries=10,
        retry={"strategy": "none"},
        execution_profile={"worker": {"mode": "select", "required_capabilities": ["audit"]}},
    )
    refs = {path: f"f{index}" for index, path in enumerate([*files, *folders])}
    for path in files:
        payload = {"kind": "file", "root": str(root), "path": path, "pace": pace}
        graph.task(refs[path], title=path, payload=payload)
    for folder in folders:
        parts = [refs[path] for path in refs if path != "." and folder_of(path) == folder]
        payload = {"kind": "folder", "path": folder, "pace": pace}
        graph.task(refs[folder], title=f"{folder}/", after=parts, payload=payload)
    payload = {"kind": "report", "root": str(root), "pace": pace}
    waits_for = [refs[folder] for folder in folders]
    graph.task("report", title="report", after=waits_for, payload=payload, priority="high")
    ids = ctx.submit(graph)
    return {"files": len(files), "folders": len(folders), "report": ids["report"]}


def audit(ctx: Lease) -> Any:
    """Do one of the planned tasks."""
    task = ctx.payload
    ctx.lost.wait(task["pace"])
    ctx.check()
    if task["kind"] == "file":
        return measure(Path(task["root"]), task["path"])
    parts = [msgspec.convert(item.result, Measures) for item in ctx.inputs()]
    if task["kind"] == "folder":
        return summed_up(task["path"], parts)
    return {"markdown": report(Path(task["root"]).name, parts)}


def main() -> None:
    """Run the agent that the argument names until it is told to stop, or the demo is gone."""
    logging.basicConfig(level="WARNING", format="%(asctime)s %(name)s %(message)s")
    role = sys.argv[1]
    worker = Worker(capabilities=[role], lease_seconds=LEASE_SECONDS, grace_seconds=GRACE_SECONDS)
    worker.task(plan if role == "plan" else audit)
    threading.Thread(target=_stop_with_the_demo, args=[worker], daemon=True).start()
    worker.run()


def _stop_with_the_demo(worker: Worker) -> None:
    os.read(sys.stdin.fileno(), 1)
    worker.stop()


if __name__ == "__main__":
    main()
