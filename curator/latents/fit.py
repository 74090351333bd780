"""The codec of a dataset: fitted on its own clips, or loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from curator.frames import CannotRead, read_clip
from curator.records import Clip
from curator.stage import GatherStage
from nemo_summer.encoders.video_vae import CodecConfig
from nemo_summer.shapes import whole_frames


def read_pixels(file: Path, frames_max: int) -> Tensor:
    """The first `4 n + 1 <= frames_max` frames of one of our clips, x_CTHW in [-1, 1], float32.

    ValueError that names the file where it cannot be read or is empty.
    """
    try:
        rgb_THWC = read_clip(file)
    except (CannotRead, OSError) as error:
        raise ValueError(f"{file} cannot be read ({error}): delete it and run the same command again") from error
    count = whole_frames(min(len(rgb_THWC), frames_max))
    return torch.from_numpy(rgb_THWC[:count]).permute(3, 0, 1, 2).float() / 127.5 - 1.0


def sample_of(clips: Sequence[Clip], wanted: int) -> list[Clip]:
    """At most `wanted` clips, chosen by the hash of their id: the same clips in any order and on every machine."""
    return sorted(clips, key=lambda clip: hashlib.sha256(clip.clip_id.encode()).digest())[:wanted]


@dataclass(kw_only=True)
class FitCodec(GatherStage):
    """Fits the embedded codec on kept train clips, or loads the one that is named, and writes it to `OUT/codec`.

    Reads: file, split, dropped_by
    Writes: nothing
    """

    name: str = "fit"
    out: str = ""
    """Output folder of the curation."""
    codec: CodecConfig = field(default_factory=CodecConfig)
    """Which codec, and on how many clips it is fitted."""
    clip_frames: int = 81
    """Longest clip in pixel frames, `4 n + 1`."""
    device: str = "cpu"
    """Where it is fitted."""

    def process_all(self, records: Sequence[Clip]) -> list[Clip]:
        train = [clip for clip in records if clip.dropped_by is None and clip.split == "train"]
        if train:
            self.codec.build(self._videos(train), device=self.device).save(Path(self.out) / "codec")
        return list(records)

    def _videos(self, train: Sequence[Clip]) -> Iterator[Tensor]:
        for clip in sample_of(train, self.codec.fit_clips):
            yield read_pixels(Path(self.out) / clip.file, self.clip_frames)
