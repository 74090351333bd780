"""Of clips that look alike, one stays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from curator.records import Clip
from curator.stage import GatherStage

BLOCK = 1024
"""Clips compared with the kept ones in one matrix product."""


class Bucket(StrEnum):
    NONE = "none"
    WORDS = "words"


def quality(clip: Clip) -> float:
    """Sharpness times seconds: the copy that shows most for longest is the one to keep."""
    return (clip.sharpness if clip.sharpness is not None else 1.0) * (clip.end_s - clip.start_s)


def look_alikes(vectors_NE: np.ndarray, threshold: float) -> dict[int, tuple[int, float]]:
    """For each row that looks like an earlier row that stays: that row's number and the cosine.

    Rows come best first. A row is compared only with rows that stay, so that a chain of small steps does not fold two
    different scenes into one. N rows, E numbers each, unit length.
    """
    gone: dict[int, tuple[int, float]] = {}
    stays: list[int] = []
    for start in range(0, len(vectors_NE), BLOCK):
        block_BE = vectors_NE[start : start + BLOCK]
        nearest = _nearest(block_BE, vectors_NE[stays])
        new: list[int] = []
        for row, (place, cosine) in enumerate(nearest):
            index = stays[place] if place >= 0 else -1
            if new:
                inside = vectors_NE[new] @ block_BE[row]
                best = int(inside.argmax())
                if inside[best] > cosine:
                    index, cosine = new[best], float(inside[best])
            if cosine >= threshold:
                gone[start + row] = (index, cosine)
            else:
                new.append(start + row)
        stays.extend(new)
    return gone


def _nearest(block_BE: np.ndarray, kept_NE: np.ndarray) -> Iterator[tuple[int, float]]:
    """Number and cosine of the nearest kept row of each row of the block; (-1, -1) where none is kept yet."""
    if not len(kept_NE):
        yield from [(-1, -1.0)] * len(block_BE)
        return
    cosine_BN = block_BE @ kept_NE.T
    best_B = cosine_BN.argmax(axis=1)
    yield from ((int(best), float(cosine_BN[row, best])) for row, best in enumerate(best_B))


@dataclass(kw_only=True)
class KeepOne(GatherStage):
    """Keeps the best of clips that look alike and turns the others down.

    Reads: embedding, caption_words, sharpness, start_s, end_s, dropped_by
    Writes: dropped_by, why_dropped, duplicate_of
    """

    name: str = "dedup"
    threshold: float = 0.93
    """Least cosine of two descriptors that counts as the same content; 1.01 keeps everything."""
    bucket: Bucket = Bucket.WORDS
    """words: compare only clips with the same three words (fast for millions; a copy that the captioner words
    differently stays). none: compare all with all."""

    def process_all(self, records: Sequence[Clip]) -> list[Clip]:
        gone: dict[str, tuple[str, float]] = {}
        for bucket in self._buckets(records):
            best_first = sorted(bucket, key=lambda clip: (-quality(clip), clip.clip_id))
            vectors_NE = np.array([clip.embedding for clip in best_first], dtype=np.float32)
            for row, (kept, cosine) in look_alikes(vectors_NE, self.threshold).items():
                gone[best_first[row].clip_id] = (best_first[kept].clip_id, cosine)
        return [self._turned_down(clip, *gone[clip.clip_id]) if clip.clip_id in gone else clip for clip in records]

    def _buckets(self, records: Sequence[Clip]) -> list[list[Clip]]:
        """Clips to compare with each other; dropped ones and those without a descriptor are in none."""
        buckets: dict[str, list[Clip]] = {}
        for clip in records:
            if clip.dropped_by is None and clip.embedding:
                words = clip.caption_words if self.bucket is Bucket.WORDS else ""
                buckets.setdefault(words, []).append(clip)
        return list(buckets.values())

    def _turned_down(self, clip: Clip, kept: str, cosine: float) -> Clip:
        why = (
            f"looks like {kept} (cosine {cosine:.3f}, at or above {self.threshold:.3g}): "
            "move it with curate.dedup.threshold"
        )
        return replace(clip, dropped_by="duplicate", why_dropped=why, duplicate_of=kept)
