"""A small dataset as the curator would write it, of random latents: `write_tiny_dataset(folder)`."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import safetensors.torch
import torch

from energon_datasets.columns import write_columns
from energon_datasets.shard_schema import (
    FORMAT,
    LATENT,
    LEVELS,
    TEXT,
    VIDEO,
    IndexRow,
    count_tokens,
    shard_name,
)

CAMERAS = ("still", "pan left", "zoom in")


def write_tiny_dataset(
    folder: Path,
    clips: int = 24,
    seed: int = 0,
    *,
    channels: int = 48,
    height: int = 2,
    width: int = 3,
    frames: tuple[int, int] = (1, 9),
    val: int = 4,
    dropped: int = 3,
    shards: int = 3,
    text_width: int = 8,
) -> list[IndexRow]:
    """Rows of the kept clips, the last `val` of them for validation. `frames` are latent frames, least and most;
    a clip of 9 latent frames of 2 x 3 has 30 tokens. `dropped` clips more are in the columns alone."""
    rng = torch.Generator().manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    stores = {store: [[] for _ in range(shards)] for store in ("latents", "text", "video")}
    rows, columns = [], []
    for i in range(clips):
        key = f"clip_{i:04d}-{seed}"
        T = int(torch.randint(frames[0], frames[1] + 1, (), generator=rng))
        latent = {"latent": torch.randn(channels, T, height, width, generator=rng)}
        lengths = {"detailed": 6 + i % 3, "short": 4, "words": 3, "empty": 1}
        text = {name: torch.randn(n, text_width, generator=rng) for name, n in lengths.items()}
        parts = {LATENT: safetensors.torch.save(latent), TEXT: safetensors.torch.save(text)}
        row = IndexRow(
            key=key,
            video=f"video_{i // 4}.mp4",
            start_s=3.0 * i,
            end_s=3.0 * i + T / 6,
            split="val" if i >= clips - val else "train",
            fps=24.0,
            frames=4 * (T - 1) + 1,
            latent_shape=(channels, T, height, width),
            tokens=count_tokens((channels, T, height, width)),
            text_tokens=lengths,
            shard=shard_name(i * shards // clips),
            sha256={"latent": _sha(parts[LATENT]), "text": _sha(parts[TEXT])},
            caption={level: f"a {level} caption of clip {i}" for level in LEVELS},
        )
        stores["latents"][i * shards // clips].append((key + LATENT, parts[LATENT]))
        stores["text"][i * shards // clips].append((key + TEXT, parts[TEXT]))
        stores["video"][i * shards // clips].append((key + VIDEO, f"not really an mp4 {i}".encode() * 20))
        rows.append(row)
        columns.append(_columns(row, i))
    columns += [_dropped(f"dropped_{i:04d}-{seed}") for i in range(dropped)]
    write_columns(columns, folder / "clips.parquet")
    _write_index(folder, rows)
    for store, parts_of in stores.items():
        for number, members in enumerate(parts_of):
            write_tar(folder / store / shard_name(number), members)
    _write_thumbs(folder, [column["clip_id"] for column in columns])
    finish(folder)
    return rows


def finish(folder: Path) -> None:
    """Writes dataset.json over what lies in the folder."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and "views" not in p.parts and p.name != "dataset.json")
    files = {str(path.relative_to(folder)): _sha(path.read_bytes()) for path in paths}
    info = {"format": FORMAT, "created_by": "tiny", "codec": "codec", "text": {"width": 8}, "files": files}
    (folder / "dataset.json").write_text(json.dumps(info))


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def _columns(row: IndexRow, i: int) -> dict:
    return {
        "clip_id": row.key,
        "video": row.video,
        "start_s": row.start_s,
        "end_s": row.end_s,
        "status": "kept",
        "motion": None if i % 7 == 6 else float(i % 6),
        "static_share": 0.1 * (i % 5),
        "sharpness": 10.0 + i,
        "camera": CAMERAS[i % 3],
        **{f"caption_{level}": row.caption[level] for level in LEVELS},
        "frame_count": row.frames,
        "height": 16 * row.latent_shape[2],
        "width": 16 * row.latent_shape[3],
        "latent_shape": list(row.latent_shape),
        "split": row.split,
        "thumb": f"thumbs/{row.key}.jpg",
        "shard": row.shard,
    }


def _dropped(key: str) -> dict:
    why = "motion 0.1 is below 0.5: set curate.motion.minimum lower to keep it"
    return {"clip_id": key, "video": "video_0.mp4", "start_s": 0.0, "end_s": 1.0, "status": "dropped"} | {
        "dropped_by": "motion",
        "why_dropped": why,
        "motion": 0.1,
        "thumb": f"thumbs/{key}.jpg",
    }


def _write_index(folder: Path, rows: list[IndexRow]) -> None:
    (folder / "index").mkdir(exist_ok=True)
    (folder / "index" / "clips.jsonl").write_text("".join(row.to_json() + "\n" for row in rows))


def _write_thumbs(folder: Path, keys: list[str]) -> None:
    (folder / "thumbs").mkdir(exist_ok=True)
    for key in keys:
        (folder / "thumbs" / f"{key}.jpg").write_bytes(b"\xff\xd8 not really a picture \xff\xd9")


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
