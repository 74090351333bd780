"""A small picture of every clip, also of those that were turned down: a report shows what a rule did."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2

from curator.records import Clip
from curator.stage import Stage
from curator.whole_files import whole_file

FOLDER = "thumbs"


@dataclass(kw_only=True)
class Thumbs(Stage):
    """Writes the middle frame as `OUT/thumbs/{clip_id}.jpg`, bars and all; a clip without frames in memory has none.

    Reads: frames
    Writes: thumb
    """

    name: str = "thumbs"
    out: str = ""
    """Output folder of the curation."""
    width: int = 160
    """Columns of the picture; the rows follow."""
    quality: int = 85
    """Of the JPEG, 1 to 100."""

    def process(self, record: Clip) -> list[Clip]:
        if record.frames is None or len(record.frames) == 0:
            return [record]
        rgb_HWC = record.frames.rgb_THWC[len(record.frames) // 2]
        height = max(1, round(self.width * rgb_HWC.shape[0] / rgb_HWC.shape[1]))
        how = cv2.INTER_AREA if self.width < rgb_HWC.shape[1] else cv2.INTER_LINEAR
        small_HWC = cv2.resize(rgb_HWC, (self.width, height), interpolation=how)
        bgr_HWC = cv2.cvtColor(small_HWC, cv2.COLOR_RGB2BGR)
        done, data = cv2.imencode(".jpg", bgr_HWC, [cv2.IMWRITE_JPEG_QUALITY, self.quality])
        if not done:
            raise ValueError(f"no picture of clip {record.clip_id} could be made from {small_HWC.shape} pixels")
        name = f"{FOLDER}/{record.clip_id}.jpg"
        with whole_file(Path(self.out) / name) as temporary:
            temporary.write_bytes(data.tobytes())
        return [replace(record, thumb=name)]
