"""What a run of the curator did, in numbers that add up."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from curator.raw_videos.find import Found
from curator.records import Clip, Video
from curator.whole_files import write_whole

FORMAT = 1
LIBRARIES = ("nemo-summer", "av", "scenedetect-headless", "opencv-python-headless", "numpy", "torch", "ray")
NEARLY_ALL = 0.9
"""A rule that drops this share of the clips it sees gets a warning: more often a wrong limit than bad footage."""


@dataclass(kw_only=True)
class Manifest:
    """Counts of a whole run. `check()` holds them together; it is called before a manifest is written."""

    fingerprint: str = ""
    """of the sources and settings; the same again means that there is nothing to do"""
    videos_found: int = 0
    videos_read: int = 0
    videos_failed: dict[str, int] = field(default_factory=dict)
    """by reason"""
    videos_duplicate: int = 0
    """files whose content another file has; that one is read"""
    other_files: int = 0
    """files that are not named like a video; they are not among the found"""
    clips_total: int = 0
    clips_kept: int = 0
    clips_dropped: dict[str, int] = field(default_factory=dict)
    """by rule"""
    seconds_found: float = 0.0
    """footage in videos that were read"""
    seconds_in_clips: float = 0.0
    seconds_kept: float = 0.0
    stage_seconds: dict[str, float] = field(default_factory=dict)
    """time spent by stage, added over all workers and over interrupted runs"""
    run_seconds: float = 0.0
    """wall time of this run alone"""
    failures: list[dict[str, str]] = field(default_factory=list)
    """file, stage, reason, message"""
    duplicates: list[dict[str, str]] = field(default_factory=list)
    """file, same_as"""
    warnings: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def check(self) -> None:
        """`ValueError` where a number does not add up: then something was lost or counted twice."""
        videos = self.videos_read + sum(self.videos_failed.values()) + self.videos_duplicate
        clips = self.clips_kept + sum(self.clips_dropped.values())
        for what, total, parts in (
            ("videos found against read + failed + duplicate", self.videos_found, videos),
            ("clips against kept + dropped", self.clips_total, clips),
            ("failed videos against failures listed", sum(self.videos_failed.values()), len(self.failures)),
            ("duplicate videos against duplicates listed", self.videos_duplicate, len(self.duplicates)),
        ):
            if total != parts:
                raise ValueError(
                    f"the manifest does not add up, {what}: {total} is not {parts}. This is a fault of the curator"
                )

    def write(self, path: Path) -> None:
        self.check()
        write_whole(path, json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n")

    def lines(self) -> list[str]:
        """The run in a few sentences."""
        dropped = ", ".join(f"{rule} {n}" for rule, n in sorted(self.clips_dropped.items())) or "none"
        failed = ", ".join(f"{reason} {n}" for reason, n in sorted(self.videos_failed.items())) or "none"
        return [
            f"videos: {self.videos_found} found, {self.videos_read} read ({self.seconds_found:.1f} s), "
            f"{self.videos_duplicate} duplicate, failed: {failed}",
            f"clips:  {self.clips_total} cut ({self.seconds_in_clips:.1f} s), {self.clips_kept} kept "
            f"({self.seconds_kept:.1f} s), dropped: {dropped}",
            *(f"failed: {failure['message']}" for failure in self.failures),
            *(f"warning: {warning}" for warning in self.warnings),
        ]


def read_manifest(path: Path) -> Manifest:
    """The manifest at `path`; `ValueError` where it is none of this format."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as fault:
        raise ValueError(f"{str(path)!r} is not a manifest ({fault}): delete it and run the curator again") from fault
    if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
        raise ValueError(f"{str(path)!r} is not a manifest of format {FORMAT}: delete it and run the curator again")
    try:
        return Manifest(**values)
    except TypeError as fault:
        raise ValueError(f"{str(path)!r} is not a manifest ({fault}): delete it and run the curator again") from fault


def tally(found: Found, records: Sequence[Video | Clip]) -> Manifest:
    """The counts of a finished run."""
    videos = [r for r in records if isinstance(r, Video)]
    clips = [r for r in records if isinstance(r, Clip)]
    read = [v for v in videos if not v.error]
    bad = [*found.failed, *(v for v in videos if v.error)]
    kept = [c for c in clips if not c.dropped_by]
    return Manifest(
        videos_found=len(found.videos) + len(found.failed) + len(found.duplicates),
        videos_read=len(read),
        videos_failed=dict(Counter(v.reason for v in bad)),
        videos_duplicate=len(found.duplicates),
        other_files=found.other_files,
        clips_total=len(clips),
        clips_kept=len(kept),
        clips_dropped=dict(Counter(c.dropped_by for c in clips if c.dropped_by)),
        seconds_found=round(sum(v.duration_s for v in read), 3),
        seconds_in_clips=round(sum(c.end_s - c.start_s for c in clips), 3),
        seconds_kept=round(sum(c.end_s - c.start_s for c in kept), 3),
        failures=[{"file": v.path, "stage": v.failed_in, "reason": v.reason, "message": v.error or ""} for v in bad],
        duplicates=[{"file": file, "same_as": same_as} for file, same_as in found.duplicates],
        warnings=[w for v in videos for w in v.warnings] + _suspicious(clips),
    )


def _suspicious(clips: Sequence[Clip]) -> list[str]:
    """Rules that dropped nearly everything, and stages that failed on clips."""
    lines = []
    for rule, dropped in Counter(c.dropped_by for c in clips if c.dropped_by).items():
        if dropped >= NEARLY_ALL * len(clips) and len(clips) >= 10:
            lines.append(
                f"rule {rule} dropped {dropped} of {len(clips)} clips: see whether its limit fits this footage"
            )
    broken = [c for c in clips if c.dropped_by in ("failed", "lost")]
    return lines + [f"clip {c.clip_id} was dropped: {c.why_dropped}" for c in broken]


def library_versions() -> dict[str, str]:
    """Versions of what the results depend on."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "absent"
    return versions
