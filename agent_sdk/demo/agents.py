"""The agents, each a process of its own: `python -m agent_sdk.demo.agents plan|audit`."""

import logging
import sys
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
# An agent that asks a model takes minutes for a file. So that one sees something, these take
# their time too: together about as long as this, a single file never longer than the maximum.
WATCHABLE_SECONDS = 40.0
FILE_SECONDS_MAX = 0.5


def plan(ctx: Lease) -> Any:
    """Make a task per file, one per folder that waits for them, and one for the report."""
    root = Path(ctx.payload["root"])
    files = source_files(root)
    folders = folders_of(files) or ["."]
    pace = min(FILE_SECONDS_MAX, WATCHABLE_SECONDS / max(len(files), 1))
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
        payload = {"kind": "folder", "path": folder}
        graph.task(refs[folder], title=f"{folder}/", after=parts, payload=payload)
    payload = {"kind": "report", "root": str(root)}
    waits_for = [refs[folder] for folder in folders]
    graph.task("report", title="report", after=waits_for, payload=payload, priority="high")
    ids = ctx.submit(graph)
    return {"files": len(files), "folders": len(folders), "report": ids["report"]}


def audit(ctx: Lease) -> Any:
    """Do one of the planned tasks."""
    task = ctx.payload
    if task["kind"] == "file":
        ctx.lost.wait(task["pace"])
        ctx.check()
        return measure(Path(task["root"]), task["path"])
    parts = [msgspec.convert(item.result, Measures) for item in ctx.inputs()]
    if task["kind"] == "folder":
        return summed_up(task["path"], parts)
    return {"markdown": report(Path(task["root"]).name, parts)}


def main() -> None:
    """Run the agent that the argument names until it is told to stop."""
    logging.basicConfig(level="WARNING", format="%(asctime)s %(name)s %(message)s")
    role = sys.argv[1]
    worker = Worker(capabilities=[role], lease_seconds=LEASE_SECONDS)
    worker.task(plan if role == "plan" else audit)
    worker.run()


if __name__ == "__main__":
    main()
