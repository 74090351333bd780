"""How sharp, bright and contrasted a clip is."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from curator.pictures import grey_at, inside_bars, spread
from curator.records import Clip
from curator.stage import Stage

MEASURED_HEIGHT = 128


def laplacian_variance(grey_THW: np.ndarray) -> float:
    """Median over the pictures of the variance of the Laplacian, in squared grey levels (Pech-Pacheco et al. 2000)."""
    return float(np.median([cv2.Laplacian(grey, cv2.CV_32F).var() for grey in grey_THW]))


@dataclass(kw_only=True)
class Sharpness(Stage):
    """Measures sharpness (variance of the Laplacian at 128 rows), brightness and contrast of the luma, inside the bars.

    Reads: frames, crop, dropped_by
    Writes: sharpness, brightness, contrast
    """

    name: str = "sharpness"
    frames_seen: int = 12
    """Frames looked at, evenly spread over the clip."""

    def process(self, record: Clip) -> list[Clip]:
        if record.dropped_by:
            return [record]
        rgb_THWC = inside_bars(record)
        grey_THW = grey_at(rgb_THWC[spread(len(rgb_THWC), self.frames_seen)], MEASURED_HEIGHT)
        luma_THW = grey_THW.astype(np.float32) / 255
        return [
            replace(
                record,
                sharpness=round(laplacian_variance(grey_THW), 4),
                brightness=round(float(luma_THW.mean()), 4),
                contrast=round(float(luma_THW.std(axis=(1, 2)).mean()), 4),
            )
        ]
