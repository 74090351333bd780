"""Which clips are held out for validation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from curator.records import Clip
from curator.stage import GatherStage

TOUCHING_S = 0.1
"""Two clips of a video with a gap up to this lie side by side."""
SAME_SHOT = 0.8
"""Least cosine of the descriptors of neighbours that come from one shot."""


def share_of(unit: str) -> float:
    """A number from [0, 1) that belongs to the name of a unit: the same in every run and on every machine."""
    return int.from_bytes(hashlib.sha256(unit.encode()).digest()[:8], "big") / 2**64


def shots_of(clips: Sequence[Clip]) -> dict[str, str]:
    """Clip id to the name of its shot: pieces of one long shot touch and look alike, so they go to the same side."""
    shot: dict[str, str] = {}
    before: Clip | None = None
    for clip in sorted(clips, key=lambda clip: (clip.video_id, clip.start_s, clip.clip_id)):
        shot[clip.clip_id] = shot[before.clip_id] if before and _one_shot(before, clip) else clip.clip_id
        before = clip
    return shot


def _one_shot(before: Clip, clip: Clip) -> bool:
    touching = before.video_id == clip.video_id and clip.start_s - before.end_s <= TOUCHING_S
    if not touching or not before.embedding or not clip.embedding:
        return False
    return float(np.dot(before.embedding, clip.embedding)) >= SAME_SHOT


def held_out(units: Sequence[str], val_share: float, exact: bool) -> set[str]:
    """Names of the units for validation: those with the smallest hashes.

    Exact: their number is the share, at least 1 and never all. Else each unit is judged alone, so that more footage
    later moves no video from one side to the other.
    """
    ranked = sorted(set(units), key=lambda unit: (share_of(unit), unit))
    chosen = {unit for unit in ranked if share_of(unit) < val_share}
    if exact or not chosen:
        chosen = set(ranked[: max(1, round(val_share * len(ranked)))])
    return chosen if len(chosen) < len(ranked) else set(ranked[:-1])


@dataclass(kw_only=True)
class Split(GatherStage):
    """Divides the kept clips into train and val, whole videos together; with few videos, whole shots.

    Reads: video_id, start_s, end_s, embedding, dropped_by
    Writes: split
    """

    name: str = "split"
    val_share: float = 0.05
    """Share of the videos (or shots) that is held out; 0 holds out none."""
    videos_min: int = 20
    """With fewer source videos than this the unit is the shot."""
    clips_min: int = 4
    """With fewer kept clips than this all are for training."""

    def process_all(self, records: Sequence[Clip]) -> list[Clip]:
        kept = [clip for clip in records if clip.dropped_by is None]
        by_video = len({clip.video_id for clip in kept}) >= self.videos_min
        shots = {} if by_video else shots_of(kept)
        unit_of = {clip.clip_id: clip.video_id if by_video else shots[clip.clip_id] for clip in kept}
        val: set[str] = set()
        if self.val_share > 0 and len(kept) >= self.clips_min:
            val = held_out(list(unit_of.values()), self.val_share, exact=not by_video)
        return [
            clip if clip.dropped_by else replace(clip, split="val" if unit_of[clip.clip_id] in val else "train")
            for clip in records
        ]
