"""LOAD: one server, many live leases, streams and waiting agents; is it all kept, and how fast?"""

import asyncio
import resource
from array import array
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import uvloop

from bench.cluster import NEWEST_SEQUENCE
from bench.report import Ratio, of
from bench.soak.fleet import Fleet
from bench.soak.wire import Address, Subscriber, subscribe
from bench.stage import EMPTY, PAYLOAD, Metrics, Run, Stage, cores, idle, percentiles

WORKERS: Final = 4
JOBS_PER_SECOND: Final = 20.0
JOBS_AHEAD: Final = 200
MISSIONS_AT_ONCE: Final = 20
OPENING: Final = 50
SPARE_FILES: Final = 500
SETTLED_SECONDS: Final = 10.0
IDLE_SECONDS: Final = 20.0
CAUGHT_UP_TRIES: Final = 20

TREES: Final = """
select jsonb_object_agg(x.root_task_id, x.sequences)::text from (
  select e.root_task_id, jsonb_agg(e.sequence order by e.sequence) as sequences from event e
   where e.sequence > %(after)s and e.root_task_id is not null group by e.root_task_id) x
"""
# Of those that are held: what lives, and what the log says was lost.
LEASES: Final = """
select (select count(*) from lease l join run r using (workspace_id, run_id)
         where r.network_channel = 'hold' and l.ended_at is null
           and l.lease_until > clock_timestamp()),
       (select count(*) from event e where e.event_type = 'task.run_lease_expired')
"""

WATCHED: Final = (
    Ratio("load_live_leases", 20_000, None, of("load", "live_leases")),
    Ratio("load_expired_leases", None, 0, of("load", "expired_leases")),
    Ratio("load_streams", 2_000, None, of("load", "streams")),
    Ratio("load_streams_at_fault", None, 0, of("load", "streams_at_fault")),
    Ratio("load_waiting_agents", 1_000, None, of("load", "waiters")),
    Ratio("load_claim_p99_ms", None, 50, of("load", "claim_p99_ms")),
    Ratio("load_complete_p99_ms", None, 50, of("load", "complete_p99_ms")),
    Ratio("load_heartbeat_p99_ms", None, 50, of("load", "heartbeat_p99_ms")),
    Ratio("load_pickup_p99_ms", None, 100, of("load", "pickup_p99_ms")),
    Ratio("load_kib_per_lease", None, 8, of("load", "kib_per_lease")),
    Ratio("load_kib_per_stream", None, 64, of("load", "kib_per_stream")),
    Ratio("load_kib_per_waiter", None, 64, of("load", "kib_per_waiter")),
    Ratio("load_idle_server_cores", None, 0.02, of("load_idle", "server_cores")),
)  # fmt: skip


class Stream(NamedTuple):
    """A stream, and what it follows."""

    mission: str
    heard: Subscriber

    def fault(self, logged: list[int]) -> str | None:
        """How what it heard differs from the log of its mission; None if it does not."""
        heard = self.heard.sequences
        if heard == array("q", logged) and not self.heard.trouble:
            return None
        lost, doubled = len(set(logged) - set(heard)), len(heard) - len(set(heard))
        return (
            f"stream of {self.mission}: {len(heard)} events of {len(logged)}, {lost} not heard,"
            f" {doubled} heard twice, {self.heard.trouble}"
        )


class Size(NamedTuple):
    """How much of everything, and for how long."""

    leases: int
    missions: int
    streams: int
    waiters: int
    seconds: float
    heartbeat_every: float
    settled: float

    @staticmethod
    def of(scale: float) -> "Size":
        """Of a whole soak, or of a part of one."""
        seconds = max(2.0, 600 * scale)
        missions = max(2, round(200 * scale))
        return Size(
            leases=missions * 100, missions=missions, streams=missions * 10,
            waiters=max(5, round(1000 * scale)), seconds=seconds,
            heartbeat_every=min(30.0, seconds / 2), settled=min(SETTLED_SECONDS, seconds),
        )  # fmt: skip


def load(stage: Stage, size: Size, measured: dict[str, Metrics]) -> list[str]:
    """Measures into `measured`; what was lost, doubled, out of order or refused."""
    allow_files(size.streams + size.waiters + SPARE_FILES)
    with stage.serving(EMPTY) as serving:
        admin = {"Authorization": f"Bearer {(stage.directory / 'admin.key').read_text().strip()}"}
        settings = {"max_streams": 2 * size.streams, "max_waiting_claims": 2 * size.waiters}
        body = msgspec.json.encode({"settings": settings})
        serving.send("PATCH", "/api/workspaces/default", body, admin)
        missions = _plan(serving, size)
        fleet = Fleet(Address(serving.running[0].port, stage.key), missions)
        wrong = uvloop.run(_burden(stage, serving, fleet, size, measured))
        measured["load_idle"] = idle(serving, min(IDLE_SECONDS, size.settled))
    return wrong


