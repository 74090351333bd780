"""How colourful a clip is."""

from __future__ import annotations

import numpy as np

from curator.pictures import at_height, inside_bars, spread
from curator.records import Clip


def colourfulness(rgb_THWC: np.ndarray) -> float:
    """Spread of the opponent colours, `sqrt(var(R - G) + var((R + G) / 2 - B))`, in grey levels.

    The spread term of Hasler and Suesstrunk 2003, without their mean: a sepia print has a mean and no spread.
    """
    red, green, blue = np.moveaxis(rgb_THWC.astype(np.float32), -1, 0)
    return float(np.hypot((red - green).std(), ((red + green) / 2 - blue).std()))


def clip_colourfulness(clip: Clip, frames_seen: int = 8) -> float:
    """The same over frames spread evenly over the clip, at 64 rows, where coding noise of single pixels is gone."""
    rgb_THWC = inside_bars(clip)
    return colourfulness(at_height(rgb_THWC[spread(len(rgb_THWC), frames_seen)], 64))
