"""Each stage's docstring names the fields that it reads and writes; this runs the stages and looks."""

import inspect
import re
from dataclasses import fields, replace

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
from curator.frames import write_clip
from curator.latents.encode import EncodeLatents
from curator.latents.fit import FitCodec
from curator.records import Clip
from curator.shards.split import Split
from curator.shards.thumbs import Thumbs
from curator.shards.write import WriteShards
from curator.stage import GatherStage
from tests.curator.made_clips import camera, clip_of, still

NAMES = {f.name for f in fields(Clip)}


def named(stage, word):
    """Field names after `Reads:` or `Writes:` in the docstring."""
    line = re.search(rf"^    {word}: (.*)$", type(stage).__doc__, re.MULTILINE)
    assert line, f"{type(stage).__name__} has no line {word}:"
    if line[1] == "nothing":
        return set()
    if line[1] == "all but frames":
        return NAMES - {"frames"}
    listed = {name.strip() for name in line[1].split(",")}
    assert listed <= NAMES, f"{type(stage).__name__}: {listed - NAMES} are no fields of Clip"
    return listed


def run(stage, clips):
    stage.setup()
    if isinstance(stage, GatherStage):
        return stage.process_all(clips)
    return [after for clip in clips for after in stage.process(clip)]


@pytest.fixture(scope="module")
def way(tmp_path_factory):
    """(stage, clips before, clips after) of the whole way over five clips: two alike, one with bars, one frozen."""
    out = tmp_path_factory.mktemp("way")
    pictures = [camera(33, right=1.0, seed=1, size=(64, 112)) for _ in range(2)]
    pictures += [camera(33, right=-1.0, seed=s, size=(64, 112)) for s in (2, 3, 4)]
    pictures[2][:, :8] = pictures[2][:, -8:] = 0
    pictures.append(still(33))
    clips = []
    for i, rgb_THWC in enumerate(pictures):
        clip = clip_of(
            rgb_THWC, clip_id=f"clip-{i}", file=f"work/clips/clip-{i}.mp4", start_s=10.0 * i, end_s=10.0 * i + 1
        )
        (out / clip.file).parent.mkdir(parents=True, exist_ok=True)
        if i < 5:
            write_clip(out / clip.file, clip.frames, crf=23)
        clips.append(clip)
    steps = []
    for stage in (
        *(FindBars(), Motion(), Static(), Sharpness(), CameraWords(), Decide(sharpness_min=0), RuleCaptions(), Embed()),
        *(Thumbs(out=str(out)), KeepOne(), Split(), FitCodec(out=str(out), clip_frames=33)),
        *(EncodeLatents(out=str(out), clip_frames=33), WriteShards(out=str(out))),
    ):
        after = run(stage, clips)
        steps.append((stage, clips, after))
        clips = after
    return steps


def test_each_stage_writes_the_fields_of_its_docstring_and_no_others(way):
    for stage, before, after in way:
        pairs = list(zip(before, after, strict=True))
        changed = {
            n for n in NAMES for b, a in pairs if getattr(b, n) is not getattr(a, n) and getattr(b, n) != getattr(a, n)
        }
        assert changed == named(stage, "Writes"), type(stage).__name__


def test_each_stage_reads_only_the_fields_of_its_docstring(way):
    """Every other field may be anything: the result stays."""
    own = {"clip_id", "video", "video_id", "start_s", "end_s", "frame_count"}
    for stage, before, after in way:
        hidden = NAMES - named(stage, "Reads") - named(stage, "Writes") - own
        blank = {f.name: f.default for f in fields(Clip) if f.name in hidden}
        again = run(stage, [replace(clip, **blank) for clip in before]) if named(stage, "Writes") else []
        for name in named(stage, "Writes"):
            assert [getattr(clip, name) for clip in again] == [getattr(clip, name) for clip in after], (
                stage.name,
                name,
            )


def test_no_stage_changes_the_frames_it_was_given(way):
    for stage, before, _ in way:
        if isinstance(stage, GatherStage):
            continue
        for clip in before:
            copy = clip.frames.rgb_THWC.copy()
            stage.process(clip)
            assert np.array_equal(clip.frames.rgb_THWC, copy), stage.name


def test_stages_leave_dropped_clips_alone_except_for_their_picture(way):
    for stage, before, _ in way:
        dropped = [replace(clip, dropped_by="short") for clip in before]
        if not isinstance(stage, Thumbs):
            assert run(stage, dropped) == dropped, stage.name


def test_the_settings_of_every_stage_are_documented(way):
    for stage, _, _ in way:
        source = inspect.getsource(type(stage))
        settings = {f.name for f in fields(stage)} - {"name", "resources", "batch_size"}
        for name in settings:
            assert re.search(rf'^    {name}: [^\n]*\n    """', source, re.MULTILINE), (stage.name, name)
