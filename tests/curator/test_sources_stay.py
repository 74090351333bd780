"""The curator removes and repairs what is its own, and nothing else."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from curator.manifest import read_manifest
from curator.pipeline import CurateConfig, ShardsConfig, curate, dataset_is_whole, sweep_own
from curator.raw_videos.find import FindConfig, find_videos
from curator.runners import RunnerConfig
from nemo_summer.encoders.text import TextConfig
from nemo_summer.encoders.video_vae import CodecConfig
from nemo_summer.shapes import ClipShape


@pytest.mark.parametrize("inside", ["", "footage", "linked"])
def test_footage_in_the_output_folder_is_refused_before_anything_is_touched(tmp_path: Path, inside: str) -> None:
    out = tmp_path / "out"
    (out / "footage").mkdir(parents=True)
    (tmp_path / "link").symlink_to(out)
    (out / inside.replace("linked", "footage") / ".mine.2024.mp4").write_text("source")
    before = sorted(os.walk(out))
    where = tmp_path / "link" / "footage" if inside == "linked" else out / inside
    with pytest.raises(ValueError, match=r"holds the footage.*set out="):
        curate(CurateConfig(), where, out, ClipShape(), CodecConfig(), TextConfig())
    assert sorted(os.walk(out)) == before


def test_only_what_the_curator_itself_left_half_written_is_swept(tmp_path: Path) -> None:
    strangers = [".secret.1", ".mine.2024.mp4", ".manifest.old.json", "holiday/.a.12.mp4", "video/a.txt"]
    left = [".manifest.77.json", ".dataset.77.json", ".clips.77.parquet", "video/.shard_000000.77.tar"]
    for name in [*strangers, *left]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    sweep_own(tmp_path)
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()} == set(strangers)


def test_a_dataset_with_a_damaged_table_is_not_whole(tmp_path: Path) -> None:
    (tmp_path / "clips.parquet").write_text("whole")
    files = {"clips.parquet": hashlib.sha256(b"whole").hexdigest()}
    (tmp_path / "dataset.json").write_text(json.dumps({"files": files}))
    assert dataset_is_whole(tmp_path)
    (tmp_path / "clips.parquet").write_text("other")
    assert not dataset_is_whole(tmp_path)
    for text in ("[]", "{}", "garbage", '{"files": 3}'):
        (tmp_path / "dataset.json").write_text(text)
        assert not dataset_is_whole(tmp_path)


def test_a_manifest_of_other_fields_is_named(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"format": 1, "surprise": 2}')
    with pytest.raises(ValueError, match=r"manifest.json.*surprise.*delete it"):
        read_manifest(tmp_path / "manifest.json")


def test_settings_that_cannot_work_are_refused_before_the_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"curate.device='tpu'.*cpu or cuda"):
        CurateConfig(device="tpu")
    with pytest.raises(ValueError, match=r"curate.runner.workers=-1"):
        RunnerConfig(workers=-1)
    with pytest.raises(ValueError, match=r"curate.shards.shard_mb=0"):
        ShardsConfig(shard_mb=0)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError, match=r"no GPU here: set curate.device=cpu"):
        curate(
            replace(CurateConfig(), device="cuda"),
            tmp_path / "in", tmp_path / "out", ClipShape(), CodecConfig(), TextConfig(),
        )  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_files_without_clips_are_told_with_finding_and_knob_and_no_commands_to_the_terminal() -> None:
    from curator.manifest import Manifest
    from nemo_summer.verbs.curate import LINES, _examples, _failures

    failure = {"file": "a\x1b]0;b\n.mp4", "stage": "probe", "reason": "codec", "message": "'a' has a fault: turn it"}
    made = Manifest(failures=[failure] * (LINES + 2))
    assert _examples(made, "codec").startswith("a?]0;b?.mp4, ")
    assert _failures(made) == ["'a' has a fault: turn it"] * LINES + ["and 2 more files: manifest.json names them all"]


def test_what_was_made_here_is_no_footage(tmp_path: Path) -> None:
    """Else a demo or dataset inside the footage folder would feed on its own output at the next start."""
    for name in (
        "mine.mp4",
        "data/work/claim",
        "data/work/clips/a.mp4",
        "run/samples/samples.json",
        "run/samples/b.mp4",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    found = find_videos(tmp_path, FindConfig())
    assert [Path(video.path).name for video in (*found.videos, *found.failed)] == ["mine.mp4"]
