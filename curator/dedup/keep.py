"""Of clips that look alike, one stays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np

from curator.records import Clip
from curator.stage import GatherStage


class Bucket(Enum):
    """Names in small letters: a recipe spells them so."""

    none = "none"
    words = "words"


def quality(clip: Clip) -> int:
    """Sharpness for its contrast, times pixels of the source, times seconds, in whole steps of twofold: the copy that
    shows most for longest.

    Without the division a brightened copy, which has steeper edges, would win over its original; and less than twofold
    may be the blocks that coding leaves.
    """
    sharpness = 1.0 if clip.sharpness is None else clip.sharpness
    contrast = 1.0 if clip.contrast is None else max(clip.contrast, 0.02)
    pixels = max(1, clip.source_height * clip.source_width)
    return round(math.log2(max(1e-9, sharpness / contrast**2 * pixels * (clip.end_s - clip.start_s))))


class Shelf:
    """Vectors that stay, one under the other, with room to grow."""

    def __init__(self, width: int) -> None:
        self._vectors_NE = np.zeros((8, width), np.float32)
        self._rows: list[int] = []

    def put(self, row: int, vector_E: np.ndarray) -> None:
        if len(self._rows) == len(self._vectors_NE):
            self._vectors_NE = np.concatenate([self._vectors_NE, np.zeros_like(self._vectors_NE)])
        self._vectors_NE[len(self._rows)] = vector_E
        self._rows.append(row)

    def nearest(self, vector_E: np.ndarray) -> tuple[float, int]:
        """Cosine and row number of the most similar vector; (-1, -1) where there is none."""
        if not self._rows:
            return -1.0, -1
        cosine_N = self._vectors_NE[: len(self._rows)] @ vector_E
        best = int(cosine_N.argmax())
        return float(cosine_N[best]), self._rows[best]


def look_alikes(
    vectors_NE: np.ndarray, buckets: Sequence[Sequence[str]], threshold: float
) -> dict[int, tuple[int, float]]:
    """For each row that looks like an earlier row that stays: that row's number and the cosine.

    Rows come best first, each with the buckets it lies in; only rows that share a bucket are compared, and only with
    rows that stay, so that a chain of small steps does not fold two different scenes into one.
    """
    gone: dict[int, tuple[int, float]] = {}
    shelves: dict[str, Shelf] = {}
    for row, (vector_E, names) in enumerate(zip(vectors_NE, buckets)):
        mine = [shelves.setdefault(name, Shelf(vectors_NE.shape[1])) for name in names]
        cosine, best = max(shelf.nearest(vector_E) for shelf in mine)
        if best >= 0 and cosine >= threshold:
            gone[row] = (best, cosine)
        else:
            for shelf in mine:
                shelf.put(row, vector_E)
    return gone


def buckets_of(words: str) -> list[str]:
    """Names of the buckets of three words: one for each two of them, so that copies may differ in one word."""
    parts = words.split()
    return [f"{i} {' '.join(parts[:i] + parts[i + 1 :])}" for i in range(max(1, len(parts)))]


@dataclass(kw_only=True)
class KeepOne(GatherStage):
    """Keeps the best of clips that look alike, of equally good ones the first, and turns the others down.

    Reads: embedding, caption_words, sharpness, contrast, source_height, source_width, start_s, end_s, dropped_by
    Writes: dropped_by, why_dropped, duplicate_of
    """

    name: str = "dedup"
    threshold: float = 0.93
    """Least cosine of two descriptors that counts as the same content; 1.01 keeps everything."""
    bucket: Bucket = Bucket.words
    """words: compare only clips that share at least two of their three words. none: compare all with all."""

    def process_all(self, records: Sequence[Clip]) -> list[Clip]:
        clips = [clip for clip in records if clip.dropped_by is None and clip.embedding]
        best_first = sorted(clips, key=lambda clip: (-quality(clip), clip.video, clip.start_s, clip.clip_id))
        by_words = self.bucket is Bucket.words
        buckets = [buckets_of(clip.caption_words) if by_words else ["all"] for clip in best_first]
        vectors_NE = np.array([clip.embedding for clip in best_first], dtype=np.float32)
        found = look_alikes(vectors_NE, buckets, self.threshold)
        gone = {best_first[row].clip_id: (best_first[kept].clip_id, cosine) for row, (kept, cosine) in found.items()}
        return [self._turned_down(clip, *gone[clip.clip_id]) if clip.clip_id in gone else clip for clip in records]

    def _turned_down(self, clip: Clip, kept: str, cosine: float) -> Clip:
        why = (
            f"looks like {kept} (cosine {cosine:.3f}, at or above {self.threshold:.3g}): "
            "move it with curate.dedup.threshold"
        )
        return replace(clip, dropped_by="duplicate", why_dropped=why, duplicate_of=kept)
