"""`summer train` on two ranks, killed without warning, against a run that nobody disturbed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from nemo_summer.checkpoints.load import read_weights
from nemo_summer.training.log import read_history
from tests.energon_datasets.tiny_dataset import write_tiny_dataset

STEPS = 30


def start(data: Path, out: Path) -> subprocess.Popen:
    settings = [
        "ranks=2",
        f"train.steps={STEPS}",
        "train.packs_per_step=2",
        "train.log_every=1",
        "optim.warmup_steps=5",
    ]
    settings += ["train.checkpoint_every=8", "train.validate_every=15", "data.workers=0", "data.budget=60"]
    settings += ["clip.frames=33", "clip.height=32", "clip.width=48"]
    settings += ["text.width=8", "model.text_width=8", "model.width=32", "model.layers=2", "model.time_width=32"]
    command = [sys.executable, "-m", "nemo_summer.cli", "train", f"data={data}", f"out={out}", *settings]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)


def wait_for_step(process: subprocess.Popen, out: Path, step: int) -> None:
    end = time.monotonic() + 120
    while max((line["step"] for line in read_history(out / "history.jsonl")), default=0) < step:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, f"step {step} was not reached"
        time.sleep(0.01)


def ranks_of(process: subprocess.Popen) -> list[psutil.Process]:
    """The processes that train: `-m nemo_summer.verbs.train`."""
    children = psutil.Process(process.pid).children(recursive=True)
    return [c for c in children if "nemo_summer.verbs.train" in c.cmdline() and "--module" not in c.cmdline()[3:5]]


def last_weights(out: Path) -> dict[str, torch.Tensor]:
    return read_weights(out / "checkpoints" / f"step_{STEPS:08d}")


@pytest.mark.ranks
def test_killed_ranks_and_a_killed_launcher_end_with_the_weights_of_an_undisturbed_run(tmp_path):
    data = tmp_path / "data"
    write_tiny_dataset(data)
    calm = start(data, tmp_path / "calm")
    said, _ = calm.communicate(timeout=200)
    assert calm.returncode == 0, said

    out = tmp_path / "killed"
    first = start(data, out)
    wait_for_step(first, out, 11)
    workers = [rank for rank in ranks_of(first) if rank.children() == [] or True]
    workers[-1].send_signal(signal.SIGKILL)  # torchrun starts both ranks anew, from step 8
    wait_for_step(first, out, 19)
    everyone = psutil.Process(first.pid).children(recursive=True)
    first.kill()  # the launcher itself: its ranks must not live on
    first.communicate(timeout=60)
    _, alive = psutil.wait_procs(everyone, timeout=20)
    assert not alive, f"left behind: {[p.cmdline() for p in alive if p.is_running()]}"

    second = start(data, out)
    said, _ = second.communicate(timeout=200)
    assert second.returncode == 0, said
    assert "going on from" in said

    ours, theirs = last_weights(out), last_weights(tmp_path / "calm")
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name

    losses = [
        [(line["step"], line["loss"]) for line in read_history(folder / "history.jsonl")]
        for folder in (out, tmp_path / "calm")
    ]
    assert losses[0] == losses[1] and len(losses[0]) == STEPS
    assert [e["mean"] for e in json.loads((out / "validation.json").read_text())] == [
        e["mean"] for e in json.loads((tmp_path / "calm" / "validation.json").read_text())
    ]
