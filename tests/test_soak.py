"""The soak runs, on the smallest scale: what it counts comes out right."""

import shutil
from collections.abc import Iterator

import pytest

from bench.cluster import cluster
from bench.processes import compile_drive
from bench.soak import age, load
from bench.stage import Metrics, Stage


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A cluster for the soak alone, with an empty database."""
    directory = tmp_path_factory.mktemp("soak") / "data"
    directory.mkdir(mode=0o700)
    with cluster(directory) as running:
        stage = Stage(running, directory, directory / "drive", 0.2)
        stage.prepare_empty()
        yield stage


def test_a_small_load_is_kept_whole(stage: Stage) -> None:
    """P9: leases, streams and waiting agents at once; the numbers have their names."""
    measured: dict[str, Metrics] = {}
    size = load.Size(40, 2, 4, 3, seconds=2, heartbeat_every=1, settled=0.5)
    assert load.load(stage, size, measured) == []
    told = measured["load"]
    assert (told["live_leases"], told["expired_leases"], told["streams"]) == (40, 0, 4)
    assert told["jobs"] > 0
    assert told["woken"] > 0
    assert told["events_heard"] > 0
    assert [ratio.value(measured) for ratio in load.WATCHED]


@pytest.mark.skipif(shutil.which("cc") is None, reason="the load at full speed is a C program")
def test_age_is_measured_beside_an_old_snapshot_and_finished_runs(stage: Stage) -> None:
    compile_drive(stage.directory)
    lengths = age.Lengths(normal=0.5, full_speed=0.5, paced=0.5, finished=2000, warm_up=0.1)
    measured: dict[str, Metrics] = {}
    age.age(stage, lengths, measured)
    assert measured["finished"]["runs"] >= 2000
    assert [ratio.value(measured) for ratio in age.WATCHED]
