"""The dataset folder: shards, index, columns, and last the file that says it is complete."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from curator.latent_files import latent_file
from curator.records import Clip
from curator.shards.tar import TarWriter, whole_tar
from curator.stage import GatherStage
from curator.whole_files import whole_file, write_whole
from energon_datasets import shard_schema as schema
from energon_datasets.columns import SCHEMA, write_columns
from nemo_summer.encoders.text import TextConfig, TextEncoder
from nemo_summer.shapes import LATENT_STRIDE

log = logging.getLogger(__name__)

CAPTIONS_AT_ONCE = 64
"""Clips whose captions are encoded together."""
STORES = (schema.LATENT_STORE, schema.TEXT_STORE, schema.VIDEO_STORE)
UNSEEN = ("frames", "embedding", "file", "video_id")
"""Fields of a clip that the columns do without."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the stores hold of one clip."""

    clip: Clip
    latent_shape: tuple[int, ...]
    latent: bytes
    text: bytes
    text_tokens: Mapping[str, int]
    video: bytes
    sidecar: bytes

    def members(self) -> dict[str, list[tuple[str, bytes]]]:
        """Store to the files in it."""
        key = self.clip.clip_id
        return {
            schema.LATENT_STORE: [(key + schema.LATENT, self.latent)],
            schema.TEXT_STORE: [(key + schema.TEXT, self.text)],
            schema.VIDEO_STORE: [(key + schema.VIDEO, self.video), (key + schema.SIDECAR, self.sidecar)],
        }


def captions_of(clip: Clip) -> dict[str, str]:
    """The three levels, the longest first."""
    return dict(zip(schema.LEVELS, (clip.caption_detailed, clip.caption_short, clip.caption_words)))


def encode_captions(encoder: TextEncoder, clips: Sequence[Clip]) -> list[dict[str, Tensor]]:
    """For each clip the embeddings [L, D] of its three captions and of the empty one."""
    texts = [text for clip in clips for text in captions_of(clip).values()]
    *encoded, empty = encoder.encode([*texts, ""])
    levels = len(schema.LEVELS)
    return [
        {**dict(zip(schema.LEVELS, encoded[i * levels : (i + 1) * levels])), schema.EMPTY: empty}
        for i in range(len(clips))
    ]


def read_parts(out: Path, encoder: TextEncoder, kept: Sequence[Clip]) -> Iterator[Parts]:
    """The clips' bytes, one after the other. ValueError that names the clip whose files are missing."""
    waiting = iter(kept)
    while clips := list(islice(waiting, CAPTIONS_AT_ONCE)):
        for clip, vectors in zip(clips, encode_captions(encoder, clips)):
            made = latent_file(out, clip.clip_id)
            latent = _read(made, clip, out)
            with safe_open(made, "pt") as tensors:
                shape = tuple(tensors.get_slice("latent").get_shape())
            yield Parts(
                clip=clip,
                latent_shape=shape,
                latent=latent,
                text=save({name: tensor.contiguous() for name, tensor in vectors.items()}),
                text_tokens={name: len(tensor) for name, tensor in vectors.items()},
                video=_read(out / clip.file, clip, out),
                sidecar=_json(_columns_of(clip)).encode(),
            )


