"""What happened to a checkpoint after it was written: every damage is found and named, and the one before is used."""

import io
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp

from nemo_summer.checkpoints import layout
from nemo_summer.checkpoints.layout import CheckpointError, Manifest
from nemo_summer.checkpoints.load import newest, read_weights
from nemo_summer.checkpoints.save import thin
from tests.nemo_summer.checkpoints.folders import files_of, make_checkpoint, reseal, weights_at


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    return make_checkpoint(tmp_path, 100), make_checkpoint(tmp_path, 200)


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def test_the_newest_whole_checkpoint_is_taken(two: tuple[Path, Path], caplog: pytest.LogCaptureFixture) -> None:
    assert newest(two[0].parent) == two[1]
    assert caplog.text == ""


@pytest.mark.parametrize("harm", [flip, truncate, Path.unlink])
def test_damage_to_any_file_is_named_and_the_checkpoint_before_is_taken(
    two: tuple[Path, Path], harm: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    whole = shutil.copytree(two[1], two[1].with_name("copy"))
    names = files_of(two[1])
    assert len(names) == 7
    for name in names:
        caplog.clear()
        harm(two[1] / name)
        assert newest(two[0].parent) == two[0], name
        assert caplog.messages == [caplog.messages[0]] and str(two[1] / name) in caplog.messages[0]
        shutil.rmtree(two[1])
        shutil.copytree(whole, two[1])
    assert newest(two[0].parent) == two[1]


def test_a_shard_of_another_step_is_found(two: tuple[Path, Path]) -> None:
    shard = "weights/__0_0.distcp"
    assert (two[0] / shard).stat().st_size == (two[1] / shard).stat().st_size
    shutil.copy(two[0] / shard, two[1] / shard)
    assert newest(two[0].parent) == two[0]


@pytest.mark.parametrize(
    "text", [None, "", '{"format": 1', "[]", '{"format": 9}', "\x00", '{"format": 1, "files": {}}']
)
def test_a_bad_manifest_is_named_and_the_checkpoint_before_is_taken(
    two: tuple[Path, Path], text: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    (two[1] / layout.MANIFEST).unlink() if text is None else (two[1] / layout.MANIFEST).write_text(text)
    assert newest(two[0].parent) == two[0]
    assert len(caplog.messages) == 1 and layout.MANIFEST in caplog.text and str(two[1]) in caplog.text


def test_folders_that_are_no_checkpoints_are_passed_over(two: tuple[Path, Path]) -> None:
    folder = two[0].parent
    for name in (".tmp_step_00000300", "step_latest", "step_1"):
        (folder / name).mkdir()
    (folder / "step_00000400").write_text("a file")
    assert newest(folder) == two[1]
    assert newest(folder / "elsewhere") is None


def test_a_folder_cut_off_in_the_middle_is_named(two: tuple[Path, Path], caplog: pytest.LogCaptureFixture) -> None:
    shutil.copytree(two[1] / "weights", two[1].with_name("step_00000300") / "weights")
    assert newest(two[0].parent) == two[1]
    assert "step_00000300 has no manifest.json" in caplog.text


def test_where_all_are_damaged_there_is_none(two: tuple[Path, Path], caplog: pytest.LogCaptureFixture) -> None:
    for path in two:
        flip(path / "weights/__0_0.distcp")
    assert newest(two[0].parent) is None
    assert len(caplog.messages) == 2


def test_a_file_that_the_manifest_does_not_know_does_no_harm(two: tuple[Path, Path]) -> None:
    (two[1] / "notes.txt").write_text("mine")
    assert newest(two[0].parent) == two[1]


def test_training_does_not_go_on_from_weights_alone_but_averages_read_them(two: tuple[Path, Path]) -> None:
    layout.write_manifest(two[1], replace(Manifest.read(two[1]), kind=layout.WEIGHTS_ONLY))
    assert newest(two[0].parent) == two[0]
    assert layout.snapshots(two[0].parent) == list(two)
    torch.testing.assert_close(read_weights(two[1]), weights_at(200), rtol=0, atol=0)


def test_a_damaged_later_checkpoint_does_not_push_out_the_whole_ones(two: tuple[Path, Path]) -> None:
    late = make_checkpoint(two[0].parent, 900)
    flip(late / "optimizer/__0_0.distcp")
    thin(two[0].parent, step=200, keep_full=2, keep_every=1)
    assert [Manifest.read(path).kind for path in (*two, late)] == ["full"] * 3
    thin(two[0].parent, step=200, keep_full=1, keep_every=1)
    assert [Manifest.read(path).kind for path in (*two, late)] == ["weights", "full", "full"]
    assert files_of(two[0]) == ["weights/.metadata", "weights/__0_0.distcp"]
    torch.testing.assert_close(read_weights(two[0]), weights_at(100), rtol=0, atol=0)


def test_damaged_weights_are_not_read(two: tuple[Path, Path]) -> None:
    flip(two[1] / "weights/__0_0.distcp")
    with pytest.raises(CheckpointError, match=r"weights/__0_0.distcp is not what was written"):
        read_weights(two[1])
    flip(two[0] / "optimizer/__0_0.distcp")  # not a file of the weights
    assert read_weights(two[0]).keys() == weights_at(100).keys()


class Harm:
    """Unpickling it makes a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.marker),)


def test_a_metadata_file_that_runs_code_is_refused_and_runs_nothing(two: tuple[Path, Path], tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    (two[1] / "weights/.metadata").write_bytes(pickle.dumps(Harm(marker)))
    reseal(two[1])
    with pytest.raises(CheckpointError, match=r"\.metadata is not a checkpoint's: it names posix.mkdir"):
        read_weights(two[1])
    assert not marker.exists()


def test_pickled_objects_among_the_tensors_are_refused_and_run_nothing(two: tuple[Path, Path], tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    state = {"patch_proj.weight": torch.ones(2), "object": Harm(marker)}
    shutil.rmtree(two[1] / "weights")
    dcp.save(state, storage_writer=dcp.FileSystemWriter(two[1] / "weights"), no_dist=True)
    reseal(two[1])
    with pytest.raises(CheckpointError, match=r"holds pickled objects \(object\)"):
        read_weights(two[1])
    assert not marker.exists()


def test_a_shard_that_is_a_pickle_runs_nothing(two: tuple[Path, Path], tmp_path: Path) -> None:
    marker, shard = tmp_path / "ran", two[1] / "weights/__0_0.distcp"
    stream = io.BytesIO()
    torch.save(Harm(marker), stream)
    shard.write_bytes(stream.getvalue().ljust(shard.stat().st_size, b"\0"))
    reseal(two[1])
    with pytest.raises(BaseException):  # noqa: B017  (torch's own error; what counts is that nothing ran)
        read_weights(two[1])
    assert not marker.exists()
