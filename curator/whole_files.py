"""Files that are complete or absent: written under a temporary name, synced, then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

STOPS_THE_RUN = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
"""Faults of the disk, not of a video: the next record would fail as well."""


class CannotWrite(ValueError):  # noqa: N818
    """The output cannot be written; the line names the path, the fault, and what to do."""


def cannot_write(path: Path | str, fault: OSError) -> CannotWrite:
    """The one line that a full or faulty disk is worth."""
    place = next((p for p in (Path(path), *Path(path).absolute().parents) if p.exists()), Path("/"))
    free_mb = shutil.disk_usage(place).free / 1e6
    reason = os.strerror(fault.errno) if fault.errno else str(fault)
    return CannotWrite(
        f"cannot write {str(path)!r}: {reason} ({free_mb:.0f} MB free): make room or set out= to another disk; "
        "the same command goes on where this one stopped"
    )


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder that becomes `path` when the block ends well, and is removed otherwise.

    It keeps the suffix, since writers choose the format by it. `CannotWrite` where the disk refuses.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as fault:
        if fault.errno in STOPS_THE_RUN:
            raise cannot_write(path, fault) from fault
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """`text` as the content of `path`, or `path` as it was."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
