"""What a dataset holds, as a tree with counts: `python -m energon_datasets.show DIR`."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from statistics import median

from energon_datasets.columns import read_columns
from energon_datasets.lists import STAMP_FILE, members
from energon_datasets.shard_schema import (
    COLUMNS_FILE,
    INDEX_FILE,
    LATENT_STORE,
    TEXT_STORE,
    VIDEO_STORE,
    dataset_hash,
    read_dataset,
    read_index,
)


def tree(dataset: Path) -> list[str]:
    """The lines. ValueError where the folder is no dataset."""
    info = read_dataset(dataset)
    branches = [_columns(dataset), _index(dataset)]
    branches += [_store(dataset / store) for store in (LATENT_STORE, TEXT_STORE, VIDEO_STORE)]
    branches += [_view(stamp) for stamp in sorted((dataset / "views").glob(f"*/{STAMP_FILE}"))]
    lines = [f"{dataset}  format {info['format']}, content {dataset_hash(info)[:16]}, by {info.get('created_by')}"]
    lines += [f"├─ {branch}" for branch in branches[:-1]]
    return [*lines, f"└─ {branches[-1]}"]


def _columns(dataset: Path) -> str:
    rows = read_columns(dataset / COLUMNS_FILE).select(["status", "dropped_by"]).to_pylist()
    status = Counter(row["status"] for row in rows)
    rules = Counter(row["dropped_by"] for row in rows if row["status"] == "dropped")
    reasons = ", ".join(f"{rule} {count}" for rule, count in rules.most_common())
    dropped = f"{status['dropped']} dropped" + (f" ({reasons})" if reasons else "")
    return f"{COLUMNS_FILE}  {len(rows)} clips: {status['kept']} kept, {dropped}"


def _index(dataset: Path) -> str:
    rows = list(read_index(dataset))
    splits = Counter(row.split for row in rows)
    tokens = sorted(row.tokens for row in rows) or [0]
    seconds = sum(row.end_s - row.start_s for row in rows)
    counts = ", ".join(f"{count} {split}" for split, count in splits.items())
    spread = f"{tokens[0]} to {tokens[-1]} tokens, half below {median(tokens):g}"
    return f"{INDEX_FILE}  {len(rows)} clips ({counts}), {seconds:.0f} s of video, {spread}"


def _store(folder: Path) -> str:
    shards = sorted(folder.glob("*.tar"))
    found = [members(shard) for shard in shards]
    size = sum(shard.stat().st_size for shard in shards)
    return f"{folder.name}  {len(shards)} shards, {sum(map(len, found))} members, {size / 1e6:.1f} MB"


def _view(stamp: Path) -> str:
    saved = json.loads(stamp.read_text())
    counts = ", ".join(f"{count} {split}" for split, count in saved["lists"]["clips"].items())
    return f"views/{stamp.parent.name}  {saved['stamp']['where']}: {counts}"


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: python -m energon_datasets.show DIR", file=sys.stderr)
        return 2
    try:
        print("\n".join(tree(Path(arguments[0]))))
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
