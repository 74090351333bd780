"""What travels between the stages: frozen records. A stage hands on a changed copy; each field says who writes it."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any

import numpy as np

TRIED_AGAIN = ("failed", "lost")
"""Reasons that may be gone tomorrow: a stage that raised, a worker that died. The same command tries these again."""


class Status(StrEnum):
    KEPT = "kept"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class Frames:
    """Pictures of a span of a video, in order, in memory only: they never reach the manifest or the driver."""

    rgb_THWC: np.ndarray
    """uint8"""
    fps: float

    def __len__(self) -> int:
        return len(self.rgb_THWC)


@dataclass(frozen=True, slots=True)
class Video:
    """A file that was found. `error` says why it gives no clips."""

    path: str
    """raw_videos.find: as found, relative to the input folder"""
    video_id: str
    """raw_videos.find: from name, size and content; the same file has the same id wherever it lies"""
    root: str = ""
    """raw_videos.find: the input folder"""
    size_bytes: int = 0
    """raw_videos.find"""
    codec: str = ""
    """raw_videos.probe, and the five below"""
    width: int = 0
    height: int = 0
    fps: float = 0.0
    duration_s: float = 0.0
    frame_count: int = 0
    shots: tuple[tuple[float, float], ...] = ()
    """clips.shots: start and end second of every shot"""
    error: str | None = None
    """whoever found the fault: one line with the file, what was found, and the knob to turn"""
    reason: str = ""
    """whoever found the fault: two or three words to count it under, e.g. `not a video`"""
    failed_in: str = ""
    """whoever found the fault: the stage's name"""
    warnings: tuple[str, ...] = ()
    """anyone: what was odd but did not stop the work, e.g. a file that ends early"""


@dataclass(frozen=True, slots=True)
class Clip:
    """A span of a video. A dropped clip stays in the record, with the rule that dropped it."""

    clip_id: str
    """clips.cut: `clip_id_of(...)`"""
    video: str
    """clips.cut: Video.path"""
    video_id: str
    start_s: float
    end_s: float
    source_fps: float = 0.0
    source_height: int = 0
    source_width: int = 0
    dropped_by: str | None = None
    """the first stage that turned it down; later stages leave it alone"""
    why_dropped: str = ""
    """one sentence with the value found and the limit"""
    duplicate_of: str | None = None
    """dedup.keep: the clip id that was kept instead"""

    motion: float | None = None
    """filters.motion: mean optical flow, in percent of the picture's width per second"""
    static_share: float | None = None
    """filters.static: share of neighbouring frames that are the same picture"""
    sharpness: float | None = None
    """filters.blur: variance of the Laplacian at 128 pixels height"""
    brightness: float | None = None
    """filters.blur: mean luma, 0..1"""
    contrast: float | None = None
    """filters.blur: standard deviation of luma, 0..1"""
    crop: tuple[int, int, int, int] | None = None
    """filters.bars: top, bottom, left, right of the picture inside its black bars, in pixels of the source"""
    camera: str = ""
    """captions.motion_words: `still`, `pan left`, `zoom in`, ..."""

    caption_detailed: str = ""
    """captions.rules, and the two below"""
    caption_short: str = ""
    caption_words: str = ""
    """three words: subject, motion, scene; the bucket of the search for look-alikes"""

    embedding: tuple[float, ...] = ()
    """dedup.embed: unit length"""
    frame_count: int = 0
    """clips.cut: frames of the clip after it was brought to the recipe's frame rate"""
    height: int = 0
    width: int = 0
    file: str = ""
    """clips.cut: mp4 of the clip at the recipe's size, relative to the output folder"""
    thumb: str = ""
    """shards.thumbs: jpeg, relative to the output folder; dropped clips have one too"""
    latent_shape: tuple[int, ...] = ()
    """latents.encode: C, T, H, W"""
    split: str = ""
    """shards.split: `train` or `val`; empty where dropped"""
    frames: Frames | None = field(default=None, compare=False, repr=False)
    """frames.decode: in memory, between decoding and encoding; `None` in every manifest"""

    @property
    def status(self) -> Status:
        return Status.DROPPED if self.dropped_by else Status.KEPT


def is_settled(record: Video | Clip) -> bool:
    """Whether another run would come to the same; not so after an exception or a dead worker."""
    return (record.reason if isinstance(record, Video) else record.dropped_by) not in TRIED_AGAIN


def video_id_of(name: str, digest: str) -> str:
    """A key of `[a-z0-9_-]` that a person can read: the file's name made plain, and eight digits of its hash."""
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:40]
    return f"{plain or 'video'}-{digest[:8]}"


def clip_id_of(video_id: str, start_s: float, end_s: float) -> str:
    """Video and span in milliseconds: the same span of the same content has the same id on every machine."""
    return f"{video_id}-{round(start_s * 1000):08d}-{round(end_s * 1000):08d}"


def digest_of(data: bytes) -> str:
    """blake2b of `data`, 32 hex digits."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def failed(video: Video, stage: str, reason: str, finding: str) -> Video:
    """The video with its fault: one line that names the file, whatever characters its name has."""
    return replace(video, error=f"{video.path!r} {finding}", reason=reason, failed_in=stage)


def as_text(record: Video | Clip) -> str:
    """The record as one line of JSON, without its frames; numbers come back from it exactly as they were."""
    values = {f.name: getattr(record, f.name) for f in fields(record) if f.name != "frames"}
    return json.dumps({"kind": type(record).__name__, **values}, default=_plain)


def from_text(text: str) -> Video | Clip:
    """The record that `as_text` wrote. Lists become tuples again; an unknown field is an error."""
    values = json.loads(text)
    kind = {"Video": Video, "Clip": Clip}[values.pop("kind")]
    return kind(**{name: _tuples(value) for name, value in values.items()})


def _plain(value: Any) -> Any:
    """Numbers of numpy as numbers of Python; nothing else is let through."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a record holds a {type(value).__name__}, which does not fit into JSON: {value!r}")


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
