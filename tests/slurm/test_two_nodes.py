"""`sbatch scripts/slurm/train.sbatch` under a real Slurm with two nodes: both take part, a signal requeues."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, install, two_nodes, why_not

ROOT = Path(__file__).parents[2]
TRAIN = ROOT / "scripts/slurm/train.sbatch"
CURATE = ROOT / "scripts/slurm/curate.sbatch"

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if reason := why_not() or install():
        pytest.skip(reason)
    with two_nodes(tmp_path_factory.mktemp("slurm")) as running:
        pids = [int(path.read_text()) for path in running.folder.glob("*.pid")]
        assert len(pids) == 3
        yield running
    assert not [pid for pid in pids if os.path.exists(f"/proc/{pid}")], "a daemon of the cluster outlives it"


def submit(
    cluster: Cluster, script: Path, *words: str, options: tuple[str, ...] = (), python: str | Path = sys.executable
) -> str:
    """The number of the job."""
    env = {**cluster.env, "SUMMER_HOME": str(ROOT), "SUMMER_PYTHON": str(python), "OMP_NUM_THREADS": "1"}
    command = ["sbatch", "--parsable", "--chdir", str(cluster.folder), *options, str(script), *words]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=True)
    return done.stdout.strip()


def log_of(cluster: Cluster, job: str) -> str:
    return "\n".join(path.read_text() for path in cluster.folder.glob(f"*-{job}.log"))


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Takes the place of Python in the job: the same launcher, but with the toy job that adds up numbers of ranks."""
    folder = tmp_path_factory.mktemp("stand_in")
    (folder / "train.py").write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "from nemo_summer.parallel.launch import launch\n"
        "words = sys.argv[sys.argv.index('train') + 1 :]\n"
        "Path(words[0]).mkdir(parents=True, exist_ok=True)\n"
        "(Path(words[0]) / 'words').write_text(repr(words))\n"
        "sys.exit(launch('tests.nemo_summer.parallel.sum_of_ranks', words[:2], 0))\n"
    )
    program = folder / "python"
    python, script = shlex.quote(sys.executable), shlex.quote(str(folder / "train.py"))
    program.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(ROOT))} exec {python} {script} "$@"\n')
    program.chmod(0o755)
    return program


def test_both_nodes_take_part_and_words_arrive_as_they_are(cluster: Cluster, stand_in: Path, tmp_path: Path) -> None:
    out = tmp_path / "a folder; $(touch marker) 'x'"
    job = submit(cluster, TRAIN, str(out), "none", "label=a b;c", options=("-N", "2"), python=stand_in)
    assert cluster.wait(job, ("COMPLETED", "FAILED"), 60) == "COMPLETED", log_of(cluster, job)
    assert {(out / f"finished_{rank}").read_text() for rank in range(2)} == {"10"}
    assert (out / "words").read_text() == repr([str(out), "none", "label=a b;c"])
    assert not list(cluster.folder.rglob("marker")) and not (ROOT / "marker").exists()


def test_a_preempted_job_saves_goes_back_into_the_queue_and_starts_again(
    cluster: Cluster, stand_in: Path, tmp_path: Path
) -> None:
    job = submit(cluster, TRAIN, str(tmp_path), "long", options=("-N", "2"), python=stand_in)
    wait_for_file(tmp_path / "state", 40)
    urgent = submit(cluster, urgent_script(tmp_path), options=("-N", "2", "--partition=high"))
    assert cluster.wait(urgent, ("COMPLETED", "FAILED"), 40) == "COMPLETED"
    steps = {(tmp_path / f"asked_{rank}").read_text().split()[0] for rank in range(2)}
    assert len(steps) == 1, "all ranks save the same step"
    assert cluster.fact(job, "Restarts") == "1"
    cluster.said("scancel", job)


def test_a_signal_before_the_time_is_up_requeues_the_job(cluster: Cluster, stand_in: Path, tmp_path: Path) -> None:
    job = submit(cluster, TRAIN, str(tmp_path), "long", options=("-N", "2"), python=stand_in)
    wait_for_file(tmp_path / "state", 40)
    cluster.said("scancel", "--signal=USR1", job)  # what --signal=USR1@180 does
    wait_for_file(tmp_path / "asked_1", 20)
    assert cluster.wait(job, ("PENDING",), 20) == "PENDING", log_of(cluster, job)
    assert cluster.fact(job, "Restarts") == "1"
    assert "goes back into the queue" in log_of(cluster, job)
    cluster.said("scancel", job)


def urgent_script(folder: Path) -> Path:
    script = folder / "urgent.sh"
    script.write_text("#!/bin/sh\ntrue\n")
    return script


def wait_for_file(path: Path, within_s: float) -> None:
    import time

    end = time.monotonic() + within_s
    while not path.exists():
        assert time.monotonic() < end, f"{path.name} did not appear in {within_s} s"
        time.sleep(0.1)


def test_footage_becomes_a_dataset_on_one_node_and_a_model_on_two(cluster: Cluster, tmp_path: Path) -> None:
    from nemo_summer.demo.footage import write_footage

    write_footage(tmp_path / "footage", seed=0, seconds=8.0, videos=2)
    data, out = f"data={tmp_path}/data", f"out={tmp_path}/run"
    job = submit(cluster, CURATE, "recipe=tiny", f"input={tmp_path}/footage", f"out={tmp_path}/data")
    assert cluster.wait(job, ("COMPLETED", "FAILED"), 90) == "COMPLETED", log_of(cluster, job)
    small = ("train.steps=2", "train.packs_per_step=2", "train.checkpoint_every=2", "data.workers=0")
    job = submit(cluster, TRAIN, "recipe=tiny", data, out, *small, options=("-N", "2"))
    assert cluster.wait(job, ("COMPLETED", "FAILED"), 90) == "COMPLETED", log_of(cluster, job)
    manifest = json.loads((tmp_path / "run/checkpoints/step_00000002/manifest.json").read_text())
    assert manifest["ranks"]["world"] == 2
