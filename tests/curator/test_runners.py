"""In this process and on Ray: the same stages, the same results; what fails costs one record."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from curator.records import Clip, Video
from curator.runners import Record, RunnerConfig, RunnerKind, groups_of, open_runner, run_inline, run_on_ray
from curator.stage import Stage
from curator.whole_files import CannotWrite
from tests.curator.made_stages import Chop, Fill, Measure, Score, Trouble, TroubleWithVideos, videos

WAY: list[Stage] = [Measure(), Chop(), Fill(), Score()]
BAD = "v001-00003000-00006000"


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    """Ray once for this file, as `summer curate` starts it."""
    with open_runner(RunnerConfig(kind=RunnerKind.ray, workers=2)):
        yield


def results(outcomes: Iterator, sources: Sequence[Record]) -> list[tuple[Record, ...]]:
    """Outcomes in the order of their sources: each source once."""
    by_source = {outcome.source: outcome.records for outcome in outcomes}
    assert len(by_source) == len(sources)
    return [by_source[source] for source in sources]


def inline(way: Sequence[Stage], sources: Sequence[Record]) -> list[tuple[Record, ...]]:
    return results(run_inline(way, sources), sources)


def on_ray(way: Sequence[Stage], sources: Sequence[Record]) -> list[tuple[Record, ...]]:
    return results(run_on_ray(way, sources), sources)


def clips(records: Sequence[tuple[Record, ...]]) -> dict[str, Clip]:
    return {r.clip_id: r for group in records for r in group if isinstance(r, Clip)}


def test_stages_that_share_frames_share_a_worker() -> None:
    assert [[s.name for s in group] for group in groups_of(WAY)] == [["measure", "chop"], ["fill", "score"]]


def test_every_video_comes_out_with_its_clips_in_order_and_without_frames() -> None:
    outcomes = list(run_inline(WAY, videos(6)))
    assert [o.source.path for o in outcomes] == [v.path for v in videos(6)]
    for i, outcome in enumerate(outcomes):
        video, *cut = outcome.records
        assert isinstance(video, Video) and video.duration_s == i / 7
        assert [clip.start_s for clip in cut] == [3.0 * k for k in range(i % 4 + 1)]
        assert all(clip.frames is None and clip.motion == clip.start_s / 3 for clip in cut)
        assert set(outcome.seconds) == {"measure", "chop", "fill", "score"}


@pytest.mark.parametrize("trouble", [Trouble(raises=(BAD,)), Trouble(swallows=(BAD,))], ids=["raises", "swallows"])
def test_a_clip_that_fails_is_named_with_stage_and_cause_and_the_rest_goes_on(trouble: Trouble) -> None:
    good = clips(inline(WAY, videos(4)))
    found = clips(inline([*WAY, trouble], videos(4)))
    bad = found.pop(BAD)
    assert found == {key: clip for key, clip in good.items() if key != BAD}
    assert bad.dropped_by == "failed"
    assert bad.why_dropped.startswith("in stage trouble: ") and "\n" not in bad.why_dropped


def test_a_video_that_fails_is_named_with_stage_and_cause_and_gives_no_clips() -> None:
    records = inline([TroubleWithVideos(raises=("001.mp4",)), Measure()], videos(3))
    bad = records[1][0]
    assert isinstance(bad, Video) and bad.reason == "failed" and bad.failed_in == "video trouble"
    assert bad.error and bad.error.startswith("'001.mp4' failed in stage video trouble (RuntimeError: this one")
    assert [r[0].error for r in (records[0], records[2])] == [None, None]


def test_a_full_disk_stops_the_run_with_one_line() -> None:
    with pytest.raises(CannotWrite, match=r"cannot write '/some/where\.mp4': No space left on device"):
        inline([*WAY, Trouble(fills_the_disk=(BAD,))], videos(4))


@pytest.mark.ranks
def test_on_ray_what_kills_its_worker_is_named_and_all_else_is_as_inline(ray: None) -> None:
    failing = Trouble(raises=("v003-00000000-00003000",))
    good = inline([TroubleWithVideos(), *WAY, failing], videos(6))
    deadly: list[Stage] = [TroubleWithVideos(kills=("002.mp4",)), *WAY, replace(failing, kills=(BAD,))]
    found = on_ray(deadly, videos(6))
    assert [r for i, r in enumerate(found) if i not in (1, 2)] == [r for i, r in enumerate(good) if i not in (1, 2)]
    (video,) = found[2]
    assert isinstance(video, Video) and video.reason == "lost" and "ended its worker" in (video.error or "")
    (same, first, clip), (_, _, before) = found[1], good[1]
    assert (same, first) == good[1][:2]
    assert isinstance(clip, Clip) and clip.dropped_by == "lost" and "fill, score, trouble" in clip.why_dropped
    assert replace(clip, dropped_by=None, why_dropped="") == replace(before, motion=None)


@pytest.mark.ranks
def test_on_ray_a_full_disk_stops_the_run_with_the_same_line(ray: None) -> None:
    with pytest.raises(CannotWrite, match=r"cannot write '/some/where\.mp4': No space left on device"):
        on_ray([*WAY, Trouble(fills_the_disk=(BAD,))], videos(4))


@pytest.mark.ranks
def test_rays_token_is_readable_by_its_owner_alone_and_not_on_any_command_line(ray: None) -> None:
    path = os.environ["RAY_AUTH_TOKEN_PATH"]
    token = open(path).read()  # noqa: SIM115
    assert os.environ["RAY_AUTH_MODE"] == "token" and os.stat(path).st_mode & 0o077 == 0
    assert token not in subprocess.check_output(["ps", "-eo", "args"], text=True)
