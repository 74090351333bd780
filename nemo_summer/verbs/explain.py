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

TOLD = {"clip_id", "video", "start_s", "end_s", "status", "dropped_by", "why_dropped", "duplicate_of", "camera"}
TOLD |= {"caption_detailed", "caption_short", "caption_words", "frame_count", "height", "width", "latent_shape"}
TOLD |= {"split", "thumb", "shard", "source_fps", "source_height", "source_width"}
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
    about = read_json(dataset / "manifest.json") if (dataset / "manifest.json").is_file() else {}
    settings = about.get("settings", {})
    told = [
        ("from", f"{row['video']}, second {row['start_s']:.2f} to {row['end_s']:.2f}{_source_size(row)}"),
        ("footage", settings.get("input", "unknown")),
        *((name, _judged(name, row[name], settings)) for name in _scores(row)),
        *_fate(row),
        *(_place(dataset, row) if row["status"] == "kept" else []),
        ("made with", ", ".join(f"{name} {number}" for name, number in about.get("versions", {}).items())),
    ]
    return [row["clip_id"], *(f"  {name:14}{text}" for name, text in told if text)]


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
    begins = {known[: len(clip_id)]: known for known in ids}
    near = difflib.get_close_matches(clip_id, begins, n=1)
    hint = f": did you mean {begins[near[0]]}?" if near else ""
    raise ValueError(f"{dataset} has no clip {clip_id!r} among {len(ids)}{hint}")


def _scores(row: dict[str, Any]) -> list[str]:
    return [name for name, value in row.items() if name not in TOLD and isinstance(value, int | float | bool)]


def _source_size(row: dict[str, Any]) -> str:
    if not row.get("source_height"):
        return ""
    return f" ({row['source_height']}x{row['source_width']} pixels, {row['source_fps']:.4g} fps)"


def _judged(name: str, value: float, settings: dict[str, Any]) -> str:
    """The score and the limits that it was held against, as the manifest has them."""
    limits = settings.get("curate", {}).get("decide", {})
    text = "unknown" if isinstance(value, float) and math.isnan(value) else f"{value:.4g}"
    least, most = limits.get(f"{name}_min"), limits.get(f"{name}_max")
    told = [f"{word} {limit:g}" for word, limit in (("at least", least), ("at most", most)) if limit is not None]
    return f"{text:10}({' and '.join(told)} is kept)" if told else text


def _fate(row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "camera", row.get("camera") or ""
    for level in ("detailed", "short", "words"):
        yield level, row[f"caption_{level}"] or ""
    if row["status"] == "kept":
        yield "kept", "no rule turned it down"
    else:
        yield "dropped by", f"{row['dropped_by']}: {row['why_dropped'] or 'no reason was written'}"
    yield "kept instead", row.get("duplicate_of") or ""
    yield "picture", row.get("thumb") or ""


def _place(dataset: Path, row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Where the clip lies in the dataset."""
    from energon_datasets.shard_schema import INDEX_FILE, LATENT_STORE, TEXT_STORE, IndexRow

    yield "size", f"{row['frame_count']} frames of {row['height']}x{row['width']} pixels"
    yield "split", row["split"]
    with (dataset / INDEX_FILE).open(encoding="utf-8") as index:
        found = next((line for line in index if f'"{row["clip_id"]}"' in line), None)
    if found is None:
        yield "missing", f"it is not in {INDEX_FILE}: run summer curate again"
        return
    entry = IndexRow.from_json(found)
    yield "latents", f"{' x '.join(map(str, entry.latent_shape))}, {entry.tokens} tokens"
    yield "caption", ", ".join(f"{name} {count} tokens" for name, count in entry.text_tokens.items())
    for member, store in (("latent", LATENT_STORE), ("text", TEXT_STORE)):
        file = dataset / store / entry.shard
        yield f"{member} in", f"{file}{'' if file.is_file() else ' (gone)'}, sha256 {entry.sha256[member]}"
