"""Frames by time, and what is never opened."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from av.video.stream import VideoStream
from hypothesis import given, settings
from hypothesis import strategies as st

from curator import frames as door
from curator.frames import CannotRead, Picture, container_of, look, nearest, read_clip, read_span, scan, write_clip
from curator.records import Frames
from tests.curator.made_videos import SIZE, lively, number_of, write_video

SECRET = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n"
CONCAT = "ffconcat version 1.0\nfile {target}\n"
DASH = '<?xml version="1.0"?><MPD><Period><BaseURL>{target}</BaseURL></Period></MPD>'


def picture(time_s: float) -> Picture:
    return Picture(time_s, np.zeros((1, 1, 3), np.uint8), False)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 200), min_size=1, max_size=30, unique=True).map(sorted),
    st.lists(st.integers(0, 200), min_size=1, max_size=30).map(sorted),
)
def test_no_other_picture_is_nearer_than_the_chosen_one(times: list[int], wanted: list[int]) -> None:
    chosen, _ = nearest([picture(t) for t in times], wanted)
    assert len(chosen) == len(wanted)
    for got, want in zip(chosen, wanted):
        assert abs(got.time_s - want) == min(abs(t - want) for t in times)


def test_a_span_gives_the_frames_of_its_seconds(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", seconds=4, fps=24)
    frames, broken = read_span(path, 1.0, 3.0, 24, 48)
    assert [number_of(rgb) for rgb in frames.rgb_THWC] == list(range(24, 72))
    assert broken == 0


@pytest.mark.parametrize("name", ["a.mkv", "a.avi", "a.ts", "a.webm"])
def test_the_same_seconds_hold_the_same_frames_in_every_container(tmp_path: Path, name: str) -> None:
    codec = {"a.avi": "mpeg4", "a.webm": "libvpx-vp9"}.get(name, "libx264")
    path = write_video(tmp_path / name, seconds=3.5, fps=24, codec=codec)
    frames, _ = read_span(path, 1.5, 2.0, 24, 48)
    assert [number_of(rgb) for rgb in frames.rgb_THWC] == list(range(36, 48))


def test_a_variable_rate_is_resampled_by_the_times_of_its_frames(tmp_path: Path) -> None:
    times_s = [0, 0.1, 0.15, 0.2, 0.9, 0.95, 1.5, 1.55, 1.6, 2.4, 2.45, 3.2]
    path = write_video(tmp_path / "vfr.mkv", times_s=times_s)
    frames, _ = read_span(path, 0.0, 3.2, 10, 48)
    expected = [min(range(11), key=lambda k: (round(abs(times_s[k] - i / 10), 6), k)) for i in range(32)]
    assert [number_of(rgb) for rgb in frames.rgb_THWC] == expected


def test_a_span_shows_nothing_of_the_next_shot_even_where_that_is_nearer(tmp_path: Path) -> None:
    path = write_video(tmp_path / "slow.mp4", seconds=4, fps=2)  # frames at 0, 0.5, 1.0, ...
    frames, _ = read_span(path, 0.0, 1.0, 24, 48)  # the last wanted time, 23/24, is nearest to the frame at 1.0
    assert {number_of(rgb) for rgb in frames.rgb_THWC} == {0, 1}


def test_a_turned_picture_comes_upright(tmp_path: Path) -> None:
    corner_HWC = np.zeros((48, 80, 3), np.uint8)
    corner_HWC[:24, :40] = 255  # above left; a quarter turn clockwise brings it above right
    path = write_video(
        tmp_path / "a.mp4",
        seconds=1,
        picture=lambda _: corner_HWC,
        prepare=lambda stream: stream.set_display_rotation(-90),
    )
    rgb_HWC = next(scan(path, 80)).rgb_HWC
    assert (look(path).height, look(path).width) == rgb_HWC.shape[:2] == (80, 48)
    assert rgb_HWC[10, 40].min() > 200 and rgb_HWC[[10, 60, 60], [10, 10, 40]].max() < 50


def test_oblong_pixels_are_made_square(tmp_path: Path) -> None:
    def anamorphic(stream: VideoStream) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(2)

    path = write_video(tmp_path / "a.mp4", seconds=1, prepare=anamorphic)
    assert (look(path).height, look(path).width) == (48, 160)
    assert next(scan(path, 24)).rgb_HWC.shape == (24, 80, 3)


def test_odd_sizes_are_read_whole(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", seconds=1, size=(51, 83))
    assert next(scan(path, 1000)).rgb_HWC.shape == (51, 83, 3)


@pytest.mark.parametrize("text", [SECRET, CONCAT, DASH], ids=["hls", "ffconcat", "dash"])
@pytest.mark.parametrize("name", ["list.mp4", "list.mkv"])
def test_a_playlist_is_refused_before_a_decoder_sees_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, name: str
) -> None:
    write_video(tmp_path / "secret.ts", seconds=1)
    (tmp_path / name).write_text(text.format(target="secret.ts"))
    monkeypatch.setattr(door.av, "open", lambda *_, **__: pytest.fail("the decoder was asked"))
    with pytest.raises(CannotRead, match="is a playlist") as caught:
        look(tmp_path / name)
    assert caught.value.reason == "playlist"


def test_a_playlist_that_begins_like_a_video_is_not_followed(tmp_path: Path) -> None:
    write_video(tmp_path / "secret.ts", seconds=1)
    (tmp_path / "list.mp4").write_text("#EXTftyp" + SECRET.format(target="secret.ts"))
    assert container_of(tmp_path / "list.mp4") == "mov"
    with pytest.raises(CannotRead):
        look(tmp_path / "list.mp4")


@pytest.mark.parametrize("name", ["concat:a|b.mp4", "http:x.mp4", "-y.mp4", "$(touch x).mp4", "a\nb.mp4", "😀 ü.mp4"])
def test_a_name_is_never_an_address_an_option_or_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write_video(tmp_path / "plain.mp4", seconds=1).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert look(Path(name)).frame_count == 24
    assert os.listdir(tmp_path) == [name]


def test_codecs_outside_the_list_stay_closed(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", seconds=1, codec="mjpeg")
    with pytest.raises(CannotRead, match="is coded in mjpeg, we decode h264") as caught:
        look(path)
    assert caught.value.reason == "codec"


def test_pictures_above_the_limit_are_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", seconds=1)
    with pytest.raises(CannotRead) as caught:
        look(path, max_pixels=SIZE[0] * SIZE[1] - 1)
    assert caught.value.reason in ("too large", "unreadable")
    assert look(path, max_pixels=SIZE[0] * SIZE[1]).height == SIZE[0]


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.mp4")
    with pytest.raises(CannotRead, match="is not a regular file"):
        look(tmp_path / "a.mp4")


def test_a_written_clip_reads_back_nearly_the_same(tmp_path: Path) -> None:
    rgb_THWC = np.stack([lively(i, (64, 112)) for i in range(25)])
    write_clip(tmp_path / "a.mp4", Frames(rgb_THWC, 24.0), crf=14)
    back_THWC = read_clip(tmp_path / "a.mp4")
    assert back_THWC.shape == rgb_THWC.shape
    # Half the rows and columns of colour are lost in 4:2:0; light is not.
    light = np.array([0.2126, 0.7152, 0.0722])
    assert np.abs((back_THWC - rgb_THWC.astype(float)) @ light).mean() < 6
    assert abs(back_THWC.mean((0, 1, 2)) - rgb_THWC.mean((0, 1, 2))).max() < 2.5
