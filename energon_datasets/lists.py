"""The lists that the loader reads: one file per split of a View, `DIR/views/<view id>/train.jsonl`, with the index file
that Energon wants beside it. A list names each clip with its row of the index and the place of its bytes.

Everything here can be made again from the dataset; a folder of lists is whole or is written anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import struct
import tarfile
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from energon_datasets.columns import read_columns
from energon_datasets.cook import ListedClip, Span
from energon_datasets.shard_schema import (
    COLUMNS_FILE,
    DATASET_FILE,
    INDEX_FILE,
    LATENT,
    LATENT_STORE,
    SPLITS,
    TEXT,
    TEXT_STORE,
    IndexRow,
    dataset_hash,
    read_dataset,
    read_index,
)
from energon_datasets.view import View

log = logging.getLogger(__name__)

LIST_FORMAT = 1
STAMP_FILE = "lists.json"
"""Written last: what the lists were made from."""


@dataclass(frozen=True)
class Lists:
    """The lists of one View. `total = filtered + too_long + clips` in both splits together."""

    folder: Path
    dataset: str
    """`dataset_hash`"""
    view: str
    """`View.id`"""
    clips: dict[str, int]
    """Listed clips of each split."""
    content: dict[str, str]
    """sha256 over keys and hashes of the clips of each split, in order: where the bytes lie does not enter."""
    total: int
    filtered: int
    too_long: int
    longest: tuple[str, int]
    """The longest clip of the View and its tokens."""

    def path(self, split: str) -> Path:
        return (self.folder / f"{split}.jsonl").absolute()


def prepare(dataset: Path, where: str = "", longest: int | None = None, folder: Path | None = None) -> Lists:
    """The lists of the View `where`, made now or found as made before from the same files.

    Clips of more than `longest` tokens are left out and counted in `too_long`. `folder` is where lists are kept,
    `dataset/views` by default: the only place below the dataset that is ever written. ValueError where the dataset is
    not whole, or the condition wrong.
    """
    info, view = read_dataset(dataset), View(where)
    name = view.id[:16] + (f"-upto-{longest}" if longest else "")
    place = (folder or dataset / "views") / name
    stamp = _stamp(dataset, info, view, longest)
    found = _read_lists(place, stamp)
    return found or _write_lists(dataset, view, longest, place, stamp)


def read_list(path: Path) -> list[ListedClip]:
    """The clips of one list, in its order."""
    with path.open(encoding="utf-8") as lines:
        return [ListedClip.from_dict(json.loads(line)) for line in lines]


def _stamp(dataset: Path, info: dict[str, Any], view: View, longest: int | None) -> dict[str, Any]:
    """What the lists depend on. Size and time of the files stand for their content: reading them all takes too long."""
    shards = sorted(path for store in (LATENT_STORE, TEXT_STORE) for path in (dataset / store).glob("*.tar"))
    files = [dataset / DATASET_FILE, dataset / INDEX_FILE, dataset / COLUMNS_FILE, *shards]
    state = [(str(p.relative_to(dataset)), (s := p.stat()).st_size, s.st_mtime_ns) for p in files if p.exists()]
    return {
        "format": LIST_FORMAT,
        "dataset": dataset_hash(info),
        "view": view.id,
        "where": view.canonical,
        "longest": longest,
        "files": hashlib.sha256(json.dumps(state).encode()).hexdigest(),
    }


def _read_lists(place: Path, stamp: dict[str, Any]) -> Lists | None:
    """What was made before; None where it is missing, unfinished or of other files."""
    try:
        saved = json.loads((place / STAMP_FILE).read_text())
        if saved["stamp"] != stamp:
            return None
        for split in SPLITS:
            path, index = place / f"{split}.jsonl", place / f"{split}.jsonl.idx"
            if index.stat().st_size != 8 * (saved["lists"]["clips"][split] + 1):
                return None
            if struct.unpack("<Q", index.read_bytes()[-8:])[0] != path.stat().st_size:
                return None
    except (OSError, ValueError, KeyError):
        return None
    return Lists(folder=place, **{**saved["lists"], "longest": tuple(saved["lists"]["longest"])})


def _write_lists(dataset: Path, view: View, longest: int | None, place: Path, stamp: dict[str, Any]) -> Lists:
    rows = {row.key: row for row in read_index(dataset)}
    keys = _keys_in_index(dataset, view, rows)
    chosen = [rows[key] for key in keys]
    fitting = [row for row in chosen if not longest or row.tokens <= longest]
    longest_row = max(chosen, key=lambda row: row.tokens, default=None)
    spans = _spans(dataset, {row.shard for row in fitting})
    content, clips = {}, {}
    try:
        place.mkdir(parents=True, exist_ok=True)
        for split in SPLITS:
            # In the order of a hash, so that every worker's part is a fair sample of all videos.
            part = sorted((row for row in fitting if row.split == split), key=lambda row: _order(row.key))
            listed = [_listed(row, spans) for row in part]
            _write_with_index(place / f"{split}.jsonl", (clip.to_json() for clip in listed))
            content[split] = _content_hash(part)
            clips[split] = len(part)
        lists = Lists(
            folder=place,
            dataset=stamp["dataset"],
            view=view.id,
            clips=clips,
            content=content,
            total=len(rows),
            filtered=len(rows) - len(chosen),
            too_long=len(chosen) - len(fitting),
            longest=(longest_row.key, longest_row.tokens) if longest_row else ("", 0),
        )
        saved = {name: value for name, value in asdict(lists).items() if name != "folder"}
        _write(place / STAMP_FILE, json.dumps({"stamp": stamp, "lists": saved}, indent=1).encode())
    except OSError as error:
        fix = "set data.lists=FOLDER to another place"
        raise ValueError(f"the lists of {dataset} cannot be written: {error}: {fix}") from None
    return lists


def _keys_in_index(dataset: Path, view: View, rows: dict[str, IndexRow]) -> list[str]:
    table = read_columns(dataset / COLUMNS_FILE)
    keys = view.keys(table)
    missing = [key for key in keys if key not in rows]
    if missing:
        raise ValueError(
            f"{len(missing)} clips are kept in {dataset / COLUMNS_FILE} but not in {INDEX_FILE}, such as {missing[0]}: "
            f"run `summer curate out={dataset}` again"
        )
    return keys


def _order(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=8).digest()


def _content_hash(rows: Iterable[IndexRow]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(f"{row.key} {row.sha256['latent']} {row.sha256['text']} {row.latent_shape}\n".encode())
    return digest.hexdigest()


Spans = dict[str, dict[str, dict[str, Span]]]


def _spans(dataset: Path, shards: Iterable[str]) -> Spans:
    """Store, shard and member name to place, by the headers of the tar files alone."""
    spans: Spans = defaultdict(dict)
    for store in (LATENT_STORE, TEXT_STORE):
        for shard in sorted(shards):
            spans[store][shard] = members(dataset / store / shard)
    return spans


def members(tar: Path) -> dict[str, Span]:
    """Files in a tar file and where they lie. Of a file that is missing or cut off: those before the damage, with a
    line in the log."""
    found: dict[str, Span] = {}
    try:
        with tarfile.open(tar, "r:") as archive:
            for member in archive:
                if member.isfile():
                    found[member.name] = Span(member.offset_data, member.size)
    except (OSError, tarfile.TarError) as error:
        log.warning("%s/%s is damaged after %d members (%s)", tar.parent.name, tar.name, len(found), error)
    return found


def _listed(row: IndexRow, spans: Spans) -> ListedClip:
    latent = spans[LATENT_STORE][row.shard].get(row.key + LATENT)
    return ListedClip(row, latent, spans[TEXT_STORE][row.shard].get(row.key + TEXT))


def _write_with_index(path: Path, lines: Iterable[str]) -> None:
    """The lines, and beside them where each begins and the last ends, as 64-bit numbers (Energon's `.jsonl.idx`)."""
    encoded = [line.encode() + b"\n" for line in lines]
    ends = [0]
    for line in encoded:
        ends.append(ends[-1] + len(line))
    _write(path, b"".join(encoded))
    _write(path.with_name(path.name + ".idx"), struct.pack(f"<{len(ends)}Q", *ends))


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all; several ranks may write the same content at once."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
