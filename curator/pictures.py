"""What filters, captions and descriptors look at: a clip's frames inside the bars, small, grey, and the flow between.

Everything is measured at sizes of its own, so that a score does not depend on the size the recipe decodes at
(P pairs of frames, T frames, H rows, W columns).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from curator.records import Clip, Frames

FLOW_HEIGHT = 64
FLOW_PAIRS_PER_S = 8.0


def frames_of(clip: Clip) -> Frames:
    """The frames in memory; a `ValueError` that names the clip where they are gone."""
    if clip.frames is None or len(clip.frames) == 0:
        raise ValueError(
            f"clip {clip.clip_id} has no frames in memory: this stage must stand between decoding and encoding"
        )
    return clip.frames


def inside_bars(clip: Clip) -> np.ndarray:
    """The frames without the black bars that `clip.crop` names: a view `rgb_THWC`, uint8."""
    rgb_THWC = frames_of(clip).rgb_THWC
    if clip.crop is None:
        return rgb_THWC
    _, H, W, _ = rgb_THWC.shape
    y, x = H / (clip.source_height or H), W / (clip.source_width or W)
    top, bottom, left, right = clip.crop
    rows = slice(min(H - 1, round(top * y + 0.25)), max(1, round(bottom * y - 0.25)))
    cols = slice(min(W - 1, round(left * x + 0.25)), max(1, round(right * x - 0.25)))
    return rgb_THWC[:, rows, cols]


def at_height(pictures: np.ndarray, height: int) -> np.ndarray:
    """Pictures `THW` or `THWC` at `height` rows, the width in proportion (at least 8 columns); the type stays."""
    H, W = pictures.shape[1:3]
    size = (max(8, round(W * height / H)), height)
    how = cv2.INTER_AREA if height <= H else cv2.INTER_LINEAR
    return np.stack([cv2.resize(picture, size, interpolation=how) for picture in pictures])


def spread(count: int, wanted: int) -> list[int]:
    """At most `wanted` indices of `count` frames, evenly spread and each in the middle of its part."""
    wanted = min(count, wanted)
    return [int((i + 0.5) * count / wanted) for i in range(wanted)]


def grey_of(rgb_THWC: np.ndarray) -> np.ndarray:
    """Luma `grey_THW`, uint8."""
    none = np.zeros((0, *rgb_THWC.shape[1:3]), np.uint8)
    return np.stack([cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in rgb_THWC]) if len(rgb_THWC) else none


def grey_at(rgb_THWC: np.ndarray, height: int) -> np.ndarray:
    """Luma `grey_THW`, uint8, at `height` rows."""
    return grey_of(at_height(rgb_THWC, height))


def flow_pairs(frames: int, fps: float) -> tuple[list[tuple[int, int]], float]:
    """Pairs of frame numbers an eighth of a second apart, end to end, and the seconds between the two of a pair.

    Wider than neighbours: slow movement is more than a tenth of a pixel, and doubled frames do not count as rest.
    """
    gap = min(max(1, round(fps / FLOW_PAIRS_PER_S)), frames - 1)
    pairs = [(start, start + gap) for start in range(0, frames - gap, gap)] if gap else []
    return pairs, gap / fps


def flow_between(grey_THW: np.ndarray, pairs: list[tuple[int, int]]) -> np.ndarray:
    """Optical flow `flow_PHW2` in pixels, x then y: where each pixel of a pair's first picture goes (DIS, 2016)."""
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    dis.setFinestScale(1)  # the preset stops a scale earlier, which at 64 rows costs a tenth of slow movements
    none = np.zeros((0, *grey_THW.shape[1:], 2), np.float32)
    return np.stack([dis.calc(grey_THW[a], grey_THW[b], None) for a, b in pairs]) if pairs else none


@dataclass(frozen=True, slots=True)
class Movement:
    """What moves between pairs of frames an eighth of a second apart, at 64 rows inside the bars."""

    flow_PHW2: np.ndarray
    """Optical flow, x to the right and y down, in percent of the picture's width per second."""
    rgb_PHWC: np.ndarray
    """First picture of each pair, uint8."""

    def grey_PHW(self) -> np.ndarray:
        """Luma of the first pictures, uint8."""
        return grey_of(self.rgb_PHWC)


def movement_of(clip: Clip) -> Movement:
    """Movement between the pairs; no pair where the clip has a single frame."""
    rgb_THWC, fps = inside_bars(clip), frames_of(clip).fps
    pairs, gap_s = flow_pairs(len(rgb_THWC), fps)
    needed = sorted({frame for pair in pairs for frame in pair}) or [0]
    place = {frame: index for index, frame in enumerate(needed)}
    small_THWC = at_height(rgb_THWC[needed], FLOW_HEIGHT)
    flow_PHW2 = flow_between(grey_of(small_THWC), [(place[a], place[b]) for a, b in pairs])
    flow_PHW2 *= 100.0 / small_THWC.shape[2] / (gap_s or 1.0)
    return Movement(flow_PHW2, small_THWC[[place[a] for a, _ in pairs]])
