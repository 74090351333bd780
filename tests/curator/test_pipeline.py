"""The way as a whole: its order, its settings, a full disk, and the same dataset from both runners."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from curator.pipeline import CurateConfig, curate, stages
from curator.records import Clip, Video
from curator.runners import RunnerConfig, RunnerKind, groups_of, open_runner, run_inline
from curator.stage import GatherStage
from curator.whole_files import CannotWrite
from energon_datasets.columns import read_columns
from nemo_summer.encoders.text import TextConfig
from nemo_summer.encoders.video_vae import CodecConfig
from nemo_summer.shapes import ClipShape
from tests.curator.made_videos import lively, write_video
from tests.curator.test_bad_input import CLIP, any_codec
from tests.curator.test_whole_files import files_of_at_most


@pytest.fixture
def footage(tmp_path: Path) -> Path:
    folder = tmp_path / "footage"
    folder.mkdir()
    for number in range(3):  # two shots each
        write_video(
            folder / f"{number}.mp4",
            seconds=7,
            picture=lambda i, number=number: lively(i, seed=2 * number + i // 84),
        )
    return folder


def test_frames_are_made_and_let_go_inside_one_group_of_stages() -> None:
    way = stages(CurateConfig(), Path("in"), Path("out"), ClipShape(), CodecConfig(), TextConfig())
    streamed = way[: next(i for i, stage in enumerate(way) if isinstance(stage, GatherStage))]
    per_video, per_clip = groups_of(streamed)
    assert [stage.takes for stage in (per_video[0], per_clip[0])] == [Video, Clip]
    assert per_clip[0].name == "decode" and per_clip[-1].name == "encode"
    assert len({stage.name for stage in way}) == len(way), "times and reasons are kept by name"


def test_every_setting_can_be_given_on_the_command_line() -> None:
    given = ["runner.kind=ray", "decode.decoder=nvdec", "cut.longest_s=5", "find.suffixes=[mp4]", "dedup.bucket=none"]
    merged = OmegaConf.merge(OmegaConf.structured(CurateConfig), OmegaConf.from_dotlist(given))
    cfg = OmegaConf.to_object(merged)
    assert isinstance(cfg, CurateConfig) and cfg.runner.kind is RunnerKind.ray
    assert cfg.cut.longest_s == 5.0 and cfg.find.suffixes == ["mp4"]


def test_a_full_disk_stops_with_one_line_and_the_next_run_goes_on(footage: Path, tmp_path: Path) -> None:
    codec, out = any_codec(tmp_path / "codec"), tmp_path / "out"
    with files_of_at_most(20_000), pytest.raises(CannotWrite, match=r"cannot write '.*': File too large .* set out="):
        curate(CurateConfig(), footage, out, CLIP, codec, TextConfig(), run_inline)
    assert not (out / "dataset.json").exists() and not (out / "manifest.json").exists()
    assert not [path for path in out.rglob("*") if path.is_file() and path.stat().st_size >= 20_000]
    assert curate(CurateConfig(), footage, out, CLIP, codec, TextConfig(), run_inline).clips_total == 6


def files(out: Path) -> dict[str, bytes]:
    """All that makes the dataset; not the manifest and the journal, which hold times."""
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*.*") if "journal" not in path.parts}


@pytest.mark.ranks
def test_ray_makes_the_same_dataset_byte_by_byte(footage: Path, tmp_path: Path) -> None:
    codec = any_codec(tmp_path / "codec")
    (footage / "text.mp4").write_text("no video")
    first = curate(CurateConfig(), footage, tmp_path / "inline", CLIP, codec, TextConfig(), run_inline)
    with open_runner(RunnerConfig(kind=RunnerKind.ray, workers=2)) as runner:
        second = curate(CurateConfig(), footage, tmp_path / "ray", CLIP, codec, TextConfig(), runner)
    inline, ray = files(tmp_path / "inline"), files(tmp_path / "ray")
    assert inline.keys() == ray.keys()
    assert [name for name in inline if inline[name] != ray[name]] == ["manifest.json"]
    assert first.clips_dropped == second.clips_dropped and first.failures == second.failures
    assert read_columns(tmp_path / "ray" / "clips.parquet").num_rows == first.clips_total == 6
