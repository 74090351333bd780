"""How much of a clip is one frozen picture."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from curator.pictures import grey_at, inside_bars
from curator.records import Clip
from curator.stage import Stage

MEASURED_HEIGHT = 96


def neighbour_change(grey_THW: np.ndarray, block: int = 8) -> np.ndarray:
    """Greatest change of any block's mean grey from each frame to the next: `change_P`, 0..255.

    A block's mean lets coding noise cancel and keeps the movement of something small.
    """
    _, H, W = grey_THW.shape
    size = (W // block, H // block)
    means_Thw = np.stack([cv2.resize(g.astype(np.float32), size, interpolation=cv2.INTER_AREA) for g in grey_THW])
    return np.abs(np.diff(means_Thw, axis=0)).max(axis=(1, 2))


@dataclass(kw_only=True)
class Static(Stage):
    """Measures which share of neighbouring frames are the same picture: 1 for a slide, 0 where each frame differs.

    Reads: frames, crop, dropped_by
    Writes: static_share
    """

    name: str = "static"
    change_max: float = 1.0
    """Two frames are one picture where no block of 8x8 (at 96 rows) changes its mean by more, in grey levels of 255."""

    def process(self, record: Clip) -> list[Clip]:
        if record.dropped_by:
            return [record]
        change_P = neighbour_change(grey_at(inside_bars(record), MEASURED_HEIGHT))
        share = float((change_P <= self.change_max).mean()) if len(change_P) else 1.0
        return [replace(record, static_share=round(share, 4))]
