"""Small files that are whole or as they were: written under another name, flushed, renamed."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, content: str | bytes) -> Path:
    """Writes `content` to `path`, text as UTF-8; the folder is made where it is missing. Gives back `path`.

    Whenever the process is killed, `path` holds the new content, the old one, or nothing. OSError that names `path`
    where the disk is full (the system names no file when a write fails); what was half written is removed.
    """
    path = Path(path)
    waiting = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(waiting, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(waiting, path)
    except OSError as error:
        waiting.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None
    return path
