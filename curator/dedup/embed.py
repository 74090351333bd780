"""The embedded descriptor: what a clip looks like in a hundred numbers, without any weights.

Built so that coding, scaling, brightness and a slightly other crop hardly turn it (T parts of the clip, H rows,
W columns).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import cv2
import numpy as np

from curator.pictures import inside_bars, spread
from curator.records import Clip
from curator.stage import Stage

SIDE = 32
"""Pictures are squeezed to a square: the same scene in another aspect ratio stays alike."""
PARTS = 3
"""Parts of the clip that are described one by one, so that the order of what happens counts."""
LAYOUT = 5
"""Luma layout: DCT coefficients below 5 x 5, without the mean (brightness)."""
CHANGE = 4
"""Layout of what changes from part to part: coefficients below 4 x 4."""
WEIGHTS = {"layout": 1.0, "colour": 0.8, "change": 0.5, "edges": 0.6}


def parts_of(rgb_THWC: np.ndarray, frames_per_part: int = 3) -> np.ndarray:
    """Mean picture of each part of the clip in CIE Lab, `lab_THWC` [3, 32, 32, 3], L 0..100."""
    picked = spread(len(rgb_THWC), PARTS * frames_per_part)
    small = [cv2.resize(rgb_THWC[i], (SIDE, SIDE), interpolation=cv2.INTER_AREA) for i in picked]
    lab_NHWC = np.stack([cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) for picture in small])
    firsts = [i * len(small) // PARTS for i in range(PARTS + 1)]
    return np.stack([lab_NHWC[a : max(a + 1, b)].mean(axis=0) for a, b in pairwise(firsts)])


def _layout(picture_HW: np.ndarray, below: int) -> np.ndarray:
    """Low DCT coefficients without the mean."""
    return cv2.dct(picture_HW.astype(np.float32))[:below, :below].ravel()[1:]


def _edges(luma_HW: np.ndarray) -> np.ndarray:
    """Share of the gradient in 8 orientations in 2 x 2 quarters, without what all orientations share."""
    slope_x, slope_y = cv2.Sobel(luma_HW, cv2.CV_32F, 1, 0), cv2.Sobel(luma_HW, cv2.CV_32F, 0, 1)
    length, angle = np.hypot(slope_x, slope_y), np.arctan2(slope_y, slope_x) % np.pi
    bins = (angle / np.pi * 8).astype(int) % 8
    half = SIDE // 2
    quarters = [(slice(i, i + half), slice(j, j + half)) for i in (0, half) for j in (0, half)]
    counts = np.concatenate([np.bincount(bins[q].ravel(), length[q].ravel(), minlength=8) for q in quarters])
    return counts / (counts.sum() + 1e-6) - 1 / 32


def _unit(numbers: np.ndarray, floor: float) -> np.ndarray:
    """Unit length where there is something, shorter below `floor`: noise of an even picture is not blown up."""
    return numbers / np.hypot(np.linalg.norm(numbers), floor)


def descriptor(rgb_THWC: np.ndarray) -> np.ndarray:
    """Unit vector of 118 numbers: layout of light, of colour, of what changes, and edge directions."""
    lab_THWC = parts_of(rgb_THWC)
    mean_HWC = lab_THWC.mean(axis=0)
    colour_hwC = cv2.resize(mean_HWC[..., 1:], (4, 4), interpolation=cv2.INTER_AREA)
    changes = [_layout(later - earlier, CHANGE) for earlier, later in pairwise(lab_THWC[..., 0])]
    blocks = {
        "layout": _unit(_layout(mean_HWC[..., 0], LAYOUT), floor=20.0),
        "colour": _unit(colour_hwC.ravel(), floor=20.0),
        "change": _unit(np.concatenate(changes), floor=60.0),
        "edges": _unit(_edges(mean_HWC[..., 0]), floor=0.02),
    }
    whole = np.concatenate([WEIGHTS[name] * block for name, block in blocks.items()]).astype(np.float64)
    norm = np.linalg.norm(whole)
    return whole / norm if norm > 1e-9 else np.eye(1, len(whole))[0]


@dataclass(kw_only=True)
class Embed(Stage):
    """Describes what a clip looks like as a unit vector; look-alikes have a cosine near 1.

    Reads: frames, crop, dropped_by
    Writes: embedding
    """

    name: str = "embed"

    def process(self, record: Clip) -> list[Clip]:
        if record.dropped_by:
            return [record]
        numbers = descriptor(inside_bars(record))
        return [replace(record, embedding=tuple(round(float(number), 6) for number in numbers))]
