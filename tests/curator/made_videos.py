"""Tiny videos for tests: each frame carries its own number, so that a test can see which frame it got."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import cv2
import numpy as np

from tests.curator.made_clips import texture

BITS = 10
PAN_PX = 480
SIZE = (48, 80)
"""Rows and columns: 8 columns per bit."""


def numbered(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A picture rgb_HWC whose columns spell `number`: light bar 1, dark bar 0."""
    height, width = size
    bits = [(number >> (BITS - 1 - k)) & 1 for k in range(BITS)]
    row_W = np.repeat(np.array(bits, np.uint8) * 150 + 50, -(-width // BITS))[:width]
    return np.repeat(np.broadcast_to(row_W, (height, width))[..., None], 3, axis=2)


def number_of(rgb_HWC: np.ndarray) -> int:
    """The number that a picture spells, at any size."""
    row_W = rgb_HWC.mean(axis=(0, 2))
    places = ((np.arange(BITS) + 0.5) * len(row_W) / BITS).astype(int)
    return int("".join("1" if row_W[place] > 125 else "0" for place in places), 2)


def lively(number: int, size: tuple[int, int] = SIZE, seed: int = 0) -> np.ndarray:
    """A camera that pans over a colourful texture, a pixel per frame: footage that no limit turns down."""
    height, width = size
    shift = number % PAN_PX
    return np.ascontiguousarray(_wide(height, width + PAN_PX, seed)[:, shift : shift + width])


@lru_cache(maxsize=8)
def _wide(height: int, width: int, seed: int) -> np.ndarray:
    fine_HWC = texture(3 * height, 3 * width, seed)
    tint_C = np.roll((1.0, 0.7, 0.4), seed)  # so that the cut from one to the next is one of colour too
    return (cv2.resize(fine_HWC, (width, height), interpolation=cv2.INTER_AREA) * tint_C).astype(np.uint8)


def write_video(
    path: Path,
    seconds: float = 3.5,
    fps: int = 24,
    size: tuple[int, int] = SIZE,
    codec: str = "libx264",
    picture: Callable[[int], np.ndarray] | None = None,
    times_s: Sequence[float] | None = None,
    prepare: Callable[[av.video.stream.VideoStream], None] | None = None,
    index_first: bool = False,
) -> Path:
    """A video at `path` of `round(seconds fps)` frames, or one frame at each of `times_s`."""
    times = list(times_s) if times_s is not None else [i / fps for i in range(round(seconds * fps))]
    even = (size[0] - size[0] % 2, size[1] - size[1] % 2)
    movflags = {"movflags": "+faststart"} if index_first else {}
    with av.open(str(path), "w", options=movflags) as container:
        options = {"crf": "12", "preset": "ultrafast", "threads": "1"} if codec == "libx264" else {}
        stream = container.add_stream(codec, rate=fps, options=options)
        odd = size != even
        stream.height, stream.width = size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv444p" if odd else "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1200)
        if prepare:
            prepare(stream)
        for number, time_s in enumerate(times):
            rgb_HWC = picture(number) if picture else numbered(number, size)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb_HWC), format="rgb24")
            frame.pts, frame.time_base = round(time_s * 1200), Fraction(1, 1200)
            container.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
        container.mux(stream.encode(None))
    return path


def write_sound(path: Path, seconds: float = 4.0) -> Path:
    """A file with sound and no picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        samples = (np.sin(np.arange(int(16000 * seconds)) / 20) * 8000).astype(np.int16)
        for start in range(0, len(samples) - 1023, 1024):
            frame = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], format="s16", layout="mono")
            frame.sample_rate, frame.pts = 16000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
