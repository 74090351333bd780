"""Tar files with the same bytes for the same content, hashed while they are written."""

from __future__ import annotations

import contextlib
import hashlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from curator.whole_files import whole_file


class TarWriter:
    """One shard under a temporary name. No dates, owners or rights of this machine get into it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._tar = tarfile.open(fileobj=self, mode="w|", format=tarfile.USTAR_FORMAT)  # noqa: SIM115 - `finish` closes
        self.size = 0
        """Bytes of all members so far."""

    def write(self, data: bytes) -> int:
        """For tarfile: its bytes pass by here."""
        self._digest.update(data)
        return self._file.write(data)

    def add(self, name: str, data: bytes) -> None:
        """Appends one member."""
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(data), 0o644
        self._tar.addfile(member, io.BytesIO(data))
        self.size += len(data)

    def finish(self) -> str:
        """Ends the archive; the sha256 of the whole file."""
        self._tar.close()
        return self._digest.hexdigest()


@contextlib.contextmanager
def whole_tar(path: Path, hashes: dict[str, str], name: str) -> Iterator[TarWriter]:
    """A shard that becomes `path` when the block ends well; its sha256 is then `hashes[name]`."""
    with whole_file(path) as temporary, temporary.open("wb") as file:
        writer = TarWriter(file)
        yield writer
        digest = writer.finish()
    hashes[name] = digest
