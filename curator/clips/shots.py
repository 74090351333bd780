"""Where one shot of a video ends and the next begins."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import ClassVar

import numpy as np

from curator.clips.blends import blends, coarse
from curator.frames import CannotRead, Picture, scan
from curator.names import locate
from curator.records import Video, failed
from curator.stage import Stage


@dataclass(kw_only=True)
class ShotsConfig:
    height: int = 96
    """Rows at which the video is looked through."""
    cut_ratio: float = 3.0
    """A cut changes the picture this many times as much as the frames around it do (PySceneDetect, adaptive)."""
    cut_change: float = 15.0
    """... and by at least this much, mean change of hue, saturation and luma of 255."""
    black_below: float = 12.0
    """A picture of a lower mean (of 255) is black."""
    black_longest_s: float = 2.0
    """Black up to this long lies between two shots; longer, it is a dark shot."""
    blend_s: float = 0.25
    """Dissolves and fades are looked for over twice this time."""
    blend_straight: float = 0.3
    """A blend strays from the straight line between its ends by less than this share of the line."""
    blend_change: float = 10.0
    """... and its ends differ by more than this, mean of 255."""
    join_s: float = 0.5
    """Boundaries closer than this are one transition; what lies between them belongs to neither shot."""
    truncated_share: float = 0.02
    """A file that has this share less frames or seconds than it claims counts as truncated."""

    def build(self, shortest_s: float) -> Shots:
        return Shots(cfg=self, shortest_s=shortest_s)


@dataclass(kw_only=True)
class Shots(Stage):
    """Looks through each video once, at small size, and notes its shots.

    A file that breaks off keeps the part that decodes, with a warning, where that part is long enough for a clip.
    Writes: shots, warnings, frame_count, duration_s; or error, reason
    """

    takes: ClassVar[type[Video]] = Video
    name: str = "shots"
    cfg: ShotsConfig = field(default_factory=ShotsConfig)
    shortest_s: float = 3.0

    def setup(self) -> None:
        import scenedetect  # noqa: F401  a missing library shows here, not once per video

    def process(self, record: Video) -> list[Video]:
        if record.error:
            return [record]
        look = Look(self.cfg, record.fps)
        try:
            for picture in scan(locate(record.root, record.path), self.cfg.height):
                look.at(picture)
        except CannotRead as fault:
            return [failed(record, self.name, fault.reason, f"{fault}: replace it by a copy that plays")]
        end_s = look.end_s
        short_of = missing(record, look.count, end_s, self.cfg.truncated_share)
        if end_s < self.shortest_s - 1e-3:
            finding = f"{short_of or f'lasts {end_s:.2f} s'}; a clip takes {self.shortest_s:g} s at least"
            advice = "replace it by a whole copy" if short_of else "set curate.cut.shortest_s to a smaller number"
            return [failed(record, self.name, "truncated" if short_of else "too short", f"{finding}: {advice}")]
        warnings = list(record.warnings)
        if short_of:
            warnings.append(f"{record.path!r} {short_of}: the part that decodes is used; replace it by a whole copy")
        if look.broken:
            warnings.append(
                f"{record.path!r} has {look.broken} frames that do not decode cleanly: clips with them are dropped"
            )
        shots = shots_between(look.transitions(), look.times_s, end_s, self.cfg.join_s)
        return [replace(record, shots=shots, frame_count=look.count, duration_s=end_s, warnings=tuple(warnings))]


class Look:
    """What a pass over a video's frames leaves: their times, and where something new begins."""

    def __init__(self, cfg: ShotsConfig, fps: float) -> None:
        from scenedetect.detectors import AdaptiveDetector

        self.cuts = AdaptiveDetector(adaptive_threshold=cfg.cut_ratio, min_content_val=cfg.cut_change, min_scene_len=1)
        self.cfg = cfg
        self.step_s = 1.0 / fps if fps else 1.0 / 24.0
        self.times_s: list[float] = []
        self.found: set[int] = set()
        self.small: list[np.ndarray] = []
        self.black: list[bool] = []
        self.broken = 0

    @property
    def count(self) -> int:
        return len(self.times_s)

    @property
    def end_s(self) -> float:
        """When the last frame ends; 0 without frames."""
        return self.times_s[-1] + self.step_s if self.times_s else 0.0

    def at(self, picture: Picture) -> None:
        """The next frame."""
        from scenedetect import FrameTimecode

        # The detector counts frames; which rate it is told matters nowhere, since its lengths are frames too.
        place = FrameTimecode(self.count, fps=24.0)
        bgr_HWC = np.ascontiguousarray(picture.rgb_HWC[..., ::-1])
        self.found.update(cut.frame_num for cut in self.cuts.process_frame(place, bgr_HWC))
        self.black.append(float(bgr_HWC.mean()) < self.cfg.black_below)
        self.small.append(coarse(picture.rgb_HWC).astype(np.uint8))
        self.times_s.append(picture.time_s)
        self.broken += picture.broken

    def transitions(self) -> list[tuple[int, int]]:
        """First frame that is not the old shot any more and first that is the new one wholly; of a cut they are one."""
        half = max(2, round(self.cfg.blend_s / self.step_s))
        small = np.stack(self.small).astype(np.float32) if self.small else []
        found = [(number, number) for number in self.found if 0 < number < self.count]
        found += blends(small, half, self.cfg.blend_straight, self.cfg.blend_change)
        return sorted(found + black_gaps(self.black, round(self.cfg.black_longest_s / self.step_s)))


def black_gaps(black: Sequence[bool], longest: int) -> list[tuple[int, int]]:
    """First frame of each black stretch of at most `longest` frames, and the first frame after it."""
    gaps, place = [], 0
    for is_black, stretch in groupby(black):
        length = sum(1 for _ in stretch)
        if is_black and length <= longest:
            gaps.append((place, min(place + length, len(black) - 1)))
        place += length
    return gaps


def shots_between(
    transitions: Iterable[tuple[int, int]], times_s: Sequence[float], end_s: float, join_s: float
) -> tuple[tuple[float, float], ...]:
    """Start and end second of every shot: from the end of one transition to the beginning of the next.

    Transitions closer than `join_s` are one, so what lies between two of them belongs to no shot.
    """
    shots: list[tuple[float, float]] = []
    start_s = times_s[0]
    for begin, end in transitions:
        if times_s[begin] - start_s >= join_s or (not shots and times_s[begin] > start_s):
            shots.append((start_s, times_s[begin]))
        start_s = max(start_s, times_s[end])
    shots.append((start_s, end_s))
    return tuple((round(a, 6), round(b, 6)) for a, b in shots)


def missing(video: Video, count: int, end_s: float, share: float) -> str | None:
    """What a file lacks of what it claims, in words; `None` where it is whole."""
    if video.duration_s and end_s >= video.duration_s * (1 - share) - 0.1:
        return None  # some containers count frames that were left out; what reaches the end is whole
    if video.frame_count:
        whole = count >= video.frame_count * (1 - share) - 2
        return None if whole else f"ends early: {count} of {video.frame_count} frames decode"
    return f"ends early: {end_s:.2f} of {video.duration_s:.2f} s decode" if video.duration_s else None
