"""Names of files as text that fits into JSON and Parquet, and the way back."""

from __future__ import annotations

import os
from pathlib import Path


def readable(path: Path) -> str:
    """The path as text that fits into JSON and Parquet; a byte that is no UTF-8 is written `\\xNN`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def locate(root: str | Path, name: str) -> Path:
    """Where the file lies that `readable` wrote as `name`."""
    path = Path(root) / name
    if path.exists() or "\\x" not in name:
        return path
    encoded = name.encode("utf-8")
    raw = bytearray()
    while encoded:
        head, mark, encoded = encoded.partition(b"\\x")
        raw += head
        if mark:
            raw.append(int(encoded[:2], 16))
            encoded = encoded[2:]
    return Path(root) / os.fsdecode(bytes(raw))
