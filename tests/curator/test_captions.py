import numpy as np
import pytest

from curator.captions.colours import NAMES, colour_shares, name_pixels, standing_out
from curator.captions.motion_words import CameraWords
from curator.captions.rules import RuleCaptions
from tests.curator.made_clips import camera, clip_of, moving_square, still


def captioned(rgb_THWC, **fields):
    clip = CameraWords().process(clip_of(rgb_THWC, **fields))[0]
    return RuleCaptions().process(clip)[0]


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((5, 5, 5), "black"),
        ((128, 128, 128), "grey"),
        ((250, 250, 250), "white"),
        ((220, 20, 20), "red"),
        ((250, 140, 20), "orange"),
        ((240, 230, 40), "yellow"),
        ((30, 160, 40), "green"),
        ((40, 200, 210), "cyan"),
        ((30, 60, 220), "blue"),
        ((130, 40, 200), "purple"),
        ((255, 160, 190), "pink"),
        ((120, 75, 40), "brown"),
    ],
)
def test_colours_have_the_names_that_people_give_them(rgb, name):
    assert NAMES[name_pixels(np.array([[rgb]], np.uint8))[0, 0]] == name


def test_shares_of_the_colours_add_up_and_come_greatest_first():
    picture = np.zeros((10, 10, 3), np.uint8)
    picture[:3] = (30, 60, 220)
    assert colour_shares(picture) == [("black", 0.7), ("blue", 0.3)]


def test_a_vivid_spot_stands_out_and_the_ground_does_not():
    pictures = moving_square(8)[:, ::2, ::2]
    assert standing_out(pictures) == "red"
    assert standing_out(np.full((4, 48, 80, 3), 120, np.uint8)) == ""


@pytest.mark.parametrize(
    ("turn", "where"),
    [
        (lambda p: p, "to the right"),
        (lambda p: p[::-1], "to the left"),
        (lambda p: p.transpose(0, 2, 1, 3)[:, :108, :108], "down"),
        (lambda p: p.transpose(0, 2, 1, 3)[::-1, :108, :108], "up"),
    ],
)
def test_what_moves_is_named_with_colour_size_and_direction(turn, where):
    clip = captioned(turn(moving_square(33)))
    assert "red shape moves" in clip.caption_detailed and where in clip.caption_detailed
    assert "camera stands still" in clip.caption_detailed
    assert clip.caption_words.split()[:2] == ["red", "moving"]


def test_a_moving_square_is_small_and_its_ground_is_the_scene():
    clip = captioned(moving_square(33))
    assert clip.caption_short == "A small red shape moves right in a green scene."
    assert clip.caption_words == "red moving green"


def test_the_camera_is_in_the_captions():
    clip = captioned(camera(33, right=-2.0))
    assert "The camera pans right" in clip.caption_detailed
    assert clip.caption_words.split()[1] == "panning"


def test_a_frozen_picture_hardly_moves():
    clip = captioned(still())
    assert "ardly anything moves" in clip.caption_short and "Hardly anything moves." in clip.caption_detailed
    assert clip.caption_words.split()[1] == "still"


@pytest.mark.parametrize("light", [0.05, 0.3, 1.0, 1.6])
@pytest.mark.parametrize("frames", [1, 2, 33])
def test_captions_have_their_form_for_any_picture(light, frames):
    rgb_THWC = np.clip(camera(frames, right=3.0, grow=1.002) * light, 0, 255).astype(np.uint8)
    clip = captioned(rgb_THWC)
    levels = (clip.caption_detailed, clip.caption_short, clip.caption_words)
    assert all(text.isascii() and text == " ".join(text.split()) for text in levels)
    assert 1 <= clip.caption_detailed.count(".") <= 3 and clip.caption_short.count(".") == 1
    assert len(clip.caption_words.split()) == 3
    assert captioned(rgb_THWC) == clip


def test_a_clip_that_was_turned_down_gets_no_caption():
    clip = clip_of(still(), dropped_by="static")
    assert RuleCaptions().process(clip) == [clip]
