"""A folder of everything that goes wrong with footage: each gives one line, is counted, and the rest goes on."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from curator.manifest import Manifest, read_manifest
from curator.pipeline import CurateConfig, curate
from curator.records import Video
from curator.runners import Record, Runner, run_inline
from curator.stage import Outcome, Stage
from energon_datasets.columns import read_columns
from nemo_summer.encoders.text import TextConfig
from nemo_summer.encoders.video_vae import BLOCK, CodecConfig, LinearVae
from nemo_summer.shapes import LATENT_CHANNELS, ClipShape
from tests.curator.made_videos import lively, write_sound, write_video

CLIP = ClipShape(frames=49, height=32, width=48)
PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.ts\n#EXT-X-ENDLIST\n"
REASONS = {
    "text.mp4": ("not a video", "does not begin like"),
    "list.mp4": ("playlist", "is a playlist"),
    "concat.mkv": ("playlist", "is a playlist"),
    "empty.mp4": ("not a video", "is empty"),
    "sound.mp4": ("no video stream", "has no video stream, only audio"),
    "one pixel.mkv": ("too small", "has pictures of 1x1"),
    "two seconds.mp4": ("too short", "lasts 2.00 s"),
    "no index.mp4": ("truncated", "has no index (moov)"),
    "stump.mp4": ("truncated", "ends early"),
    "mjpeg.mkv": ("codec", "is coded in mjpeg"),
    "garbage.mkv": ("unreadable", "cannot be opened as matroska"),
    "pipe.mp4": ("not a file", "is not a regular file"),
    "gone.mp4": ("unreadable", "cannot be read"),
}
GOOD = {
    "whole.mp4": 1,
    "odd.mp4": 2,
    "variable rate.mkv": 3,
    "$(touch marker).mp4": 4,
    "new\nline.mp4": 5,
    "-y 😀.mp4": 6,
    "cut short.mp4": 7,
    "sub/;touch marker;.mp4": 8,
}


@dataclass(frozen=True)
class Ran:
    manifest: Manifest
    footage: Path
    out: Path
    codec: CodecConfig


def any_codec(folder: Path) -> CodecConfig:
    """A codec that takes no time to fit: orthogonal directions drawn at random."""
    directions_EC = torch.linalg.qr(torch.randn(BLOCK, LATENT_CHANNELS, generator=torch.Generator().manual_seed(0)))[0]
    LinearVae(torch.zeros(BLOCK), directions_EC, torch.ones(LATENT_CHANNELS)).save(folder)
    return CodecConfig(path=str(folder))


def cut_to(path: Path, whole: Path, share: float) -> None:
    data = whole.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def make_bad(root: Path, spare: Path) -> None:
    size = (48, 80)
    whole = write_video(spare / "a.mp4", seconds=4, picture=lambda i: lively(i, size, 90), index_first=True)
    late = write_video(spare / "b.mp4", seconds=4, picture=lambda i: lively(i, size, 91))
    (root / "text.mp4").write_text("This is a text.\n" * 99)
    (root / "list.mp4").write_text(PLAYLIST)
    (root / "concat.mkv").write_text("ffconcat version 1.0\nfile secret.ts\n")
    (root / "empty.mp4").touch()
    write_sound(root / "sound.mp4")
    write_video(root / "one pixel.mkv", size=(1, 1))
    write_video(root / "two seconds.mp4", seconds=2)
    cut_to(root / "no index.mp4", late, 0.9)
    cut_to(root / "stump.mp4", whole, 0.4)
    write_video(root / "mjpeg.mkv", codec="mjpeg")
    (root / "garbage.mkv").write_bytes(b"\x1a\x45\xdf\xa3" + bytes(range(256)) * 20)
    os.mkfifo(root / "pipe.mp4")
    (root / "gone.mp4").symlink_to("nowhere")
    (root / "the same text.mp4").write_text("This is a text.\n" * 99)
    (root / "notes.txt").write_text("not looked at")


def make_good(root: Path, spare: Path) -> None:
    (root / "sub").mkdir()
    for name, seed in GOOD.items():
        size = (51, 83) if name == "odd.mp4" else (48, 80)
        times_s = [i / 24 + (i % 3) / 100 for i in range(96)] if name == "variable rate.mkv" else None
        plain = write_video(
            spare / f"{seed}{Path(name).suffix}",
            seconds=6 if name == "cut short.mp4" else 4,
            size=size,
            picture=lambda i, size=size, seed=seed: lively(i, size, seed),
            times_s=times_s,
            index_first=True,
        )
        if name == "cut short.mp4":
            cut_to(root / name, plain, 0.7)
        else:
            plain.rename(root / name)
    broken = os.fsencode(root / "not") + b"\xff utf8.mp4"
    os.rename(write_video(spare / "z.mp4", seconds=4, picture=lambda i: lively(i, (48, 80), 9)), broken)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    root = tmp_path_factory.mktemp("bad")
    footage, spare = root / "footage", root / "spare"
    footage.mkdir()
    spare.mkdir()
    write_video(footage / "secret.ts", seconds=1)  # what the playlists point to; itself too short
    make_bad(footage, spare)
    make_good(footage, spare)
    before = {path: path.lstat() for path in footage.rglob("*")}
    codec = any_codec(root / "codec")
    manifest = curate(CurateConfig(), footage, root / "out", CLIP, codec, TextConfig(), run_inline)
    assert {path: path.lstat().st_mtime_ns for path in footage.rglob("*")} == {
        path: facts.st_mtime_ns for path, facts in before.items()
    }, "sources are never changed, and nothing is added to them"
    yield Ran(manifest, footage, root / "out", codec)


@pytest.mark.parametrize("name", REASONS)
def test_a_bad_file_is_one_line_with_its_name_the_finding_and_what_to_do(ran: Ran, name: str) -> None:
    (failure,) = [f for f in ran.manifest.failures if f["file"] == name]
    reason, finding = REASONS[name]
    assert failure["reason"] == reason and failure["stage"] in ("find", "probe", "shots")
    line = failure["message"]
    assert line.startswith(f"{name!r} ") and finding in line and "\n" not in line
    assert any(knob in line for knob in ("set ", "take it out of input=", "replace it by", "convert it first"))


def test_all_files_are_counted_once(ran: Ran) -> None:
    ran.manifest.check()
    assert ran.manifest.videos_found == len(REASONS) + len(GOOD) + 3  # secret.ts, the copy, the name of no UTF-8
    assert ran.manifest.videos_duplicate == 1 and ran.manifest.other_files == 1
    assert ran.manifest.videos_read == len(GOOD) + 1
    assert read_manifest(ran.out / "manifest.json") == ran.manifest


def test_the_rest_goes_on_under_whatever_name(ran: Ran) -> None:
    columns = read_columns(ran.out / "clips.parquet").to_pylist()
    videos = {row["video"] for row in columns}
    assert videos == {*GOOD, "not\\xff utf8.mp4"}
    assert all(row["status"] == "kept" for row in columns), [(r["video"], r["why_dropped"]) for r in columns]
    assert len(columns) == ran.manifest.clips_total == ran.manifest.clips_kept


def test_nothing_in_a_name_or_a_playlist_was_carried_out(ran: Ran) -> None:
    assert not list(ran.footage.rglob("marker")) and not Path("marker").exists()
    assert [f["reason"] for f in ran.manifest.failures if f["file"] == "secret.ts"] == ["too short"]


def test_a_file_that_breaks_off_gives_the_part_that_decodes_with_a_warning(ran: Ran) -> None:
    (warning,) = [line for line in ran.manifest.warnings if "'cut short.mp4'" in line]
    assert "ends early: " in warning and " of 144 frames decode" in warning
    (row,) = [r for r in read_columns(ran.out / "clips.parquet").to_pylist() if r["video"] == "cut short.mp4"]
    assert 3.0 <= row["end_s"] - row["start_s"] < 5.9


def test_clips_of_any_source_have_the_recipes_size_and_rate(ran: Ran) -> None:
    for row in read_columns(ran.out / "clips.parquet").to_pylist():
        assert (row["height"], row["width"]) == (CLIP.height, CLIP.width)
        assert row["frame_count"] == pytest.approx((row["end_s"] - row["start_s"]) * 24, abs=1)


def test_an_empty_folder_is_one_line_with_the_knob(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").touch()
    args = (CLIP, CodecConfig(), TextConfig(), run_inline)
    manifest = curate(CurateConfig(), tmp_path / "empty", tmp_path / "out", *args)
    assert manifest.videos_found == 0 and manifest.other_files == 1 and manifest.clips_total == 0
    (line,) = manifest.warnings
    assert "empty' holds no video (1 other files): set input=" in line
    assert read_manifest(tmp_path / "out" / "manifest.json") == manifest
    assert not (tmp_path / "out" / "dataset.json").exists()


def never(*_: object) -> Iterator[None]:
    pytest.fail("there was nothing to do")


def test_a_finished_run_is_not_run_again(ran: Ran) -> None:
    before = {path: path.stat().st_mtime_ns for path in ran.out.rglob("*.tar")}
    args = (CLIP, ran.codec, TextConfig())
    assert curate(CurateConfig(), ran.footage, ran.out, *args, runner=never) == ran.manifest  # type: ignore[arg-type]
    assert {path: path.stat().st_mtime_ns for path in ran.out.rglob("*.tar")} == before


def counting(done: list[str]) -> Runner:
    def run(stages: Sequence[Stage], records: Sequence[Record]) -> Iterator[Outcome]:
        done.extend(r.path if isinstance(r, Video) else r.clip_id for r in records)
        return run_inline(stages, records)

    return run


def test_only_a_changed_source_is_read_again(tmp_path: Path) -> None:
    args = (CLIP, any_codec(tmp_path / "codec"), TextConfig())
    footage, out = tmp_path / "footage", tmp_path / "out"
    footage.mkdir()
    for seed, name in enumerate(("a.mp4", "b.mp4")):
        write_video(footage / name, seconds=3.5, picture=lambda i, seed=seed: lively(i, (48, 80), seed))
    first = curate(CurateConfig(), footage, out, *args, run_inline)
    write_video(footage / "b.mp4", seconds=3.5, picture=lambda i: lively(i, (48, 80), 7))
    done: list[str] = []
    second = curate(CurateConfig(), footage, out, *args, counting(done))
    assert [name for name in done if name.endswith(".mp4")] == ["b.mp4"]
    assert second.clips_total == first.clips_total == 2
    (out / "thumbs").joinpath(next(iter(os.listdir(out / "thumbs")))).unlink()
    (out / "dataset.json").unlink()  # an output that is gone is made again
    third = curate(CurateConfig(), footage, out, *args, run_inline)
    columns = read_columns(out / "clips.parquet").to_pylist()
    assert third.clips_total == 2 and all((out / row["thumb"]).exists() for row in columns)
