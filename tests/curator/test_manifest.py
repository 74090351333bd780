"""Numbers that add up."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator.manifest import Manifest, read_manifest, tally
from curator.raw_videos.find import Found
from curator.records import Clip, Video, as_text, failed, from_text

REASONS = st.sampled_from(["", "not a video", "too short", "codec"])
RULES = st.sampled_from([None, "short", "blur", "duplicate"])


@given(st.lists(REASONS), st.lists(RULES), st.integers(0, 5))
def test_a_tally_adds_up_whatever_became_of_the_records(
    reasons: list[str], rules: list[str | None], copies: int
) -> None:
    videos = [Video(f"{i}.mp4", f"v{i}") for i in range(len(reasons))]
    records = [failed(v, "probe", r, "is bad") if r else v for v, r in zip(videos, reasons)]
    clips = [Clip(f"c{i}", "0.mp4", "v0", 0.0, 3.0, dropped_by=rule) for i, rule in enumerate(rules)]
    found = Found(tuple(videos), duplicates=tuple((f"copy{i}.mp4", "0.mp4") for i in range(copies)))
    manifest = tally(found, [*records, *clips])
    manifest.check()
    assert manifest.videos_found == len(reasons) + copies
    assert manifest.clips_kept == rules.count(None) and manifest.clips_dropped.get("blur", 0) == rules.count("blur")


@pytest.mark.parametrize("field", ["videos_found", "videos_read", "clips_total", "clips_kept", "videos_duplicate"])
def test_a_lost_record_is_not_written_down(tmp_path: Path, field: str) -> None:
    with pytest.raises(ValueError, match="does not add up"):
        Manifest(**{field: 1}).write(tmp_path / "manifest.json")
    assert not list(tmp_path.iterdir())


def test_a_manifest_reads_back_as_it_was_written(tmp_path: Path) -> None:
    manifest = Manifest(videos_found=2, videos_read=1, videos_duplicate=1, duplicates=[{"file": "a", "same_as": "b"}])
    manifest.write(tmp_path / "manifest.json")
    assert read_manifest(tmp_path / "manifest.json") == manifest


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 99}'])
def test_what_is_no_manifest_is_refused_with_its_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=r"manifest\.json' is not a manifest"):
        read_manifest(tmp_path / "manifest.json")


def test_a_rule_that_drops_nearly_everything_is_pointed_out() -> None:
    clips = [Clip(f"c{i}", "a.mp4", "a", 0, 3, dropped_by="motion" if i else None) for i in range(20)]
    assert "rule motion dropped 19 of 20 clips" in tally(Found(), clips).warnings[0]


@given(st.floats(allow_nan=False, allow_infinity=False), st.text(), st.lists(st.floats(-1, 1)))
def test_a_record_comes_back_from_text_exactly_as_it_was(number: float, text: str, vector: list[float]) -> None:
    clip = Clip("c", text, "v", number, 3.0, motion=number, crop=(1, 2, 3, 4), embedding=tuple(vector))
    video = Video(text, "v", shots=((0.0, number), (1.0, 2.0)), warnings=(text,))
    assert from_text(as_text(clip)) == clip and from_text(as_text(video)) == video
