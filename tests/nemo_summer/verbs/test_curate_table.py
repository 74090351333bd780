"""The table at the end of `summer curate`: what stands under a sum adds up to it."""

from __future__ import annotations

import pytest

from curator.manifest import Manifest
from nemo_summer.verbs.curate import _rows, _why_nothing

MADE = Manifest(
    videos_found=9,
    videos_read=5,
    videos_failed={"not_a_video": 2, "truncated": 1},
    videos_duplicate=1,
    clips_total=20,
    clips_kept=12,
    clips_dropped={"motion": 5, "short": 3},
    failures=[{"file": f"{i}.mp4", "stage": "probe", "reason": "not_a_video", "message": ""} for i in range(2)],
)


def test_parts_add_up_to_their_sum() -> None:
    sums: dict[str, list[int]] = {}
    for what, count, _ in _rows(MADE):
        if what.startswith("  "):
            sums[list(sums)[-1]].append(count)
        else:
            sums[what] = [count]
    for whole, *parts in sums.values():
        assert whole == sum(parts)


def test_failed_files_are_named() -> None:
    notes = {what.strip(): note for what, _, note in _rows(MADE)}
    assert notes["not_a_video"] == "0.mp4, 1.mp4"


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (Manifest(clips_total=4, clips_dropped={"motion": 4}, videos_read=1), "all 4 clips were dropped"),
        (Manifest(videos_read=2), "lower curate.cut.shortest_s"),
        (Manifest(), "no video could be read"),
    ],
)
def test_a_dataset_without_clips_is_explained(made: Manifest, says: str) -> None:
    assert says in _why_nothing(made)