def allow_files(wanted: int) -> None:
    """Lets this process and its children open as many; raises SystemExit if it may not."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < wanted:
        raise SystemExit(f"{wanted} open files are needed, {most} are allowed: see ulimit -Hn")
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _plan(serving: Run, size: Size) -> list[str]:
    """Missions, each with the tasks that will be held below it; and some jobs in advance."""
    missions: list[str] = []
    each = size.leases // size.missions
    for first in range(0, size.missions, MISSIONS_AT_ONCE):
        tasks: list[dict[str, Any]] = []
        for n in range(first, min(first + MISSIONS_AT_ONCE, size.missions)):
            tasks.append({"ref": f"m{n}", "title": f"Mission {n}", "auto_enqueue_on_ready": False})
            tasks += [
                {"ref": f"m{n}.{k}", "parent_ref": f"m{n}", "title": "Hold", "payload": PAYLOAD,
                 "network_channel": "hold"} for k in range(each)
            ]  # fmt: skip
        body = msgspec.json.encode({"tasks": tasks})
        told = msgspec.json.decode(serving.post("/api/tasks/bulk", body))
        missions += [told["ids"][task["ref"]] for task in tasks if "parent_ref" not in task]
    jobs = [{"ref": f"{n}", "title": "Job", "network_channel": "jobs"} for n in range(JOBS_AHEAD)]
    serving.post("/api/tasks/bulk", msgspec.json.encode({"tasks": jobs}))
    return missions


class Resident:
    """The memory of a process, and how much it grows."""

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        self._before = self.kib

    @property
    def kib(self) -> float:
        """What it has in memory now."""
        lines = self._status.read_text().splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith("VmRSS")))

    def grown(self) -> float:
        """How many KiB more than when this was last asked."""
        before, self._before = self._before, self.kib
        return self._before - before


async def _burden(
    stage: Stage, serving: Run, fleet: Fleet, size: Size, measured: dict[str, Metrics]
) -> list[str]:
    """Each load on top of the one before; what went wrong."""
    resident = Resident(serving.running[0].pid)
    told: Metrics = {"base_mib": resident.kib / 1024}
    await fleet.claim_holds(size.leases, max(5, round(4 * size.heartbeat_every)))
    fleet.start_heartbeats(size.heartbeat_every)
    await asyncio.sleep(size.heartbeat_every)
    told["kib_per_lease"] = resident.grown() / size.leases
    [after] = await asyncio.to_thread(stage.cluster.ask, serving.database, NEWEST_SEQUENCE)
    streams = await _subscribe(fleet, size, after)
    await asyncio.sleep(size.settled / 2)
    told["kib_per_stream"] = resident.grown() / size.streams
    fleet.start_waiters(size.waiters)
    await asyncio.sleep(size.settled / 2)
    told["kib_per_waiter"] = resident.grown() / size.waiters
    fleet.took.clear()
    before = serving.usage()
    fleet.start_workers(WORKERS, JOBS_PER_SECOND)
    await asyncio.sleep(size.seconds)
    measured["load_cores"] = cores(before, serving.usage(), 0.0)
    told["mib_at_the_end"] = resident.kib / 1024
    await fleet.rest()
    at_fault = await _compare(stage, serving, streams, after)
    live, expired = await asyncio.to_thread(stage.cluster.ask, serving.database, LEASES)
    for kind in ("waiters", "heartbeats"):
        await fleet.stop(kind)
    for stream in streams:
        stream.heard.close()
    told |= {"live_leases": live, "expired_leases": expired, "streams": len(streams),
             "streams_at_fault": len(at_fault), "waiters": size.waiters,
             "events_heard": sum(len(stream.heard.sequences) for stream in streams),
             "jobs": fleet.jobs, "woken": fleet.woken}  # fmt: skip
    measured["load"] = told | _percentiles(fleet)
    await asyncio.sleep(size.settled)
    lost = [] if (live, expired) == (size.leases, 0) else [f"{live} leases live, {expired} expired"]
    return [*lost, *at_fault, *fleet.errors]


async def _subscribe(fleet: Fleet, size: Size, after: int) -> list[Stream]:
    """As many streams for each mission, some of them opened at a time."""
    wanted = iter([fleet.missions[n % size.missions] for n in range(size.streams)])
    streams: list[Stream] = []

    async def opener() -> None:
        for mission in wanted:
            path = f"/api/tasks/{mission}/stream?after_sequence={after}"
            streams.append(Stream(mission, await subscribe(fleet.address, path, "watcher")))

    await asyncio.gather(*(opener() for _ in range(OPENING)))
    return streams


async def _compare(stage: Stage, serving: Run, streams: list[Stream], after: int) -> list[str]:
    """What each stream heard beside what the log holds; waits a while for the last events."""
    at_fault: list[str] = []
    for _ in range(CAUGHT_UP_TRIES):
        [text] = await asyncio.to_thread(stage.cluster.ask, serving.database, TREES, after=after)
        trees: dict[str, list[int]] = msgspec.json.decode(text or "{}")
        judged = [stream.fault(trees.get(stream.mission, [])) for stream in streams]
        at_fault = [fault for fault in judged if fault]
        if not at_fault:
            break
        await asyncio.sleep(1)
    return at_fault


def _percentiles(fleet: Fleet) -> Metrics:
    told: Metrics = {}
    for kind, took in fleet.took.items():
        told |= {f"{kind}_{name}": ms for name, ms in percentiles(took).items()}
    return told
