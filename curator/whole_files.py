"""Files that are complete or absent: written under a temporary name, synced, then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

STOPS_THE_RUN = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
"""Faults of the disk that is written to, not of a video: the next record would fail as well."""


TEMPORARY = re.compile(r"\..+\.\d+(\.\w+)?", re.DOTALL)
"""Names that `whole_file` writes under: hidden, with the writer's process number before the suffix."""


class CannotWrite(ValueError):  # noqa: N818
    """The output cannot be written; the line names the path, the fault, and what to do."""


def disk_error_number(fault: Exception) -> int:
    """Which fault of the disk an exception tells of; 0 where it is about something else.

    Libraries written in Rust (safetensors) do not raise OSError but write its number into their message.
    """
    number = fault.errno if isinstance(fault, OSError) else None
    if number is None and (told := re.search(r"os error (\d+)", str(fault))):
        number = int(told[1])
    return number if number in STOPS_THE_RUN else 0


def cannot_write(path: Path | str, fault: Exception) -> CannotWrite:
    """The one line that a full or faulty disk is worth."""
    place = next((p for p in (Path(path), *Path(path).absolute().parents) if p.exists()), Path("/"))
    free_mb = shutil.disk_usage(place).free / 1e6
    reason = os.strerror(disk_error_number(fault))
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
    except CannotWrite:
        raise
    except Exception as fault:
        if disk_error_number(fault):
            raise cannot_write(path, fault) from fault
        raise
    finally:
        temporary.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Removes what a killed run left under temporary names in and below `folder`, which no one else may be using."""
    for place, _, names in os.walk(folder):
        for name in names:
            if TEMPORARY.fullmatch(name):
                Path(place, name).unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """`text` as the content of `path`, or `path` as it was."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
