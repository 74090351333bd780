"""What a file says about its video, and whether it is one we take."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from curator.frames import MAX_PIXELS, CannotRead, Facts, look
from curator.names import locate
from curator.records import Video, failed
from curator.stage import Stage

ADVICE = {
    "too small": "set curate.probe.smallest_px to a smaller number to take such videos",
    "too short": "set curate.cut.shortest_s to a smaller number to take such videos",
    "too large": "set curate.probe.most_pixels to a larger number to take such videos",
    "too long": "set curate.probe.longest_s or most_frames to a larger number to take such videos",
    "too many streams": "set curate.probe.most_streams to a larger number to take such videos",
    "codec": "convert it first, e.g. to h264",
    "playlist": "take it out of input=, and put the videos that it lists there",
}
"""What to do about each reason."""


@dataclass(kw_only=True)
class ProbeConfig:
    smallest_px: int = 32
    """Videos with fewer rows or columns are left out."""
    most_pixels: int = MAX_PIXELS
    """Pixels of one picture; larger ones are left out before memory is taken for them."""
    most_frames: int = 2_000_000
    longest_s: float = 6 * 3600.0
    most_streams: int = 32

    def build(self, shortest_s: float) -> Probe:
        """`shortest_s` of a clip: a video below it cannot give one."""
        return Probe(cfg=self, shortest_s=shortest_s)


@dataclass(kw_only=True)
class Probe(Stage):
    """Opens each video and notes codec, size, rate and length.

    Writes: codec, width, height, fps, duration_s, frame_count; or error, reason
    """

    takes: ClassVar[type[Video]] = Video
    name: str = "probe"
    cfg: ProbeConfig = field(default_factory=ProbeConfig)
    shortest_s: float = 3.0

    def process(self, record: Video) -> list[Video]:
        if record.error:
            return [record]
        try:
            facts = look(locate(record.root, record.path), self.cfg.most_pixels)
            self.check(facts)
        except CannotRead as fault:
            advice = ADVICE.get(fault.reason, "take it out of input=, or replace it by a copy that plays")
            return [failed(record, self.name, fault.reason, f"{fault}: {advice}")]
        return [
            replace(
                record,
                codec=facts.codec,
                width=facts.width,
                height=facts.height,
                fps=facts.fps,
                duration_s=facts.duration_s,
                frame_count=facts.frame_count,
            )
        ]

    def check(self, facts: Facts) -> None:
        """`CannotRead` where a limit is passed."""
        cfg = self.cfg
        size = f"has pictures of {facts.height}x{facts.width}"
        if min(facts.height, facts.width) < cfg.smallest_px:
            raise CannotRead("too small", f"{size}, at least {cfg.smallest_px} pixels a side are wanted")
        if facts.duration_s and facts.duration_s < self.shortest_s - 1e-3:
            raise CannotRead(
                "too short", f"lasts {facts.duration_s:.2f} s, a clip takes {self.shortest_s:g} s at least"
            )
        if facts.duration_s > cfg.longest_s or facts.frame_count > cfg.most_frames:
            found = f"claims {facts.duration_s:.0f} s and {facts.frame_count} frames"
            raise CannotRead("too long", f"{found}, the limits are {cfg.longest_s:.0f} s and {cfg.most_frames}")
        if facts.streams > cfg.most_streams:
            raise CannotRead("too many streams", f"has {facts.streams} streams, the limit is {cfg.most_streams}")
