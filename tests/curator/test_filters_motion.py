import numpy as np
import pytest

from curator.captions.motion_words import CameraWords, camera_path
from curator.filters.motion import Motion
from curator.pictures import movement_of
from tests.curator.made_clips import camera, clip_of, still


def motion(rgb_THWC, fps=24.0):
    return Motion().process(clip_of(rgb_THWC, fps))[0].motion


def word(rgb_THWC, fps=24.0):
    return CameraWords().process(clip_of(rgb_THWC, fps))[0].camera


def test_a_pan_of_10_percent_of_the_width_per_second_measures_10():
    step = 0.10 * 192 / 24
    assert motion(camera(49, right=step)) == pytest.approx(10, rel=0.08)


def test_motion_grows_in_proportion_to_speed():
    slow, fast = motion(camera(49, right=0.5)), motion(camera(49, right=1.5))
    assert fast / slow == pytest.approx(3, rel=0.1)


def test_a_frozen_picture_and_a_single_frame_do_not_move():
    assert motion(still()) == 0
    assert motion(still(frames=1)) == 0


def test_motion_per_second_does_not_depend_on_the_frame_rate():
    fine = camera(97, right=0.4)
    assert motion(fine[::2], fps=24.0) == pytest.approx(motion(fine, fps=48.0), rel=0.05)


def test_doubled_frames_move_as_much_as_the_frames_they_were_made_from():
    halves = camera(25, right=1.6)
    assert motion(np.repeat(halves, 2, axis=0)) == pytest.approx(motion(halves, fps=12.0), rel=0.15)


def test_motion_is_the_same_at_every_working_size():
    large = camera(25, right=2.0, size=(216, 384))
    assert motion(large[:, ::2, ::2]) == pytest.approx(motion(large), rel=0.08)


@pytest.mark.parametrize(
    ("right", "down", "grow", "expected"),
    [
        # the camera goes against its picture
        (+1.0, 0.0, 1.0, "pan left"),
        (-1.0, 0.0, 1.0, "pan right"),
        (0.0, +1.0, 1.0, "pan up"),
        (0.0, -1.0, 1.0, "pan down"),
        (0.0, 0.0, 1.006, "zoom in"),
        (0.0, 0.0, 1 / 1.006, "zoom out"),
        (0.0, 0.0, 1.0, "still"),
        (0.02, 0.0, 1.0, "still"),
    ],
)
def test_the_camera_gets_its_word(right, down, grow, expected):
    assert word(camera(49, right, down, grow)) == expected


def test_a_camera_thrown_about_shakes_and_a_fast_pan_does_not():
    world = camera(1, size=(216, 384))[0]
    jumps = np.random.default_rng(0).integers(-9, 10, size=(49, 2))
    shaken = np.stack([world[50 + y : 158 + y, 90 + x : 282 + x] for y, x in jumps])
    assert word(shaken) == "shaking"
    assert word(camera(49, right=4.0)) == "pan left"


def test_the_fit_finds_shift_and_growth_of_a_pan_with_zoom():
    path = camera_path(movement_of(clip_of(camera(13, right=0.8, grow=1.004))))
    assert path.shift_P2[:, 0].mean() == pytest.approx(0.8 / 192 * 100 * 24, rel=0.1)
    assert path.zoom_P.mean() == pytest.approx((1.004**3 - 1) * 8 * 100, rel=0.1)


def test_something_that_moves_before_a_resting_camera_is_no_pan():
    pictures = still(49)
    for t in range(49):
        pictures[t, 30:80, 20 + 2 * t : 70 + 2 * t] = camera(1, seed=7)[0][:50, :50]
    assert word(pictures) == "still"
