"""Frames of a span of seconds, and what a file says about itself. The only file that names a decoder.

A file is opened as what its first bytes say it is, never as what its name says, and only as one of `CONTAINERS`:
playlists (HLS, ffconcat, DASH) make a decoder open other files and addresses, so none of them is on the list.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import stat
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain, dropwhile, takewhile
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import ColorRange, Colorspace, Interpolation

from curator.records import Frames

CONTAINERS = {"mov": "mov,mp4,m4a,3gp,3g2,mj2", "matroska": "matroska,webm", "avi": "avi", "mpegts": "mpegts"}
"""Our names of the containers we open, and the decoder library's full names of them."""

CODECS = {"h264": "h264", "hevc": "hevc", "vp8": "vp8", "vp9": "vp9", "av1": "libdav1d", "mpeg4": "mpeg4"}
"""Codecs we decode, and which decoder does it. Everything else stays closed, sound included."""

MAX_PIXELS = 40_000_000
"""Pictures above this size are refused before memory is taken for them (8192 x 4320 is 35 million)."""

BT709 = 1
"""The number of BT.709 in H.264's lists of colour spaces, primaries and transfer curves."""

SAME_INSTANT_S = 1e-3
"""Two times closer than this are one: containers round to a millisecond."""


SEEK_BACK_S = (1.0, 10.0, float("inf"))
"""How far before a span to begin reading, tried in turn."""


class Decoder(StrEnum):
    pyav = "pyav"
    nvdec = "nvdec"


class CannotRead(ValueError):  # noqa: N818
    """What is wrong with a file, in words that follow the file's name, and `reason`, under which it is counted."""

    def __init__(self, reason: str, finding: str) -> None:
        super().__init__(finding)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Facts:
    """What a file says about its video. `frame_count` is the container's claim; 0 where it makes none."""

    container: str
    codec: str
    streams: int
    height: int
    """of the picture as it is to be shown: turned upright, with square pixels"""
    width: int
    fps: float
    duration_s: float
    frame_count: int


@dataclass(frozen=True, slots=True)
class Picture:
    """One decoded frame. `time_s` counts from the beginning of the video."""

    time_s: float
    rgb_HWC: np.ndarray
    broken: bool
    """the decoder said that parts of it are guessed"""


