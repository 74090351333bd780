"""A clip as a file of the recipe's size."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np

from curator.frames import write_clip
from curator.pictures import inside_bars
from curator.records import Clip, Frames
from curator.stage import Stage
from curator.whole_files import whole_file
from nemo_summer.shapes import ClipShape


@dataclass(kw_only=True)
class EncodeConfig:
    crf: int = 14
    """Quality of the H.264 file, 0 lossless .. 51. The latents are made from this file, so that what the viewer shows
    is what the model sees; 14 is above what the eye tells apart."""

    def build(self, out: str, clip: ClipShape) -> Encode:
        return Encode(cfg=self, out=out, clip=clip)


@dataclass(kw_only=True)
class Encode(Stage):
    """Writes every clip that is still kept as mp4 at the recipe's size, and lets its frames go.

    Reads: frames, crop, dropped_by
    Writes: file, height, width; frames (none)
    """

    name: str = "encode"
    cfg: EncodeConfig = field(default_factory=EncodeConfig)
    out: str = ""
    clip: ClipShape = field(default_factory=ClipShape)

    def process(self, record: Clip) -> list[Clip]:
        if record.dropped_by or record.frames is None:
            return [replace(record, frames=None)]
        rgb_THWC = cover(inside_bars(record), self.clip.height, self.clip.width)
        file = f"work/clips/{record.clip_id}.mp4"
        with whole_file(Path(self.out) / file) as temporary:
            write_clip(temporary, Frames(rgb_THWC, record.frames.fps), self.cfg.crf)
        return [replace(record, file=file, height=self.clip.height, width=self.clip.width, frames=None)]


def cover(rgb_THWC: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pictures of `height` x `width` that show as much of the middle as fits, undistorted."""
    _, H, W, _ = rgb_THWC.shape
    scale = max(height / H, width / W)
    rows, cols = min(H, max(1, round(height / scale))), min(W, max(1, round(width / scale)))
    top, left = (H - rows) // 2, (W - cols) // 2
    middle_THWC = rgb_THWC[:, top : top + rows, left : left + cols]
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.stack([cv2.resize(picture, (width, height), interpolation=how) for picture in middle_THWC])
