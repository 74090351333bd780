"""Where shots begin, and which spans become clips."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator.clips.cut import CutConfig, parts_of
from curator.clips.shots import ShotsConfig, shots_between
from curator.frames import look
from curator.records import Clip, Video
from tests.curator.made_videos import lively, write_video

FOOTAGE = Path(os.environ.get("SUMMER_FOOTAGE", Path(__file__).parents[3] / "shared" / "data" / "footage"))


def shots_of(path: Path, shortest_s: float = 0.5) -> Video:
    facts = look(path)
    video = Video(
        path.name, "v", str(path.parent), fps=facts.fps, duration_s=facts.duration_s, frame_count=facts.frame_count
    )
    return ShotsConfig().build(shortest_s).process(video)[0]


def begins(video: Video) -> list[float]:
    return [start for start, _ in video.shots]


def scene(number: int, frame: int) -> np.ndarray:
    return lively(frame, (96, 160), seed=number)


def test_a_cut_is_found_on_its_frame(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", seconds=6, picture=lambda i: scene(i // 48, i), size=(96, 160))
    assert begins(shots_of(path)) == pytest.approx([0, 2, 4], abs=1e-3)


def mixed(share: float, i: int) -> np.ndarray:
    """Scene 1 with weight `share` over scene 0, both in slow movement."""
    return (scene(0, i // 3) * (1.0 - share) + scene(1, i // 3) * share).astype(np.uint8)


def test_neither_side_of_a_dissolve_shows_the_other(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "a.mp4", seconds=6, picture=lambda i: mixed(float(np.clip((i - 60) / 20, 0, 1)), i), size=(96, 160)
    )
    (_, end_s), (start_s, _) = shots_of(path).shots  # the dissolve goes from frame 60 to frame 80
    assert 2.2 <= end_s <= 60 / 24 + 0.1 and 80 / 24 - 0.1 <= start_s <= 3.7


def test_a_fade_through_black_belongs_to_neither_shot(tmp_path: Path) -> None:
    def fading(i: int) -> np.ndarray:
        light = np.clip(abs(i - 72) / 12 - 0.25, 0, 1)  # black from frame 69 to 75, full light before 57 and after 87
        return (scene(i // 72, i) * light).astype(np.uint8)

    path = write_video(tmp_path / "a.mp4", seconds=6, picture=fading, size=(96, 160))
    (_, end_s), (start_s, _) = shots_of(path).shots
    assert 2.2 <= end_s <= 64 / 24 and 80 / 24 <= start_s <= 3.8


def test_a_dark_shot_is_a_shot_and_no_fade(tmp_path: Path) -> None:
    def night(i: int) -> np.ndarray:
        return (scene(0, i) * (0.05 if 48 <= i < 144 else 1.0)).astype(np.uint8)

    path = write_video(tmp_path / "a.mp4", seconds=8, picture=night, size=(96, 160))
    assert begins(shots_of(path)) == pytest.approx([0, 2, 6], abs=0.05)


def test_a_video_without_a_cut_is_one_shot_from_first_to_last_frame(tmp_path: Path) -> None:
    video = shots_of(write_video(tmp_path / "a.mp4", seconds=3, picture=lambda i: scene(0, i), size=(96, 160)))
    assert len(video.shots) == 1 and video.shots[0] == pytest.approx((0, 3), abs=1e-3)


@pytest.mark.skipif(not (FOOTAGE / "stitched.mp4").exists(), reason="the shared footage is not at hand")
def test_every_boundary_of_the_stitched_footage_is_found_within_its_tolerance_and_nothing_else() -> None:
    truth = json.loads((FOOTAGE / "stitched.truth.json").read_text())
    shots = shots_of(FOOTAGE / "stitched.mp4").shots
    found = [(before[1], after[0]) for before, after in pairwise(shots)]
    wanted = [(b["time_s"], b["tolerance_frames"] / truth["fps"]) for b in truth["boundaries"]]

    def fits(gap: tuple[float, float], time_s: float, tolerance_s: float) -> bool:
        return gap[0] - tolerance_s <= time_s <= gap[1] + tolerance_s

    assert [w for w in wanted if not any(fits(gap, *w) for gap in found)] == []
    assert [gap for gap in found if not any(fits(gap, *w) for w in wanted)] == []


def test_what_lies_inside_a_transition_belongs_to_no_shot() -> None:
    times_s = [i / 10 for i in range(100)]
    transitions = [(30, 30), (32, 34), (33, 33), (60, 60)]
    assert shots_between(transitions, times_s, 10.0, join_s=0.5) == ((0.0, 3.0), (3.4, 6.0), (6.0, 10.0))


@settings(max_examples=200, deadline=None)
@given(st.floats(0.1, 500), st.floats(0.5, 10), st.floats(1, 10))
def test_parts_lie_inside_the_shot_apart_from_each_other_and_within_the_limits(
    length_s: float, shortest_s: float, factor: float
) -> None:
    cfg = CutConfig(shortest_s=shortest_s, longest_s=shortest_s * factor)
    parts = parts_of((2.0, 2.0 + length_s), cfg)
    assert parts[0][0] == 2.0 and parts[-1][1] <= 2.0 + length_s + 1e-5
    assert all(before[1] <= after[0] + 1e-5 for before, after in pairwise(parts))
    assert all(end - start <= cfg.longest_s + 1e-5 for start, end in parts)
    if length_s >= shortest_s:
        assert all(end - start >= min(shortest_s, length_s / len(parts)) - 1e-5 for start, end in parts)
        assert all(end - start >= shortest_s - 1e-4 for start, end in parts)
    if factor >= 2:  # then nothing has to be left over
        assert sum(end - start for start, end in parts) == pytest.approx(length_s, abs=1e-4)


def test_a_short_shot_stays_in_the_record_with_its_reason() -> None:
    video = Video("a.mp4", "a", fps=24, height=48, width=80, shots=((0.0, 2.0), (2.0, 8.0)))
    same, short, clip = CutConfig().build().process(video)
    assert same is video
    assert isinstance(short, Clip) and isinstance(clip, Clip)
    assert short.dropped_by == "short" and "lasts 2.00 s" in short.why_dropped and clip.dropped_by is None


def test_limits_that_contradict_each_other_name_the_knob() -> None:
    with pytest.raises(ValueError, match=r"set curate\.cut\.longest_s="):
        CutConfig(shortest_s=5, longest_s=3)
