"""Which videos a folder holds. Sources are only read."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from curator.names import readable
from curator.records import Video, digest_of, failed, video_id_of

WHOLE_UP_TO_BYTES = 64 << 20
SAMPLE_BYTES = 1 << 20
SAMPLES = 64


@dataclass(kw_only=True)
class FindConfig:
    suffixes: list[str] = field(
        default_factory=lambda: ["mp4", "m4v", "mov", "mkv", "webm", "avi", "ts", "m2ts", "mts", "3gp"]
    )
    """Which file names to look into; all other files are counted as `other files` and left alone."""


@dataclass(frozen=True, slots=True)
class Found:
    """What lies in a folder: `videos` to work on, `failed` ones that cannot be read, `duplicates` by content."""

    videos: tuple[Video, ...] = ()
    failed: tuple[Video, ...] = ()
    duplicates: tuple[tuple[str, str], ...] = ()
    """file, and the file of the same content that stands for it"""
    other_files: int = 0


def find_videos(root: Path, cfg: FindConfig, skip: Path | None = None) -> Found:
    """The videos in and below `root` by path, each content once; not those in `skip` (the output) or made by us."""
    if not root.is_dir():
        raise ValueError(f"input={str(root)!r} is not a folder: set input= to the folder with the videos")
    videos: dict[str, Video] = {}
    unreadable, duplicates, others = [], [], 0
    for path in sorted(_files(root, skip)):
        if path.suffix.lower().lstrip(".") not in cfg.suffixes:
            others += 1
            continue
        name = readable(path.relative_to(root))
        try:
            digest, size = content_digest(path)
        except OSError as fault:
            unreadable.append(_unreadable(name, path, fault))
            continue
        video = Video(name, video_id_of(path.stem, digest), root=str(root), size_bytes=size)
        if digest in videos:
            duplicates.append((name, videos[digest].path))
        else:
            videos[digest] = video
    return Found(tuple(videos.values()), tuple(unreadable), tuple(duplicates), others)


def _unreadable(name: str, path: Path, fault: OSError) -> Video:
    finding = f"cannot be read ({os.strerror(fault.errno or 0)}): see to its rights, or take it out of input="
    return failed(Video(name, video_id_of(path.stem, digest_of(name.encode()))), "find", "unreadable", finding)


def content_digest(path: Path) -> tuple[str, int]:
    """Hash of size and content, and the size in bytes. Files above 64 MiB: 64 evenly spread MiB."""
    facts = path.stat()
    if not stat.S_ISREG(facts.st_mode):
        return digest_of(f"{path.name} is not a regular file".encode()), 0  # probe says so; opening a pipe would wait
    size = facts.st_size
    with path.open("rb") as file:
        if size <= WHOLE_UP_TO_BYTES:
            return digest_of(size.to_bytes(8, "big") + file.read()), size
        parts = []
        for k in range(SAMPLES):
            file.seek((size - SAMPLE_BYTES) * k // (SAMPLES - 1))
            parts.append(file.read(SAMPLE_BYTES))
    return digest_of(size.to_bytes(8, "big") + b"".join(parts)), size


MADE_BY_US = ("work/claim", "demo.json", "samples.json")
"""Files by which a folder shows that its videos were made here: a dataset, a demo, samples of a model."""


def _files(root: Path, skip: Path | None) -> Iterator[Path]:
    skip = skip.resolve() if skip else None
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".") and _is_footage(Path(folder) / name, skip)]
        yield from (Path(folder) / name for name in names if not name.startswith("."))


def _is_footage(folder: Path, skip: Path | None) -> bool:
    return folder.resolve() != skip and not any((folder / name).exists() for name in MADE_BY_US)
