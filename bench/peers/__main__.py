"""`python -m bench.peers`: Worklease and its peers, one after the other on one PostgreSQL."""

import argparse
import secrets
import shutil
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from psycopg.conninfo import conninfo_to_dict

from bench.cluster import Cluster, cluster
from bench.peers import table
from bench.peers.environments import HOME, install, versions
from bench.peers.measure import Program, come_back, jobs_per_second, pick_up
from bench.peers.peer import PEERS, WORKLEASE, Peer
from bench.processes import INHERITED, compile_drive
from bench.report import machine
from bench.scenarios import SCENARIOS
from bench.stage import EMPTY, Stage

ROUNDS, SECONDS, PICKUPS = 3, 3.0, 150
QUICK_SECONDS, QUICK_PICKUPS = 1.0, 20
HTTP = "Worklease, HTTP"
RUN = "peers_run"


def main() -> None:
    """Measures, and tells."""
    chosen = _arguments()
    began = time.monotonic()
    install()
    directory = HOME / f"data-{secrets.token_hex(4)}"
    directory.mkdir(mode=0o700)
    for log in HOME.glob("*.log"):
        log.unlink()
    try:
        program = compile_drive(directory)
        with cluster(directory) as running:
            stage = Stage(running, directory, program, QUICK_SECONDS if chosen.quick else SECONDS)
            stage.prepare()
            told = _measured(stage, chosen.quick)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    known = versions() | dict.fromkeys((WORKLEASE.name, HTTP), version("worklease"))
    result = {"machine": machine(), "versions": known, "measured": told}
    text = msgspec.json.format(msgspec.json.encode(result), indent=1)
    (HOME / "result.json").write_bytes(text + b"\n")
    page = table.page(told, known)
    (HOME / "report.md").write_text(page)
    print(f"\n{machine()} {time.monotonic() - began:.0f} s.\n\n{page}\n{HOME / 'report.md'}")


def _measured(stage: Stage, quick: bool) -> dict[str, dict[str, Any]]:
    told: dict[str, dict[str, Any]] = {peer.name: {} for peer in (*PEERS, WORKLEASE)}
    told[HTTP] = {}
    for _ in range(1 if quick else ROUNDS):
        for peer in (*PEERS, WORKLEASE):
            for how in peer.fills:
                with _on_a_new_database(stage, peer) as program:
                    rate = jobs_per_second(program, how, stage.seconds)
                _note(told, peer.name, how, rate)
        for how, scenario in (("single", "jobs_64"), ("batch", "batch")):
            _note(told, HTTP, how, SCENARIOS[scenario](stage)["per_second"])
    for peer in (*PEERS, WORKLEASE):
        with _on_a_new_database(stage, peer) as program:
            told[peer.name]["pickup"] = pick_up(program, QUICK_PICKUPS if quick else PICKUPS)
            told[peer.name]["comes_back"] = come_back(program)
        print(peer.name, told[peer.name]["pickup"], told[peer.name]["comes_back"], flush=True)
    told[HTTP]["pickup"] = SCENARIOS["pickup"](stage)
    for of in told.values():
        for how in ("single", "batch"):
            if how in of:
                of[f"{how}_median"] = statistics.median(of[how])
    return told


def _note(told: dict[str, dict[str, Any]], name: str, how: str, rate: float) -> None:
    told[name].setdefault(how, []).append(rate)
    print(f"{name}, {how}: {rate:.0f} jobs per second", flush=True)


@contextmanager
def _on_a_new_database(stage: Stage, peer: Peer) -> Iterator[Program]:
    stage.cluster.make(RUN, EMPTY if peer is WORKLEASE else "template0")
    conninfo = stage.cluster.conninfo(RUN)
    if peer is WORKLEASE:
        with stage.serving_on(RUN) as run:
            own = {
                "WORKLEASE_URL": f"http://127.0.0.1:{run.running[0].port}",
                "WORKLEASE_API_KEY": stage.key,
                "WORKLEASE_AGENT_NAME": "local",
            }
            yield Program(peer, conninfo, "-", HOME, INHERITED | own)
    else:
        program = Program(peer, conninfo, _url(stage.cluster), HOME, INHERITED)
        program.do("setup")
        yield program
    stage.cluster.drop(RUN)


def _url(running: Cluster) -> str:
    """The database as the drivers of other languages want to be told of it."""
    where = {key: str(value) for key, value in conninfo_to_dict(running.conninfo(RUN)).items()}
    user, password = quote(where["user"]), quote(where["password"])
    query = urlencode({"host": where["host"], "port": where["port"]})
    return f"postgresql://{user}:{password}@/{where['dbname']}?{query}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round")
    return parser.parse_args()


if __name__ == "__main__":
    main()
