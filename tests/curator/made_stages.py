"""Stages for tests of runners: plain, failing, deadly, and one that writes down what it did."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from curator.records import Clip, Frames, Video, clip_id_of
from curator.stage import GatherStage, Stage


def videos(count: int) -> list[Video]:
    return [Video(f"{i:03d}.mp4", f"v{i:03d}", size_bytes=i) for i in range(count)]


@dataclass(kw_only=True)
class Measure(Stage):
    takes: ClassVar[type[Video]] = Video
    name: str = "measure"

    def process(self, record: Video) -> list[Video]:
        return [replace(record, duration_s=record.size_bytes / 7)]


@dataclass(kw_only=True)
class Chop(Stage):
    """One clip for the first video, two for the second, three for the third, and so on, up to four."""

    takes: ClassVar[type[Video]] = Video
    name: str = "chop"

    def process(self, record: Video) -> list[Video | Clip]:
        spans = [(k * 3.0, k * 3.0 + 3.0) for k in range(record.size_bytes % 4 + 1)]
        return [record, *(Clip(clip_id_of(record.video_id, *s), record.path, record.video_id, *s) for s in spans)]


@dataclass(kw_only=True)
class Fill(Stage):
    """Frames of many bytes: they must not leave the worker."""

    name: str = "fill"

    def process(self, record: Clip) -> list[Clip]:
        level = round(record.start_s) % 256
        return [replace(record, frames=Frames(np.full((4, 200, 200, 3), level, np.uint8), 24.0))]


@dataclass(kw_only=True)
class Score(Stage):
    """Looks at the frames that an earlier stage left in the record."""

    name: str = "score"

    def process(self, record: Clip) -> list[Clip]:
        assert record.frames is not None
        return [replace(record, motion=np.float32(record.frames.rgb_THWC.mean() / 3))]


@dataclass(kw_only=True)
class Trouble(Stage):
    """Does to the named clips or videos what its name says."""

    name: str = "trouble"
    raises: tuple[str, ...] = ()
    kills: tuple[str, ...] = ()
    swallows: tuple[str, ...] = ()
    fills_the_disk: tuple[str, ...] = ()

    def process(self, record: Clip) -> list[Clip]:
        if record.clip_id in self.raises:
            raise RuntimeError("this one\ndoes not work")
        if record.clip_id in self.kills:
            os.kill(os.getpid(), signal.SIGKILL)
        if record.clip_id in self.fills_the_disk:
            raise OSError(errno.ENOSPC, "No space left on device", "/some/where.mp4")
        return [] if record.clip_id in self.swallows else [record]


@dataclass(kw_only=True)
class TroubleWithVideos(Stage):
    takes: ClassVar[type[Video]] = Video
    name: str = "video trouble"
    raises: tuple[str, ...] = ()
    kills: tuple[str, ...] = ()

    def process(self, record: Video) -> list[Video]:
        if record.path in self.raises:
            raise RuntimeError("this one does not work")
        if record.path in self.kills:
            os.kill(os.getpid(), signal.SIGKILL)
        return [record]


@dataclass(kw_only=True)
class Tell(Stage):
    """Writes the name of each video it works on to ROOT/log; kills the process at the line that ROOT/kill says."""

    takes: ClassVar[type[Video]] = Video
    name: str = "tell"
    root: str = ""
    shade: int = 0

    def process(self, record: Video) -> list[Video]:
        log, kill = Path(self.root) / "log", Path(self.root) / "kill"
        with log.open("a") as file:
            file.write(record.path + "\n")
        if kill.exists() and len(log.read_text().splitlines()) == int(kill.read_text()):
            os.kill(os.getpid(), signal.SIGKILL)
        return [record]


@dataclass(kw_only=True)
class Number(GatherStage):
    """Numbers all clips in the order it gets them."""

    name: str = "number"

    def process_all(self, records: Sequence[Clip]) -> list[Clip]:
        return [replace(record, frame_count=place) for place, record in enumerate(records)]
