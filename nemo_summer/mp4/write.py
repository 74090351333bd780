"""Pictures to an mp4 that every player plays: H.264, 4:2:0."""

from __future__ import annotations

import contextlib
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace


class CannotWrite(ValueError):  # noqa: N818
    """An mp4 could not be written: names the file and the reason."""


def write_mp4(path: Path | str, rgb_THWC: np.ndarray, fps: float, crf: int = 18) -> None:
    """Writes rgb_THWC (uint8, even rows and columns) to `path`, which is whole or absent.

    `crf` is the quality, 0 (lossless) to 51. CannotWrite where the pictures do not suit or the disk is full.
    """
    path = Path(path)
    _check(path, rgb_THWC, fps, crf)
    waiting = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(waiting, "wb") as file:
            _encode(file, rgb_THWC, Fraction(fps).limit_denominator(1001), crf)
            file.flush()
            os.fsync(file.fileno())
        os.replace(waiting, path)
    except OSError as error:  # PyAV's own errors are OSErrors too
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise CannotWrite(f"{path} could not be written: {reason}; free some space or set out=FOLDER") from error
    finally:
        with contextlib.suppress(OSError):
            waiting.unlink(missing_ok=True)


def _encode(file: object, rgb_THWC: np.ndarray, rate: Fraction, crf: int) -> None:
    # faststart: a browser can show the first frame before it has the whole file
    with av.open(file, "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": str(crf), "preset": "medium"})
        stream.height, stream.width, stream.pix_fmt = rgb_THWC.shape[1], rgb_THWC.shape[2], "yuv420p"
        # said in the file, because players guess the colour matrix from the size of the picture
        stream.codec_context.colorspace, stream.codec_context.color_range = Colorspace.ITU601, ColorRange.MPEG
        for rgb_HWC in rgb_THWC:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb_HWC), format="rgb24")
            container.mux(stream.encode(frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU601)))
        container.mux(stream.encode())


def _check(path: Path, rgb_THWC: np.ndarray, fps: float, crf: int) -> None:
    shape = rgb_THWC.shape
    if "libx264" not in av.codecs_available:
        raise CannotWrite(f"{path}: this PyAV was built without libx264: pip install --force-reinstall av")
    if rgb_THWC.dtype != np.uint8 or rgb_THWC.ndim != 4 or shape[3] != 3 or 0 in shape:
        raise CannotWrite(f"{path}: an mp4 is made of uint8 pictures [T, H, W, 3], found {rgb_THWC.dtype} {shape}")
    if shape[1] % 2 or shape[2] % 2:
        raise CannotWrite(f"{path}: an mp4 needs even rows and columns, found {shape[1]}x{shape[2]}")
    if not (0 < fps < 1000 and 0 <= crf <= 51):
        raise CannotWrite(f"{path}: {fps} frames per second or quality crf={crf} (0 to 51) cannot be written")
