"""What is done already: one line per finished record, so that a killed run goes on where it stopped."""

from __future__ import annotations

import fcntl
import functools
import json
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path

from curator.latent_files import latent_file
from curator.records import Clip, Video, as_text, digest_of, from_text
from curator.stage import Outcome, Stage
from curator.whole_files import cannot_write, disk_error_number


class Journal:
    """The finished outcomes of one part of the way, in one file that only grows.

    A line is a digest and what it is the digest of. A line that a kill cut off does not fit its digest: it is taken
    away, and its record is done again. The file's name holds a fingerprint of everything that the outcomes depend on
    besides the record itself, so other settings begin another journal.
    """

    def __init__(self, folder: Path, part: str, fingerprint: str) -> None:
        self.path = folder / f"{part}-{fingerprint[:16]}.jsonl"
        self.lines: dict[str, str] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self._read()

    def _read(self) -> None:
        if not self.path.exists():
            return
        good_bytes = 0
        with self.path.open("rb") as file:
            for line in file:
                digest, _, text = line.rstrip(b"\n").partition(b" ")
                if not line.endswith(b"\n") or digest_of(text).encode() != digest:
                    break
                self.lines[json.loads(text)["key"]] = text.decode()
                good_bytes += len(line)
        if good_bytes < self.path.stat().st_size:
            os.truncate(self.path, good_bytes)

    def of(self, record: Video | Clip, out: Path) -> Outcome | None:
        """What became of `record` last time; `None` where it was not finished, or a file it made is gone from `out`."""
        text = self.lines.get(key_of(record))
        if text is None:
            return None
        entry = json.loads(text)
        records = tuple(from_text(item) for item in entry["records"])
        if not all(file.exists() for r in records if isinstance(r, Clip) for file in files_of(r, out)):
            return None
        return Outcome(source=record, records=records, seconds=entry["seconds"])

    def add(self, outcome: Outcome) -> None:
        """Writes the outcome down; when this returns it survives a kill and a power cut."""
        records = [as_text(record) for record in outcome.records]
        entry = {"key": key_of(outcome.source), "records": records, "seconds": outcome.seconds}
        text = json.dumps(entry)
        line = f"{digest_of(text.encode())} {text}\n".encode()
        size = self.path.stat().st_size if self.path.exists() else 0
        try:
            with self.path.open("ab", buffering=0) as file:
                file.write(line)
                os.fsync(file.fileno())
        except OSError as fault:
            if self.path.exists():
                os.truncate(self.path, size)
            raise (cannot_write(self.path, fault) if disk_error_number(fault) else fault) from fault
        self.lines[entry["key"]] = text


def files_of(clip: Clip, out: Path) -> list[Path]:
    """The files that the stages made for a clip."""
    latents = [latent_file(out, clip.clip_id)] if clip.latent_shape else []
    return [out / name for name in (clip.file, clip.thumb) if name] + latents


def key_of(record: Video | Clip) -> str:
    """Digest of the record as it comes in: another content, name or earlier result is another key."""
    if isinstance(record, Video):
        record = replace(record, root="")  # the same folder mounted elsewhere is the same
    return digest_of(as_text(record).encode())


PLACES = ("root", "out", "resources", "batch_size")
"""Fields of a stage that say where and how it works, not what comes out."""


def fingerprint_of(stages: Sequence[Stage], *digests: str) -> str:
    """One digest over the stages' settings, the curator's program and `digests`: if one of them changes, it does."""
    settings = [
        [repr(getattr(stage, f.name)) for f in fields(stage) if f.init and f.name not in PLACES] for stage in stages
    ]
    return digest_of(json.dumps([settings, program_digest(), *digests]).encode())


@functools.cache
def program_digest() -> str:
    """Digest of this package's source: results of another version are not taken for this one's."""
    files = sorted(Path(__file__).parent.rglob("*.py"))
    return digest_of(b"".join(file.read_bytes() for file in files))


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Holds the output folder for this process. `ValueError` where another one works in it.

    The operating system lets go of the claim when its process ends, however it ends, so none is ever stale.
    """
    folder = out / "work"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        reason = os.strerror(fault.errno or 0)
        raise ValueError(f"{str(out)!r} cannot be made a folder ({reason}): set out= to another place") from fault
    with (folder / "claim").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as fault:
            file.seek(0)
            raise ValueError(
                f"{str(out)!r} is in use by {file.read().strip() or 'another run'}: wait for it, or set another out="
            ) from fault
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
