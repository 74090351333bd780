"""The frames of a clip, once for every stage that looks at them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from curator.frames import CannotRead, Decoder, read_span
from curator.names import locate
from curator.records import Clip
from curator.stage import Stage
from nemo_summer.shapes import ClipShape

LEAST_HEIGHT = 128
"""Sharpness is measured at this height, so frames are kept that large."""


@dataclass(kw_only=True)
class DecodeConfig:
    decoder: Decoder = Decoder.pyav
    """`pyav` on the CPU, `nvdec` on a GPU with PyNvVideoCodec."""
    bars_margin: float = 1.34
    """Frames are read this much larger than the recipe needs, so that they are still large enough inside black bars
    (2.39:1 within 16:9 leaves 0.744 of the rows)."""
    most_broken_frames: int = 0
    """A clip with more frames that do not decode cleanly is dropped by `broken`."""

    def build(self, root: str, clip: ClipShape) -> Decode:
        return Decode(cfg=self, root=root, clip=clip)


@dataclass(kw_only=True)
class Decode(Stage):
    """Puts the clip's frames into the record, at the recipe's rate; for a dropped clip one frame from its middle, for
    its thumbnail.

    Writes: frames, frame_count; dropped_by `broken`
    """

    name: str = "decode"
    cfg: DecodeConfig = field(default_factory=DecodeConfig)
    root: str = ""
    clip: ClipShape = field(default_factory=ClipShape)

    def process(self, record: Clip) -> list[Clip]:
        path = locate(self.root, record.video)
        height = working_height(record.source_height, record.source_width, self.clip, self.cfg.bars_margin)
        start_s, end_s = record.start_s, record.end_s
        if record.dropped_by:
            middle_s = (start_s + end_s) / 2
            start_s, end_s = middle_s, min(end_s, middle_s + 1.0 / self.clip.fps)
        try:
            frames, broken = read_span(path, start_s, end_s, self.clip.fps, height, self.cfg.decoder)
        except CannotRead as fault:
            return [record if record.dropped_by else replace(record, dropped_by="broken", why_dropped=str(fault))]
        if record.dropped_by:
            return [replace(record, frames=frames)]
        record = replace(record, frames=frames, frame_count=len(frames))
        if broken > self.cfg.most_broken_frames:
            most = self.cfg.most_broken_frames
            why = f"{broken} frames do not decode cleanly, above the limit {most}: "
            why += "move it with curate.decode.most_broken_frames"
            record = replace(record, dropped_by="broken", why_dropped=why)
        return [record]


def working_height(height: int, width: int, clip: ClipShape, margin: float) -> int:
    """Rows to read a source of `height` x `width` at: enough to fill the recipe's picture after bars are cut off."""
    cover = max(clip.height / height, clip.width / width)
    return min(height, max(LEAST_HEIGHT, round(height * cover * margin)))
