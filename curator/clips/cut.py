"""Which spans of a video become clips."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

from curator.records import Clip, Video, clip_id_of
from curator.stage import Stage


@dataclass(kw_only=True)
class CutConfig:
    shortest_s: float = 3.0
    """A shot below this gives no clip; it stays in the record as dropped by `short`."""
    longest_s: float = 30.0
    """A longer shot is cut into equal parts. Training takes at most clip.frames of a clip, so a smaller number makes
    more of a small set."""

    def __post_init__(self) -> None:
        if not 0 < self.shortest_s <= self.longest_s:
            raise ValueError(
                f"clips of {self.shortest_s:g} to {self.longest_s:g} s cannot be: "
                f"set curate.cut.longest_s={max(30.0, 2 * self.shortest_s):g}"
            )

    def build(self) -> Cut:
        return Cut(cfg=self)


@dataclass(kw_only=True)
class Cut(Stage):
    """Gives the video and a clip for every span to look at; no picture is touched.

    Writes: Clip.clip_id, video, video_id, start_s, end_s, source_fps, source_height, source_width; dropped_by `short`
    """

    takes: ClassVar[type[Video]] = Video
    name: str = "cut"
    cfg: CutConfig = field(default_factory=CutConfig)

    def process(self, record: Video) -> list[Video | Clip]:
        if record.error:
            return [record]
        clips: list[Video | Clip] = [record]
        for shot in record.shots:
            clips += [self.clip(record, start_s, end_s) for start_s, end_s in parts_of(shot, self.cfg)]
        return clips

    def clip(self, video: Video, start_s: float, end_s: float) -> Clip:
        short = end_s - start_s < self.cfg.shortest_s - 1e-3
        why = f"lasts {end_s - start_s:.2f} s, at least {self.cfg.shortest_s:g} s are wanted (curate.cut.shortest_s)"
        return Clip(
            clip_id=clip_id_of(video.video_id, start_s, end_s),
            video=video.path,
            video_id=video.video_id,
            start_s=start_s,
            end_s=end_s,
            source_fps=video.fps,
            source_height=video.height,
            source_width=video.width,
            dropped_by="short" if short else None,
            why_dropped=why if short else "",
        )


def parts_of(shot: tuple[float, float], cfg: CutConfig) -> list[tuple[float, float]]:
    """Equal parts of a shot, as few as `longest_s` allows; where these would be too short, fewer parts, each of
    `longest_s` from its beginning.
    """
    start_s, end_s = shot
    length_s = end_s - start_s
    parts = max(1, math.ceil(length_s / cfg.longest_s - 1e-9))
    if parts > 1 and length_s / parts < cfg.shortest_s:
        parts = max(1, int(length_s / cfg.shortest_s))
    step_s = length_s / parts
    starts = [start_s + k * step_s for k in range(parts)]
    return [(round(s, 6), round(s + min(step_s, cfg.longest_s), 6)) for s in starts]