def _read(file: Path, clip: Clip, out: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ValueError(
            f"{file} of clip {clip.clip_id} is gone ({error.strerror}): "
            f"delete {out / 'work'} and run the same command again"
        ) from error


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    raise TypeError(f"{type(value).__name__} does not fit into JSON: {value!r}")


def _columns_of(clip: Clip) -> dict[str, Any]:
    """Every field of the clip that a table can show, the fixed columns first."""
    values = {f.name: getattr(clip, f.name) for f in fields(clip) if f.name not in UNSEEN}
    values["status"] = clip.status.value
    values["split"] = "" if clip.dropped_by else clip.split
    values["latent_shape"] = list(clip.latent_shape) or None
    crop = values.pop("crop")
    values["crop"] = list(crop) if crop else None
    first = {name: values.pop(name) for name in SCHEMA.names if name in values}
    return first | values


def index_row(parts: Parts, shard: str, fps: float) -> schema.IndexRow:
    """What the loader knows of the clip before it reads it."""
    clip, shape = parts.clip, parts.latent_shape
    return schema.IndexRow(
        key=clip.clip_id,
        video=clip.video,
        start_s=clip.start_s,
        end_s=clip.end_s,
        split=clip.split,
        fps=fps,
        frames=(shape[1] - 1) * LATENT_STRIDE[0] + 1,
        latent_shape=shape,
        tokens=schema.count_tokens(shape),
        text_tokens=parts.text_tokens,
        shard=shard,
        sha256={"latent": _sha256(parts.latent), "text": _sha256(parts.text)},
        caption=captions_of(clip),
    )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass(kw_only=True)
class WriteShards(GatherStage):
    """Writes shards of video, latents and text, the index, the columns of all clips, and last `dataset.json`.

    Reads: all but frames
    Writes: nothing
    """

    name: str = "shards"
    out: str = ""
    """Output folder of the curation."""
    text: TextConfig = field(default_factory=TextConfig)
    """Which encoder makes the caption vectors."""
    fps: float = 24.0
    """Frame rate of the clips."""
    shard_mb: float = 512.0
    """A tar file above this is closed and the next begun, in all stores at once; one clip may be larger."""
    device: str = "cpu"
    """Where the text encoder runs."""

    def process_all(self, records: Sequence[Clip]) -> list[Clip]:
        out = Path(self.out)
        (out / schema.DATASET_FILE).unlink(missing_ok=True)  # from here on the folder is no dataset
        kept = sorted((clip for clip in records if clip.dropped_by is None), key=lambda clip: clip.clip_id)
        for clip in kept:
            schema.check_key(clip.clip_id)
        hashes: dict[str, str] = {}
        rows = self._write_stores(out, kept, hashes)
        _remove_stale(out, hashes)
        self._write_tables(out, records, rows, hashes)
        if rows:
            self._finish(out, hashes)
        else:
            log.warning("no clip was kept, so %s is no dataset: clips.parquet says why each was dropped", out)
        return list(records)

    def _write_stores(self, out: Path, kept: Sequence[Clip], hashes: dict[str, str]) -> list[schema.IndexRow]:
        rows: list[schema.IndexRow] = []
        encoder = self.text.build(device=self.device) if kept else None
        waiting = read_parts(out, encoder, kept)
        parts = next(waiting, None)
        number = 0
        while parts is not None:
            shard = schema.shard_name(number)
            with ExitStack() as open_tars:
                tars = {s: open_tars.enter_context(whole_tar(out / s / shard, hashes, f"{s}/{shard}")) for s in STORES}
                while parts is not None and self._has_room(tars, parts):
                    for store, members in parts.members().items():
                        for name, data in members:
                            tars[store].add(name, data)
                    rows.append(index_row(parts, shard, self.fps))
                    parts = next(waiting, None)
            number += 1
        return rows

    def _has_room(self, tars: Mapping[str, TarWriter], parts: Parts) -> bool:
        """Whether no tar grows above the limit, or this is its first clip."""
        sizes = {store: sum(len(data) for _, data in members) for store, members in parts.members().items()}
        return all(tar.size == 0 or tar.size + sizes[store] <= self.shard_mb * 1e6 for store, tar in tars.items())

    def _write_tables(
        self, out: Path, records: Sequence[Clip], rows: Sequence[schema.IndexRow], hashes: dict[str, str]
    ) -> None:
        index = "".join(row.to_json() + "\n" for row in rows)
        write_whole(out / schema.INDEX_FILE, index)
        hashes[schema.INDEX_FILE] = _sha256(index.encode())
        shard_of = {row.key: row for row in rows}
        columns = []
        for clip in sorted(records, key=lambda clip: clip.clip_id):
            row = shard_of.get(clip.clip_id)
            columns.append(_columns_of(clip) | {"shard": row.shard if row else None})
        with whole_file(out / schema.COLUMNS_FILE) as temporary:
            write_columns(columns, temporary)
        hashes[schema.COLUMNS_FILE] = _sha256((out / schema.COLUMNS_FILE).read_bytes())

    def _finish(self, out: Path, hashes: dict[str, str]) -> None:
        """`dataset.json`: with it the folder is a dataset."""
        codec = {f"{schema.CODEC_FOLDER}/{file.name}": file for file in (out / schema.CODEC_FOLDER).glob("*")}
        for name, file in codec.items():
            hashes[name] = _sha256(file.read_bytes())
        info = {
            "format": schema.FORMAT,
            "created_by": f"nemo-summer {_version()}",
            "codec": schema.CODEC_FOLDER,
            "text": asdict(self.text),
            "files": dict(sorted(hashes.items())),
        }
        write_whole(out / schema.DATASET_FILE, json.dumps(info, indent=2, default=_plain) + "\n")


def _version() -> str:
    from importlib.metadata import version

    return version("nemo-summer")


def _remove_stale(out: Path, hashes: Mapping[str, str]) -> None:
    """Shards of an earlier run that had more of them."""
    for store in STORES:
        for file in (out / store).glob("shard_*.tar"):
            if f"{store}/{file.name}" not in hashes:
                file.unlink()
