import cv2
import numpy as np
import pytest

from curator.filters.blur import Sharpness, laplacian_variance
from curator.filters.colour import colourfulness
from curator.filters.decide import Decide
from curator.filters.static import Static
from curator.frames import read_clip, write_clip
from curator.records import Frames
from tests.curator.made_clips import camera, clip_of, still


def static_share(rgb_THWC):
    return Static().process(clip_of(rgb_THWC))[0].static_share


def scores(rgb_THWC):
    return Sharpness().process(clip_of(rgb_THWC))[0]


def test_frozen_frames_are_static_and_a_pan_is_not():
    assert static_share(still()) == 1
    assert static_share(camera(49, right=0.3)) == 0


def test_a_clip_that_freezes_half_way_is_half_static():
    going = camera(25, right=0.5)
    assert static_share(np.concatenate([going, np.repeat(going[-1:], 24, axis=0)])) == pytest.approx(0.5, abs=0.01)


def test_a_frozen_picture_is_dropped_as_static_also_after_noise_and_coding(tmp_path):
    noise = np.random.default_rng(0).normal(0, 1.0, still().shape)
    noisy = np.clip(still() + noise, 0, 255).astype(np.uint8)
    write_clip(tmp_path / "a.mp4", Frames(noisy, 24.0), crf=26)
    assert static_share(read_clip(tmp_path / "a.mp4")) > Decide().static_share_max


def test_a_small_thing_that_moves_keeps_a_still_scene_from_being_static():
    pictures = still(49)
    for t in range(49):
        pictures[t, 50:58, 10 + 3 * t : 18 + 3 * t] = 255
    assert static_share(pictures) < 0.1


def test_the_laplacian_of_white_noise_has_20_times_its_variance():
    # the kernel's weights are 1, 1, -4, 1, 1: the sum of their squares is 20
    noise = np.random.default_rng(0).normal(0, 5, (4, 256, 256)).astype(np.float32)
    assert laplacian_variance(noise) == pytest.approx(20 * 25, rel=0.03)


def test_each_blur_lowers_the_sharpness():
    sharp = camera(12, right=0.5)
    blurred = [np.stack([cv2.GaussianBlur(p, (0, 0), sigma) for p in sharp]) for sigma in (2, 5)]
    values = [scores(pictures).sharpness for pictures in (sharp, *blurred)]
    assert values[0] > values[1] > values[2]


@pytest.mark.parametrize("grey", [0, 51, 255])
def test_an_even_picture_has_its_own_brightness_and_no_contrast(grey):
    clip = scores(np.full((5, 72, 128, 3), grey, np.uint8))
    assert clip.brightness == pytest.approx(grey / 255, abs=1e-3)
    assert clip.contrast == 0 and clip.sharpness == 0


def test_a_picture_half_black_half_white_has_contrast_one_half():
    pictures = np.zeros((5, 128, 224, 3), np.uint8)
    pictures[:, 64:] = 255
    assert scores(pictures).contrast == pytest.approx(0.5, abs=0.01)


def test_grey_and_sepia_prints_have_no_colour_and_a_texture_has():
    colourful = camera(2)
    grey = np.repeat(colourful.mean(axis=-1, keepdims=True), 3, axis=-1)
    assert colourfulness(grey.astype(np.uint8)) == 0
    sepia = np.clip(grey * 0.4 + np.array([90, 80, 70]), 0, 255).astype(np.uint8)
    assert colourfulness(sepia) < 1 < 30 < colourfulness(colourful)
