import numpy as np
import pytest

from curator.filters.bars import FindBars
from curator.filters.motion import Motion
from curator.frames import read_clip, write_clip
from curator.pictures import inside_bars
from curator.records import Frames
from tests.curator.made_clips import camera, clip_of


def barred(rgb_THWC, top=0, bottom=0, left=0, right=0):
    """Black bars laid over the picture."""
    H, W = rgb_THWC.shape[1:3]
    framed = np.zeros_like(rgb_THWC)
    framed[:, top : H - bottom, left : W - right] = rgb_THWC[:, top : H - bottom, left : W - right]
    return framed


def crop(rgb_THWC, **fields):
    return FindBars().process(clip_of(rgb_THWC, **fields))[0].crop


@pytest.mark.parametrize(
    ("bars", "expected"),
    [
        ({"top": 10, "bottom": 10}, (10, 98, 0, 192)),
        ({"left": 24, "right": 24}, (0, 108, 24, 168)),
        ({"top": 8, "bottom": 12, "left": 20, "right": 20}, (8, 96, 20, 172)),
        ({"bottom": 9}, (0, 99, 0, 192)),
        ({"left": 1, "right": 1}, (0, 108, 1, 191)),
    ],
)
def test_bars_are_found_to_the_pixel(bars, expected):
    assert crop(barred(camera(24, right=1.0), **bars)) == expected


def test_bars_are_found_to_the_pixel_after_coding(tmp_path):
    write_clip(tmp_path / "a.mp4", Frames(barred(camera(24, right=1.0), top=12, bottom=12), 24.0), crf=26)
    assert crop(read_clip(tmp_path / "a.mp4")) == (12, 96, 0, 192)


def test_a_picture_without_bars_has_no_crop():
    assert crop(camera(24, right=1.0)) is None


def test_a_dark_scene_that_fades_to_its_edges_has_no_bars():
    y = np.abs(np.linspace(-1, 1, 108))[:, None, None]
    x = np.abs(np.linspace(-1, 1, 192))[None, :, None]
    light = np.clip(1.05 - np.hypot(y, x), 0, 1)
    assert crop((camera(24, right=1.0) * light).astype(np.uint8)) is None


def test_a_lamp_in_the_night_has_no_bars():
    pictures = np.full((24, 108, 192, 3), 6, np.uint8)
    pictures[:, 40:70, 80:110] = 230
    assert crop(pictures) is None


def test_a_black_clip_has_no_bars():
    assert crop(np.zeros((24, 108, 192, 3), np.uint8)) is None


def test_a_bar_must_be_black_in_all_frames():
    pictures = barred(camera(24, right=1.0), top=10, bottom=10)
    pictures[12:] = camera(12, right=1.0)
    assert crop(pictures) is None


def test_in_pixels_of_the_source_the_crop_lies_inside_the_picture_and_loses_at_most_two_working_pixels():
    source = barred(camera(24, right=1.0, size=(360, 640)), top=45, bottom=45)
    working = np.stack([p.reshape(90, 4, 160, 4, 3).mean(axis=(1, 3)) for p in source]).astype(np.uint8)
    top, bottom, left, right = crop(working, source_height=360, source_width=640)
    assert 45 <= top <= 45 + 8 and 315 - 8 <= bottom <= 315
    assert (left, right) == (0, 640)


def test_what_is_measured_inside_the_bars_is_what_the_picture_alone_gives():
    picture = camera(49, right=1.0)
    framed = np.zeros((49, 140, 192, 3), np.uint8)
    framed[:, 16:124] = picture
    clip = FindBars().process(clip_of(framed))[0]
    assert np.array_equal(inside_bars(clip), picture)
    assert Motion().process(clip)[0].motion == Motion().process(clip_of(picture))[0].motion
