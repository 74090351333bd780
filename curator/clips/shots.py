"""Where one shot of a video ends and the next begins."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

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
    """A picture of a lower mean (of 255) is black: two shots may meet there."""
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
        shots = shots_between(look.boundaries(), look.times_s, end_s, self.cfg.join_s)
        return [replace(record, shots=shots, frame_count=look.count, duration_s=end_s, warnings=tuple(warnings))]


class Look:
    """What a pass over a video's frames leaves: their times, and the numbers of the frames that begin a shot."""

    def __init__(self, cfg: ShotsConfig, fps: float) -> None:
        from scenedetect.detectors import AdaptiveDetector, ThresholdDetector

        # Detectors count frames; the rate they are told matters nowhere, since lengths are given to them in frames.
        self.detectors = [
            AdaptiveDetector(adaptive_threshold=cfg.cut_ratio, min_content_val=cfg.cut_change, min_scene_len=1),
            ThresholdDetector(threshold=cfg.black_below, min_scene_len=1),
        ]
        self.step_s = 1.0 / fps if fps else 1.0 / 24.0
        self.times_s: list[float] = []
        self.found: set[int] = set()
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

        place = FrameTimecode(self.count, fps=24.0)
        bgr_HWC = np.ascontiguousarray(picture.rgb_HWC[..., ::-1])
        for detector in self.detectors:
            self.found.update(cut.frame_num for cut in detector.process_frame(place, bgr_HWC))
        self.times_s.append(picture.time_s)
        self.broken += picture.broken

    def boundaries(self) -> list[int]:
        """Numbers of the frames that begin something new, sorted, without the first frame."""
        return sorted(number for number in self.found if 0 < number < self.count)


def shots_between(
    boundaries: Iterable[int], times_s: Sequence[float], end_s: float, join_s: float
) -> tuple[tuple[float, float], ...]:
    """Start and end second of every shot. Boundaries within `join_s` of each other are one transition: the shot before
    ends where it begins, the shot after begins where it ends.
    """
    shots: list[tuple[float, float]] = []
    start_s = last_s = times_s[0]
    for time_s in (times_s[number] for number in boundaries):
        if shots and time_s - last_s < join_s:
            start_s = last_s = time_s  # the transition goes on
            continue
        shots.append((start_s, time_s))
        start_s = last_s = time_s
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