def container_of(path: Path) -> str | None:
    """Which of `CONTAINERS` the first bytes show; `None` for anything else, text and playlists included."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise CannotRead("not a file", "is not a regular file")
    with path.open("rb") as file:
        head = file.read(1024)
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return "mov"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    if head[:4] == b"RIFF" and head[8:11] == b"AVI":
        return "avi"
    for first, step in ((0, 188), (4, 192)):
        if len(head) > first + 4 * step and all(head[first + k * step] == 0x47 for k in range(5)):
            return "mpegts"
    return None


def look(path: Path, max_pixels: int = MAX_PIXELS) -> Facts:
    """What the file says about its video; `CannotRead` where it is not a video of ours."""
    with _opened(path, max_pixels) as container:
        stream = _video_stream(container)
        coded = stream.codec_context.height * stream.codec_context.width
        if coded > max_pixels:
            raise CannotRead("too large", f"has pictures of {coded} pixels, the limit is {max_pixels}")
        fps = float(stream.average_rate or stream.guessed_rate or 0)
        duration_s = _duration_s(container, stream)
        height, width = _shown_size(stream, _first_frame(container, stream))
        count = stream.frames or 0
        return Facts(
            container=container.format.name.split(",")[0],
            codec=stream.codec_context.codec.canonical_name,
            streams=len(container.streams),
            height=height,
            width=width,
            fps=fps or (count / duration_s if duration_s else 0.0),
            duration_s=duration_s,
            frame_count=count,
        )


def scan(path: Path, height: int, max_pixels: int = MAX_PIXELS) -> Iterator[Picture]:
    """Every frame of the video, first to last, at `height` rows (never enlarged)."""
    with _opened(path, max_pixels) as container:
        stream = _video_stream(container)
        yield from _pictures(_timed(container, stream), stream, height)


def read_span(
    path: Path, start_s: float, end_s: float, fps: float, height: int, decoder: Decoder = Decoder.pyav
) -> tuple[Frames, int]:
    """`round((end - start) fps)` frames of [start, end), each the frame nearest in time to `start + i/fps`, and how
    many of the frames read are broken.

    Only frames whose own time lies in the span are taken, so that no neighbouring shot shows at either end. Rates that
    differ or vary repeat or skip frames; nothing is blended.
    """
    pictures = (_span_by_nvdec if decoder is Decoder.nvdec else _span_by_pyav)(path, start_s, end_s, height)
    wanted_s = [start_s + i / fps for i in range(max(1, round((end_s - start_s) * fps)))]
    chosen, broken = nearest(pictures, wanted_s)
    if not chosen:
        raise CannotRead("unreadable", f"has no frame that decodes between {start_s:.3f} s and {end_s:.3f} s")
    return Frames(np.stack([picture.rgb_HWC for picture in chosen]), fps), broken


def nearest(pictures: Iterable[Picture], wanted_s: Sequence[float]) -> tuple[list[Picture], int]:
    """For each wanted time the picture nearest to it, of two equally near the earlier; and how many are broken.

    Both come sorted by time, so a picture that nothing wants is let go at once. Empty where there is no picture.
    """
    chosen: list[Picture] = []
    last: Picture | None = None
    broken = 0
    for picture in pictures:
        while last and len(chosen) < len(wanted_s):
            wanted = wanted_s[len(chosen)]
            if wanted - last.time_s > picture.time_s - wanted:
                break
            chosen.append(last)
        last, broken = picture, broken + picture.broken
    return (chosen + [last] * (len(wanted_s) - len(chosen)) if last else []), broken


def _opened(path: Path, max_pixels: int) -> av.container.InputContainer:
    kind = container_of(path)
    if kind is None:
        raise _no_container(path)
    limits = {
        "protocol_whitelist": "file",
        "format_whitelist": CONTAINERS[kind],
        "codec_whitelist": ",".join(CODECS.values()),
        "max_streams": "64",
    }
    try:
        # `file:` keeps names such as `concat:a|b` or `http:...` from being read as addresses.
        name = f"file:{os.path.abspath(path)}"
        return av.open(name, format=kind, container_options=limits, options={"max_pixels": str(max_pixels)})
    except (FFmpegError, ValueError) as fault:
        if kind == "mov" and not _has_index(path):
            raise CannotRead("truncated", "has no index (moov): it was cut off, or never finished") from fault
        raise CannotRead("unreadable", f"cannot be opened as {kind} ({_words(fault)})") from fault


def _no_container(path: Path) -> CannotRead:
    """What the file is instead of a video, as far as its beginning tells."""
    with path.open("rb") as file:
        head = file.read(1024)
    if not head:
        return CannotRead("not a video", "is empty")
    if head.lstrip().startswith((b"#EXTM3U", b"ffconcat")) or b"<MPD" in head:
        return CannotRead("playlist", "is a playlist, which would make the decoder open other files")
    return CannotRead("not a video", f"does not begin like any of {', '.join(CONTAINERS)}")


def _has_index(path: Path) -> bool:
    """Whether an mp4 has a whole `moov` box; without it nothing says where its frames are."""
    size, place = path.stat().st_size, 0
    with path.open("rb") as file:
        while place + 8 <= size:
            file.seek(place)
            length, name = struct.unpack(">I4s", file.read(8))
            if length == 1:  # the true length follows, in 8 bytes
                length = struct.unpack(">Q", file.read(8).ljust(8, b"\0"))[0]
            if name == b"moov":
                return place + length <= size
            if length < 8:
                return False
            place += length
    return False


def _words(fault: Exception) -> str:
    """The decoder's complaint without the file name that it repeats."""
    return str(getattr(fault, "strerror", None) or fault).lower()


def _video_stream(container: av.container.InputContainer) -> av.video.stream.VideoStream:
    pictures = av.stream.Disposition.attached_pic  # the cover of a song is no video
    streams = [s for s in container.streams.video if not s.disposition & pictures]
    if not streams:
        kinds = sorted({s.type for s in container.streams}) or ["nothing"]
        raise CannotRead("no video stream", f"has no video stream, only {', '.join(kinds)}")
    stream = streams[0]
    context = stream.codec_context
    if context is None or context.codec.canonical_name not in CODECS:
        codec = "an unknown codec" if context is None else context.codec.canonical_name
        raise CannotRead("codec", f"is coded in {codec}, we decode {', '.join(CODECS)}")
    # One thread: parallel work is the runner's business, and broken frames are reported in one order.
    context.thread_count = 1
    return stream


