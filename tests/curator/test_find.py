"""Which files are videos to look into."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from curator.names import locate, readable
from curator.raw_videos import find
from curator.raw_videos.find import FindConfig, content_digest, find_videos

HOSTILE = ["$(touch x).mp4", ";touch m.mp4", "new\nline.mp4", "-y.mp4", "'quo\"te.mp4", "😀 ü.mp4", "..mp4", "a b.MP4"]


def names(root: Path, **options: Path) -> list[str]:
    return [video.path for video in find_videos(root, FindConfig(), **options).videos]


def test_videos_come_sorted_from_all_folders_and_other_files_are_counted(tmp_path: Path) -> None:
    for name in ("b.mp4", "sub/a.MKV", "a.mp4", "readme.txt", "sub/deep/c.webm"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    found = find_videos(tmp_path, FindConfig())
    assert [v.path for v in found.videos] == ["a.mp4", "b.mp4", "sub/a.MKV", "sub/deep/c.webm"]
    assert found.other_files == 1


def test_the_same_content_is_read_once_and_its_copies_are_named(tmp_path: Path) -> None:
    for name, content in (("a.mp4", "one"), ("b.mp4", "two"), ("c.mp4", "one"), ("d.mp4", "one")):
        (tmp_path / name).write_text(content)
    found = find_videos(tmp_path, FindConfig())
    assert [v.path for v in found.videos] == ["a.mp4", "b.mp4"]
    assert found.duplicates == (("c.mp4", "a.mp4"), ("d.mp4", "a.mp4"))


def test_an_output_folder_inside_the_input_is_not_looked_into(tmp_path: Path) -> None:
    for name in ("a.mp4", "out/work/clips/b.mp4", ".hidden/c.mp4", "._a.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert names(tmp_path, skip=tmp_path / "out") == ["a.mp4"]


@pytest.mark.parametrize("name", [os.fsencode(name) for name in HOSTILE] + [b"\xff\xfe not utf8.mp4", rb"back\x41.mp4"])
def test_every_name_finds_its_way_through_json_and_back_to_the_file(tmp_path: Path, name: bytes) -> None:
    (tmp_path / os.fsdecode(name)).write_bytes(name)
    text = json.loads(json.dumps(readable(Path(os.fsdecode(name)))))
    text.encode("utf-8")  # Parquet takes nothing else
    assert locate(tmp_path, text).read_bytes() == name


def test_names_differ_but_keys_are_plain(tmp_path: Path) -> None:
    for number, name in enumerate(HOSTILE):
        (tmp_path / name).write_text(str(number))
    videos = find_videos(tmp_path, FindConfig()).videos
    assert sorted(v.path for v in videos) == sorted(set(HOSTILE) - {"..mp4"})  # a hidden file
    assert all(set(v.video_id) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-") for v in videos)
    assert len({v.video_id for v in videos}) == len(videos)


def test_files_that_cannot_be_read_are_named_and_the_rest_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("a")
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nowhere")
    found = find_videos(tmp_path, FindConfig())
    assert [v.path for v in found.videos] == ["a.mp4"]
    assert "'gone.mp4' cannot be read (No such file" in (found.failed[0].error or "")


def test_a_missing_input_folder_is_one_line_with_the_knob(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"input='.*nowhere' is not a folder: set input="):
        find_videos(tmp_path / "nowhere", FindConfig())


@pytest.mark.parametrize("place", [0, 40, 99])
def test_a_large_file_that_changed_anywhere_looked_at_has_another_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    monkeypatch.setattr(find, "WHOLE_UP_TO_BYTES", 10)
    monkeypatch.setattr(find, "SAMPLE_BYTES", 10)
    monkeypatch.setattr(find, "SAMPLES", 11)
    content = bytearray(range(100))
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    before = content_digest(path)
    content[place] ^= 1
    path.write_bytes(content)
    assert content_digest(path) != before
