"""Feature columns of all clips, dropped ones too: one Parquet file beside the shards, joined to them by `clip_id`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("video", pa.string()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("status", pa.string()),
        ("dropped_by", pa.string()),
        ("why_dropped", pa.string()),
        ("duplicate_of", pa.string()),
        ("motion", pa.float64()),
        ("static_share", pa.float64()),
        ("sharpness", pa.float64()),
        ("brightness", pa.float64()),
        ("contrast", pa.float64()),
        ("camera", pa.string()),
        ("caption_detailed", pa.string()),
        ("caption_short", pa.string()),
        ("caption_words", pa.string()),
        ("frame_count", pa.int64()),
        ("height", pa.int64()),
        ("width", pa.int64()),
        ("latent_shape", pa.list_(pa.int64())),
        ("split", pa.string()),
        ("thumb", pa.string()),
        ("shard", pa.string()),
    ]
)
"""These names and types stay; more scores come after them."""


def write_columns(rows: Iterable[Mapping[str, Any]], path: Path | str) -> None:
    """One row per clip, whole or not at all: a temporary file, flushed, then renamed.

    A column that a row lacks is null; columns beyond the schema keep the type that pyarrow finds for them.
    """
    path = Path(path)
    listed = [dict(row) for row in rows]
    extra = list(dict.fromkeys(name for row in listed for name in row if name not in SCHEMA.names))
    columns = {f.name: pa.array([row.get(f.name) for row in listed], type=f.type) for f in SCHEMA}
    columns |= {name: pa.array([row.get(name) for row in listed]) for name in extra}
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as file:
        pq.write_table(pa.table(columns), file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_columns(path: Path | str) -> pa.Table:
    """The table. ValueError where it is not Parquet or lacks one of the columns that stay."""
    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is no Parquet file: {str(error).splitlines()[0]}") from None
    missing = [name for name in SCHEMA.names if name not in table.column_names]
    if missing:
        raise ValueError(f"{path} lacks the columns {', '.join(missing)}: write it with `summer curate`")
    return table