def _duration_s(container: av.container.InputContainer, stream: av.video.stream.VideoStream) -> float:
    if stream.duration:
        return float(stream.duration * stream.time_base)
    # Matroska's own length is that of its longest stream; the one of the video may stand in a tag, hh:mm:ss.
    tag = stream.metadata.get("DURATION", "").split(":")
    if len(tag) == 3 and all(re.fullmatch(r"[0-9]+(\.[0-9]+)?", part) for part in tag):
        return sum(float(part) * unit for part, unit in zip(tag, (3600.0, 60.0, 1.0)))
    return container.duration / av.time_base if container.duration else 0.0


def _first_frame(container: av.container.InputContainer, stream: av.video.stream.VideoStream) -> av.VideoFrame:
    for frame in _decoded(container, stream):
        if frame is not None:
            return frame
    raise CannotRead("unreadable", "has a video stream of which no frame decodes")


def _shown_size(stream: av.video.stream.VideoStream, frame: av.VideoFrame) -> tuple[int, int]:
    """Rows and columns of the picture turned upright, with square pixels: the coded picture keeps its height."""
    width = max(1, round(frame.width * float(stream.sample_aspect_ratio or 1)))
    return (width, frame.height) if _quarter_turns(frame) % 2 else (frame.height, width)


def _quarter_turns(frame: av.VideoFrame) -> int:
    """Quarter turns to the left that make the picture upright (telephones note them beside the picture)."""
    return round(frame.rotation / 90) % 4


