"""Black bars: where the picture ends."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from curator.pictures import frames_of, spread
from curator.records import Clip
from curator.stage import Stage


def lit_edges(lit_HW: np.ndarray, longest_share: float) -> tuple[int, int]:
    """First row of the picture and first row below it, where `lit_HW` says which pixels are ever brighter than black.

    A bar is a run of rows from the edge in which next to nothing is lit, and it must end in a straight line: within two
    rows most columns are lit. A dark scene fades towards its edge and so has no bar.
    """
    row_share_H = lit_HW.mean(axis=1)
    return _bar(row_share_H, longest_share), len(row_share_H) - _bar(row_share_H[::-1], longest_share)


def _bar(row_share_H: np.ndarray, longest_share: float) -> int:
    """Rows of the bar at the beginning of `row_share_H`; 0 where there is none."""
    lit = np.flatnonzero(row_share_H > 0.02)
    if len(lit) == 0 or lit[0] == 0 or lit[0] > longest_share * len(row_share_H):
        return 0
    first = int(lit[0])
    ends = np.flatnonzero(row_share_H[first : first + 3] > 0.6)
    return first + int(ends[0]) if len(ends) else 0


def brightest(rgb_THWC: np.ndarray) -> np.ndarray:
    """Per pixel the brightest channel over time, `HW`: a fade or a night shot still shows its edges in some frame."""
    return rgb_THWC.max(axis=(0, 3))


def picture_inside(rgb_THWC: np.ndarray, black_max: int, longest_share: float) -> tuple[int, int, int, int]:
    """Top, bottom, left, right of the picture inside its bars in pixels of the frames: `[top:bottom, left:right]`.

    Columns are judged on the rows of the picture alone, so that a letterbox does not hide a pillarbox.
    """
    level_HW = brightest(rgb_THWC)
    lit_HW = level_HW > black_max
    top, bottom = lit_edges(lit_HW, longest_share)
    left, right = lit_edges(lit_HW[top:bottom].T, longest_share)
    top, bottom = lit_edges(lit_HW[:, left:right], longest_share)
    rows_H, cols_W = level_HW[:, left:right].mean(axis=1), level_HW[top:bottom].mean(axis=0)
    return *past_mixed(rows_H, top, bottom), *past_mixed(cols_W, left, right)


def past_mixed(level_H: np.ndarray, low: int, high: int) -> tuple[int, int]:
    """The same edges, each a row further inside where scaling left a row that is a blend of bar and picture."""
    mixed_low = 0 < low < high - 1 and level_H[low] < 0.88 * level_H[low + 1]
    mixed_high = low + 1 < high < len(level_H) and level_H[high - 1] < 0.88 * level_H[high - 2]
    return low + mixed_low, high - mixed_high


def to_source(
    edges: tuple[int, int, int, int], size: tuple[int, int], source: tuple[int, int]
) -> tuple[int, int, int, int]:
    """The same rectangle in pixels of the source, rounded inwards."""
    (H, W), (source_H, source_W) = size, source
    top, bottom, left, right = edges
    return *_scaled(top, bottom, H, source_H), *_scaled(left, right, W, source_W)


def _scaled(low: int, high: int, length: int, source_length: int) -> tuple[int, int]:
    scale = source_length / length
    return math.ceil(low * scale), source_length - math.ceil((length - high) * scale)


@dataclass(kw_only=True)
class FindBars(Stage):
    """Finds black bars above, below and beside the picture; where there are none, `crop` stays None.

    Reads: frames, source_height, source_width, dropped_by
    Writes: crop
    """

    name: str = "bars"
    black_max: int = 40
    """Brightest value (0..255) of a channel that still counts as black: bars carry coding noise."""
    longest_share: float = 0.4
    """A bar longer than this share of the side is no bar: the whole picture is dark there."""
    frames_seen: int = 12
    """Frames looked at, evenly spread over the clip: a bar is one only if it is black in all of them."""

    def process(self, record: Clip) -> list[Clip]:
        if record.dropped_by:
            return [record]
        rgb_THWC = frames_of(record).rgb_THWC
        _, H, W, _ = rgb_THWC.shape
        seen_THWC = rgb_THWC[spread(len(rgb_THWC), self.frames_seen)]
        edges = picture_inside(seen_THWC, self.black_max, self.longest_share)
        if edges == (0, H, 0, W):
            return [record]
        source = (record.source_height or H, record.source_width or W)
        return [replace(record, crop=to_source(edges, (H, W), source))]
