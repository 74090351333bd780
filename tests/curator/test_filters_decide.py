import json
import os
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from curator.captions.motion_words import CameraWords
from curator.captions.rules import RuleCaptions
from curator.dedup.embed import Embed
from curator.dedup.keep import KeepOne
from curator.filters.bars import FindBars
from curator.filters.blur import Sharpness
from curator.filters.decide import Decide
from curator.filters.motion import Motion
from curator.filters.static import Static
from curator.frames import read_span
from curator.records import Status
from nemo_summer.demo.footage import write_footage
from tests.curator.made_clips import camera, clip_of

GOOD = {"motion": 8.0, "static_share": 0.0, "sharpness": 200.0, "brightness": 0.5, "contrast": 0.2, "camera": "still"}


def decided(stage=None, **scores):
    clip = clip_of(camera(5), **(GOOD | scores))
    return (stage or Decide()).process(clip)[0]


def test_a_good_clip_is_kept():
    assert decided().status is Status.KEPT


@pytest.mark.parametrize(
    ("scores", "rule", "knob"),
    [
        ({"brightness": 0.01}, "dark", "brightness_min"),
        ({"brightness": 0.99}, "bright", "brightness_max"),
        ({"contrast": 0.001}, "flat", "contrast_min"),
        ({"static_share": 0.97}, "static", "static_share_max"),
        ({"motion": 0.01}, "motion", "motion_min"),
        ({"motion": 500.0}, "motion", "motion_max"),
        ({"sharpness": 1.0}, "blur", "sharpness_min"),
        ({"camera": "shaking"}, "shake", "keep_shaking"),
    ],
)
def test_a_broken_limit_names_the_rule_and_the_knob_that_moves_it(scores, rule, knob):
    clip = decided(**scores)
    assert clip.dropped_by == rule
    assert f"curate.decide.{knob}" in clip.why_dropped
    assert knob in {f.name for f in fields(Decide)}


def test_the_sentence_says_value_and_limit():
    assert decided(static_share=0.97).why_dropped.startswith("static_share is 0.97, above the limit 0.9")


def test_turning_the_named_knob_keeps_the_clip():
    assert decided(Decide(static_share_max=0.98), static_share=0.97).status is Status.KEPT
    assert decided(Decide(keep_shaking=True), camera="shaking").status is Status.KEPT


def test_black_and_white_footage_is_monochrome_unless_allowed():
    grey = np.repeat(camera(5)[..., :1], 3, axis=-1)
    clip = clip_of(grey, **GOOD)
    assert Decide().process(clip)[0].dropped_by == "monochrome"
    assert Decide(colour_min=0).process(clip)[0].status is Status.KEPT


def test_a_score_that_nobody_measured_breaks_no_limit():
    nothing = dict.fromkeys(("motion", "static_share", "sharpness", "brightness", "contrast"))
    assert decided(**nothing, camera="").status is Status.KEPT
    assert Decide().process(replace(clip_of(camera(5), **GOOD), frames=None))[0].status is Status.KEPT


def test_a_clip_that_was_turned_down_keeps_its_rule():
    clip = clip_of(camera(5), **(GOOD | {"motion": 0.0}), dropped_by="short", why_dropped="2 s")
    assert Decide().process(clip) == [clip]


@pytest.mark.slow
@pytest.mark.skipif("SUMMER_FOOTAGE" not in os.environ, reason="SUMMER_FOOTAGE names no folder with a truth file")
def test_the_default_limits_agree_with_the_truth_file():
    folder = Path(os.environ["SUMMER_FOOTAGE"])
    truth = json.loads((folder / "stitched.truth.json").read_text())
    for segment in truth["segments"]:
        start_s, end_s, tags = segment["start_s"] + 0.8, segment["end_s"] - 0.8, set(segment["tags"])
        frames, _ = read_span(folder / truth["video"], start_s, end_s, fps=24, height=100)
        clip = clip_of(frames.rgb_THWC, source_height=360, source_width=640)
        for stage in (FindBars(), Motion(), Static(), Sharpness(), CameraWords(), Decide()):
            clip = stage.process(clip)[0]
        for rule in tags & {"static", "monochrome", "shake"}:
            assert clip.dropped_by == rule, segment
        if "keep" in tags:
            assert clip.dropped_by is None, (segment, clip.why_dropped)
        if "bars" in tags:
            assert clip.crop is not None and clip.crop[0] > 30 and clip.crop[1] < 330, segment


@pytest.mark.slow
def test_the_rules_drop_of_the_generated_footage_what_its_truth_says_and_nothing_else(tmp_path):
    truth = write_footage(tmp_path)
    clips, wanted = [], {}
    for video in truth["videos"]:
        for shot in video["shots"]:
            if shot["drop"] == "short":
                continue
            margin_s = max(0.1, shot["transition_s"] / 2 + 0.05)
            span = (shot["start_s"] + margin_s * bool(shot["shot"]), shot["end_s"] - 0.6)
            frames, _ = read_span(tmp_path / video["video"], *span, fps=24, height=100)
            fields = {"clip_id": f"{video['video']}-{shot['shot']}", "video": video["video"]}
            fields |= {"source_height": video["height"], "source_width": video["width"]}
            clip = clip_of(frames.rgb_THWC, **fields)
            for stage in (
                FindBars(),
                Motion(),
                Static(),
                Sharpness(),
                CameraWords(),
                Decide(),
                RuleCaptions(),
                Embed(),
            ):
                clip = stage.process(clip)[0]
            clips.append(replace(clip, frames=None))
            wanted[clip.clip_id] = (shot["drop"], shot["camera"])
    for clip in KeepOne().process_all(clips):
        drop, camera_word = wanted[clip.clip_id]
        assert clip.dropped_by == drop, (clip.clip_id, clip.why_dropped)
        if drop is None:
            assert clip.camera == camera_word, clip.clip_id
