"""`summer train` on a run of other settings: refused in one line, whatever was changed, on however many ranks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.energon_datasets.tiny_dataset import write_tiny_dataset

SETTINGS = """ranks=2 train.packs_per_step=2 data.workers=0 data.budget=60 clip.frames=33 clip.height=32 clip.width=48
    text.width=8 model.text_width=8 model.width=32 model.heads=2 model.layers=2 model.time_width=32"""


def train(data: Path, out: Path, *words: str) -> subprocess.CompletedProcess:
    command = [
        sys.executable,
        "-m",
        "nemo_summer.cli",
        "train",
        f"data={data}",
        f"out={out}",
        *SETTINGS.split(),
        *words,
    ]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=200, check=False)


@pytest.mark.ranks
def test_a_run_of_another_width_is_refused_in_one_line_and_not_tried_again(tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    write_tiny_dataset(data)
    first = train(data, out, "train.steps=1")
    assert first.returncode == 0, first.stderr
    assert "Warning" not in first.stderr, first.stderr  # of other people's code: nobody can act on it
    other = train(data, out, "train.steps=2", "model.width=64")
    assert other.returncode == 2 and len(other.stderr.splitlines()) == 1, other.stderr
    assert "model.width was 32, is 64" in other.stderr and "train.accept_changes=true" in other.stderr
    forced = train(data, out, "train.steps=2", "model.width=64", "train.accept_changes=true")
    assert forced.returncode == 2 and len(forced.stderr.splitlines()) == 1, forced.stderr
    assert "step_00000001/weights does not fit this model" in forced.stderr
