"""`summer explain CLIP_ID`: the story of one clip, from the file it was cut from to the shard it lies in."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_summer.verbs.run_folder import read_json

if TYPE_CHECKING:
    from nemo_summer.recipe import Recipe

TOLD = frozenset(
    [
        "clip_id",
        "video",
        "start_s",
        "end_s",
        "status",
        "dropped_by",
        "why_dropped",
        "duplicate_of",
        "caption_detailed",
        "caption_short",
        "caption_words",
        "frame_count",
        "height",
        "width",
        "latent_shape",
        "split",
        "thumb",
        "shard",
        "camera",
    ]
)
"""Columns that the story words itself; every other one is a score."""


def run(recipe: Recipe) -> int:
    """Prints the story."""
    if not recipe.clip_id:
        raise ValueError("which clip? summer explain CLIP_ID data=DATASET; ids are in clips.parquet and in the report")
    print("\n".join(story(Path(recipe.data.path), recipe.clip_id)))
    return 0


def story(dataset: Path, clip_id: str) -> list[str]:
    """The lines of the story. ValueError where there is no such dataset or clip."""
    row = find_clip(dataset, clip_id)
    lines = [
        f"{row['clip_id']}",
        f"  from      {row['video']}, second {row['start_s']:.2f} to {row['end_s']:.2f}",
        *_source_lines(dataset),
        *(f"  {name:9} {_number(row[name])}" for name in _scores(row)),
        *_fate_lines(row),
    ]
    return lines + (_shard_lines(dataset, row) if row["status"] == "kept" else [])


def find_clip(dataset: Path, clip_id: str) -> dict[str, Any]:
    """The clip's row of clips.parquet, by its id or the only one that begins so."""
    from energon_datasets.columns import read_columns
    from energon_datasets.shard_schema import COLUMNS_FILE

    file = dataset / COLUMNS_FILE
    if not file.is_file():
        raise ValueError(f"{dataset} is no dataset, it has no {COLUMNS_FILE}: set data=DIR as summer curate wrote it")
    table = read_columns(file)
    ids = table.column("clip_id").to_pylist()
    matches = [place for place, known in enumerate(ids) if known == clip_id] or [
        place for place, known in enumerate(ids) if known.startswith(clip_id)
    ]
    if len(matches) == 1:
        return table.slice(matches[0], 1).to_pylist()[0]
    if matches:
        some = ", ".join(ids[place] for place in matches[:3])
        raise ValueError(f"{len(matches)} clips begin with {clip_id!r}: {some}{', ...' if len(matches) > 3 else ''}")
    near = difflib.get_close_matches(clip_id, ids, n=1, cutoff=0.4)
    raise ValueError(
        f"{dataset} has no clip {clip_id!r} among {len(ids)}{f': did you mean {near[0]}?' if near else ''}"
    )


def _scores(row: dict[str, Any]) -> list[str]:
    return [name for name, value in row.items() if name not in TOLD and isinstance(value, int | float | bool)]


def _number(value: Any) -> str:
    return "unknown" if isinstance(value, float) and math.isnan(value) else f"{value:.4g}"


def _source_lines(dataset: Path) -> Iterator[str]:
    """What the manifest says about the run that made this dataset."""
    manifest = dataset / "manifest.json"
    if manifest.is_file():
        about = read_json(manifest)
        versions = ", ".join(f"{name} {number}" for name, number in about.get("versions", {}).items())
        yield f"  footage   {about.get('settings', {}).get('input', 'unknown')}"
        yield f"  made with {versions}"


def _fate_lines(row: dict[str, Any]) -> Iterator[str]:
    for level in ("detailed", "short", "words"):
        if row[f"caption_{level}"]:
            yield f"  {level:9} {row[f'caption_{level}']}"
    if row.get("camera"):
        yield f"  camera    {row['camera']}"
    if row["status"] == "kept":
        yield "  kept      no rule turned it down"
    else:
        yield f"  dropped   by {row['dropped_by']}: {row['why_dropped'] or 'no reason was written'}"
    if row.get("duplicate_of"):
        yield f"  kept instead of it: {row['duplicate_of']}"
    if row.get("thumb"):
        yield f"  picture   {row['thumb']}"


def _shard_lines(dataset: Path, row: dict[str, Any]) -> list[str]:
    from energon_datasets.shard_schema import INDEX_FILE, IndexRow

    shape = " x ".join(str(size) for size in row["latent_shape"] or ())
    lines = [
        f"  size      {row['frame_count']} frames of {row['height']}x{row['width']}, latents {shape}",
        f"  split     {row['split']}",
    ]
    with (dataset / INDEX_FILE).open(encoding="utf-8") as index:
        found = next((line for line in index if f'"{row["clip_id"]}"' in line), None)
    if found is None:
        return [*lines, f"  missing   it is not in {INDEX_FILE}: run summer curate again"]
    entry = IndexRow.from_json(found)
    lines += [f"  tokens    {entry.tokens} of video; caption {_counts(entry.text_tokens)}"]
    for store, digest in entry.sha256.items():
        file = dataset / {"latent": "latents"}.get(store, store) / entry.shard
        lines += [f"  {store:9} {file}{'' if file.is_file() else ' (gone)'}, sha256 {digest}"]
    return lines


def _counts(tokens: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in tokens.items())