def _decoded(
    container: av.container.InputContainer, stream: av.video.stream.VideoStream
) -> Iterator[av.VideoFrame | None]:
    """Every frame; `None` for a packet that does not decode. A container that breaks off ends the video, no more."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, FFmpegError):
            return
        try:
            frames = packet.decode()
        except FFmpegError:
            yield None
            continue
        yield from frames


@dataclass(frozen=True, slots=True)
class _Timed:
    time_s: float
    frame: av.VideoFrame
    broken: bool


def _timed(container: av.container.InputContainer, stream: av.video.stream.VideoStream) -> Iterator[_Timed]:
    """Every frame that decodes with its time from the beginning; broken too where one before it did not decode."""
    origin = stream.start_time or 0
    step_s = 1.0 / float(stream.average_rate or stream.guessed_rate or 25)
    next_s, begun, failed = 0.0, False, False
    for frame in _decoded(container, stream):
        if frame is None:
            failed = begun  # after a jump the first packets may lean on ones that were not read
            continue
        # A frame without a time stands one frame after its predecessor.
        time_s = float((frame.pts - origin) * frame.time_base) if frame.pts is not None else next_s
        yield _Timed(time_s, frame, failed or frame.is_corrupt)
        next_s, begun, failed = time_s + step_s, True, False


def _pictures(timed: Iterable[_Timed], stream: av.video.stream.VideoStream, height: int) -> Iterator[Picture]:
    """The frames upright, at `height` rows or less."""
    for item in timed:
        yield Picture(item.time_s, _upright(item.frame, _shown_size(stream, item.frame), height), item.broken)


def _upright(frame: av.VideoFrame, shown: tuple[int, int], height: int) -> np.ndarray:
    """The frame as rgb_HWC, turned upright, at `height` rows but never enlarged."""
    scale = min(1.0, height / shown[0])
    rows, cols = (max(1, round(side * scale)) for side in shown)
    turns = _quarter_turns(frame)
    width, height = (rows, cols) if turns % 2 else (cols, rows)
    scaled = frame.reformat(width=width, height=height, format="rgb24", interpolation=Interpolation.AREA)
    return np.ascontiguousarray(np.rot90(scaled.to_ndarray(), turns))


def _span_by_pyav(path: Path, start_s: float, end_s: float, height: int) -> Iterator[Picture]:
    """The pictures of [start, end), read from a key frame before it."""
    first_s, last_s = start_s - SAME_INSTANT_S, end_s - SAME_INSTANT_S
    for back_s in SEEK_BACK_S:
        with _opened(path, MAX_PIXELS) as container:
            stream = _video_stream(container)
            timed = _timed(container, stream)
            if start_s > back_s:
                jump = int((start_s - back_s) / stream.time_base)
                container.seek((stream.start_time or 0) + jump, stream=stream, backward=True)
                first = next(timed, None)
                # Some containers (mpegts) jump to where no key frame is: then from further back.
                if first is None or first.time_s > first_s:
                    continue
                timed = chain([first], timed)
            inside = takewhile(lambda t: t.time_s < last_s, dropwhile(lambda t: t.time_s < first_s, timed))
            yield from _pictures(inside, stream, height)
            return


def nvdec_is_here() -> bool:
    """Whether PyNvVideoCodec is installed and a CUDA device is there."""
    if importlib.util.find_spec("PyNvVideoCodec") is None:
        return False
    import torch

    return torch.cuda.is_available()


def _span_by_nvdec(path: Path, start_s: float, end_s: float, height: int) -> Iterator[Picture]:
    """The same span by the GPU's decoder, scaled on the GPU, so that only small pictures cross the bus.

    Not measured: no machine with this decoder was at hand. Videos that are turned, have oblong pixels or a rate that
    varies go the other way, since this reader counts frames and knows neither.
    """
    if not nvdec_is_here():
        raise ValueError(
            "decoder=nvdec needs a CUDA device and PyNvVideoCodec: install nemo-summer[curate-gpu] or set decoder=pyav"
        )
    import torch

    nvc = importlib.import_module("PyNvVideoCodec")

    with _opened(path, MAX_PIXELS) as container:
        stream = _video_stream(container)
        frame = _first_frame(container, stream)
        shown = _shown_size(stream, frame)
        plain = shown == (frame.height, frame.width) and stream.average_rate == stream.base_rate
    if not plain:
        yield from _span_by_pyav(path, start_s, end_s, height)
        return
    reader = nvc.SimpleDecoder(
        os.path.abspath(path), use_device_memory=True, output_color_type=nvc.OutputColorType.RGBP, decoder_cache_size=1
    )
    fps = float(reader.get_stream_metadata().average_fps)
    first = reader.get_index_from_time_in_seconds(start_s)
    size = [max(1, round(side * min(1.0, height / shown[0]))) for side in shown]
    for index in range(first, min(len(reader), first + round((end_s - start_s) * fps))):
        z_CHW = torch.from_dlpack(reader[index]).float()
        small = torch.nn.functional.interpolate(z_CHW[None], size, mode="area")[0]
        yield Picture(index / fps, small.round().byte().permute(1, 2, 0).cpu().numpy(), False)


def read_clip(path: Path) -> np.ndarray:
    """Every frame of one of our own clips, rgb_THWC, as `write_clip` wrote it."""
    frames = [picture.rgb_HWC for picture in scan(path, height=1 << 16)]
    if not frames:
        raise CannotRead("unreadable", f"{str(path)!r} holds no frame that decodes")
    return np.stack(frames)


def write_clip(path: Path, frames: Frames, crf: int) -> None:
    """`frames` as H.264 in mp4 at `path`. One thread and no dates: the same frames give the same bytes."""
    _, height, width, _ = frames.rgb_THWC.shape
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart", "fflags": "+bitexact"}) as container:
        # With macroblock trees memory that x264 never set gets into small pictures: 12 times the same frames of real
        # footage gave 6 different files, without them 60 times gave one.
        options = {"crf": str(crf), "preset": "veryfast", "threads": "1", "x264-params": "mbtree=0"}
        stream = container.add_stream("libx264", rate=round(frames.fps), options=options)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        context = stream.codec_context
        context.thread_count, context.gop_size = 1, round(frames.fps)
        context.color_range, context.colorspace = ColorRange.MPEG, BT709
        context.color_primaries = context.color_trc = BT709
        for rgb_HWC in frames.rgb_THWC:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb_HWC), format="rgb24")
            # What x264 marks and what the colours are must agree, or readers guess by the picture's size.
            container.mux(stream.encode(frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)))
        container.mux(stream.encode(None))
