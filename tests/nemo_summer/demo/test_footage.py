"""The synthetic footage is what its truth file says, and the same every time."""

import itertools
import json
from pathlib import Path

import av
import numpy as np
import pytest

from nemo_summer.demo.footage import KINDS, TICKS_PER_S, film, pictures, plan_videos, truth_of, write_footage
from nemo_summer.demo.scenes import render


def decoded(path: Path) -> tuple[list[float], np.ndarray]:
    """Times in seconds and pictures of a file."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return [frame.time for frame in frames], np.stack([frame.to_ndarray(format="rgb24") for frame in frames])


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("footage")
    write_footage(folder, seed=3, seconds=6, videos=3, broken=True)
    return folder


def truth_in(folder: Path) -> dict:
    return json.loads((folder / "truth.json").read_text())


def test_the_same_seed_gives_the_same_decoded_pixels_and_another_seed_does_not(small, tmp_path):
    again, other = tmp_path / "again", tmp_path / "other"
    write_footage(again, seed=3, seconds=6, videos=3)
    write_footage(other, seed=4, seconds=6, videos=3)
    for entry in truth_in(small)["videos"]:
        _, first = decoded(small / entry["video"])
        _, second = decoded(again / entry["video"])
        assert np.array_equal(first, second)
    _, first = decoded(small / "00_meadow.mp4")
    _, second = decoded(other / "00_meadow.mp4")
    shared = min(len(first), len(second))
    assert not np.array_equal(first[:shared], second[:shared])


@pytest.mark.parametrize("seed", [0, 1])
def test_the_shots_of_the_truth_tile_every_video(seed):
    plans = plan_videos(seed, 34, 14)
    for plan in plans:
        truth = truth_of(plan)
        shots = truth["shots"]
        assert shots[0]["start_s"] == 0 and shots[0]["transition"] == "start"
        assert all(a["end_s"] == b["start_s"] for a, b in itertools.pairwise(shots))
        assert all(shot["end_s"] > shot["start_s"] for shot in shots)
        assert shots[-1]["end_s"] == pytest.approx(truth["seconds"], abs=1e-4)
        assert truth["seconds"] >= 34


def test_a_file_lasts_as_long_as_its_truth_says_and_has_its_size(small):
    for entry in truth_in(small)["videos"]:
        times, rgb = decoded(small / entry["video"])
        assert rgb.shape[1:3] == (entry["height"], entry["width"])
        assert times[-1] + 1 / entry["fps"] == pytest.approx(entry["seconds"], abs=2 / entry["fps"])


def test_a_hard_cut_is_where_the_picture_changes_most(small):
    entry = truth_in(small)["videos"][0]
    times, rgb = decoded(small / entry["video"])
    change = np.abs(np.diff(rgb.astype(np.int16), axis=0)).mean(axis=(1, 2, 3))
    cuts = [shot["start_s"] for shot in entry["shots"][1:]]
    assert cuts and {round(times[i + 1], 3) for i in np.argsort(change)[-len(cuts) :]} == {round(c, 3) for c in cuts}


def test_a_fade_is_darkest_at_its_boundary(small):
    entry = truth_in(small)["videos"][2]
    assert entry["shots"][1]["transition"] == "fade"
    times, rgb = decoded(small / entry["video"])
    darkest = times[int(rgb.mean(axis=(1, 2, 3)).argmin())]
    assert min(abs(darkest - shot["start_s"]) for shot in entry["shots"][1:]) <= 1.5 / entry["fps"]


def test_a_dissolve_shows_both_shots_at_its_middle():
    plan = plan_videos(0, 6, 2)[1]
    assert plan.shots[1].transition == "dissolve"
    first = plan.shots[0].frames
    middle = next(rgb for number, rgb in pictures(plan) if number == first).astype(float)
    before = render(plan.shots[0].scene, first / plan.fps, plan.height, plan.width).astype(float)
    after = render(plan.shots[1].scene, 0.0, plan.height, plan.width).astype(float)
    assert np.abs(middle - (before + after) / 2).mean() < np.abs(before - after).mean() * 0.06


def test_the_collection_has_at_least_a_hundred_clips_to_keep_and_one_of_each_fault():
    shots = [shot for plan in plan_videos(0, 34, 14) for shot in truth_of(plan)["shots"]]
    keep = [shot for shot in shots if shot["drop"] is None]
    assert len(keep) >= 100
    assert all(3 <= shot["end_s"] - shot["start_s"] - shot["transition_s"] / 2 <= 6 for shot in keep)
    assert {shot["drop"] for shot in shots} == {None, "static", "dark", "short", "blur", "shake", "duplicate"}
    assert {shot["transition"] for shot in shots} == {"start", "cut", "fade", "dissolve"}


def test_a_frozen_slide_has_one_picture_and_a_copy_shows_its_original():
    plans = {plan.name: plan for plan in plan_videos(0, 34, 14)}
    slide = next(s for s in plans["03_lecture.mp4"].shots if s.drop == "static")
    assert np.array_equal(render(slide.scene, 0.0, 90, 160), render(slide.scene, 2.0, 90, 160))
    copy = next(s for s in plans["11_brighter.mp4"].shots if s.copy_of)
    name, number = copy.copy_of
    original = render(plans[name].shots[number].scene, 1.0, 90, 160).astype(float)
    again = render(copy.scene, 1.0, 90, 160).astype(float)
    assert np.corrcoef(original.ravel(), again.ravel())[0, 1] > 0.99
    assert again.mean() > original.mean() + 3


def test_the_variable_rate_video_has_frames_of_unequal_length_that_start_on_every_cut(tmp_path):
    number = next(i for i, kind in enumerate(KINDS) if kind.variable_rate)
    plan = plan_videos(0, 8, number + 1)[number]
    film(plan, tmp_path / "phone.mp4")
    times, _ = decoded(tmp_path / "phone.mp4")
    steps = np.round(np.diff(times) * TICKS_PER_S).astype(int)
    assert set(steps) == {TICKS_PER_S // plan.fps, 2 * TICKS_PER_S // plan.fps}
    for shot in truth_of(plan)["shots"]:
        assert min(abs(t - shot["start_s"]) for t in times) < 1e-3


def test_black_bars_are_black_and_as_wide_as_the_truth_says(tmp_path):
    plan = next(p for p in plan_videos(0, 4, 5) if any(p.bars))
    film(plan, tmp_path / "bars.mp4")
    _, rgb = decoded(tmp_path / "bars.mp4")
    bars = truth_of(plan)["bars"]
    assert rgb[:, : bars["top"] - 1].max() < 24
    assert rgb[:, bars["top"] + 1 : -bars["bottom"] - 1].mean(axis=(0, 2, 3)).min() > 30


def test_the_broken_files_have_no_picture_to_decode(small):
    cases = {entry["file"]: entry["kind"] for entry in truth_in(small)["broken"]}
    assert set(cases.values()) == {"text", "truncated", "empty", "audio only"}
    for name, kind in cases.items():
        if kind == "audio only":
            with av.open(str(small / name)) as container:
                assert not container.streams.video and container.streams.audio
        else:
            with pytest.raises(av.FFmpegError):
                av.open(str(small / name))


def test_too_little_footage_is_refused_with_the_setting_to_change():
    with pytest.raises(ValueError, match="videos>=1"):
        plan_videos(0, 34, 0)
