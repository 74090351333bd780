"""One dataset on disk: where things lie, one line of the index, what every reader may rely on (standard library only).

DIR/dataset.json              written last: a folder without it is not a dataset yet
DIR/index/clips.jsonl         one line per kept clip, `IndexRow`
DIR/latents/shard_000000.tar  {key}.latent.safetensors   tensor "latent" [C, T, H, W]
DIR/text/shard_000000.tar     {key}.text.safetensors     tensors "detailed", "short", "words", "empty" [L, D]
DIR/video/shard_000000.tar    {key}.mp4 and {key}.json
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

FORMAT = 1
"""Version of this layout; a reader refuses a newer one."""

LATENT = ".latent.safetensors"
TEXT = ".text.safetensors"
VIDEO = ".mp4"
SIDECAR = ".json"

DATASET_FILE = "dataset.json"
INDEX_FILE = "index/clips.jsonl"
COLUMNS_FILE = "clips.parquet"
LATENT_STORE = "latents"
TEXT_STORE = "text"
VIDEO_STORE = "video"
CODEC_FOLDER = "codec"

LEVELS = ("detailed", "short", "words")
"""Caption levels, the longest first."""
EMPTY = "empty"
"""Name of the embedding of "": what stands in for a caption that was dropped out."""
SPLITS = ("train", "val")
PATCH = (2, 1, 1)
"""Latents per token along time, rows, columns."""

_KEY = re.compile(r"[a-z0-9_-]{1,80}")


def check_key(key: str) -> str:
    """`key` itself. ValueError unless it is 1 to 80 characters of `a-z 0-9 _ -`: no dot, so that a suffix starts at the
    first dot, and no slash, so that it names no folder."""
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise ValueError(f"{key!r} is no clip key: 1 to 80 characters of a-z, 0-9, _ and - are wanted")
    return key


def shard_name(number: int) -> str:
    return f"shard_{number:06d}.tar"


def token_grid(latent_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Tokens along time, rows, columns of latents [C, T, H, W]; an odd T counts as one frame more."""
    if len(latent_shape) != 4 or min(latent_shape) < 1:
        raise ValueError(f"latents of shape {tuple(latent_shape)} are not [C, T, H, W] with at least one entry each")
    _, t, h, w = latent_shape
    return -(-t // PATCH[0]), -(-h // PATCH[1]), -(-w // PATCH[2])


def count_tokens(latent_shape: tuple[int, ...]) -> int:
    """Tokens of one clip."""
    t, h, w = token_grid(latent_shape)
    return t * h * w


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexRow:
    """One kept clip as the loader knows it before it reads any latents. Checks itself."""

    key: str
    video: str
    """Source file, relative to the footage folder."""
    start_s: float
    end_s: float
    split: str
    fps: float
    frames: int
    """Pixel frames, `4 n + 1`."""
    latent_shape: tuple[int, int, int, int]
    tokens: int
    text_tokens: Mapping[str, int]
    """Tokens of "detailed", "short", "words" and "empty"."""
    shard: str
    """File name of the tar in each store."""
    sha256: Mapping[str, str]
    """Of the bytes of the members: "latent" and "text"."""
    caption: Mapping[str, str]
    """Text of "detailed", "short", "words"."""

    def __post_init__(self) -> None:
        check_key(self.key)
        object.__setattr__(self, "latent_shape", tuple(self.latent_shape))
        if self.tokens != count_tokens(self.latent_shape):
            raise ValueError(
                f"clip {self.key} says {self.tokens} tokens, its latents {self.latent_shape} "
                f"make {count_tokens(self.latent_shape)}"
            )
        if self.split not in SPLITS:
            raise ValueError(f"clip {self.key} is in split {self.split!r}: one of {', '.join(SPLITS)} is wanted")
        _check_names(self.key, "text_tokens", self.text_tokens, (*LEVELS, EMPTY))
        _check_names(self.key, "caption", self.caption, LEVELS)
        _check_names(self.key, "sha256", self.sha256, ("latent", "text"))
        if min(self.text_tokens.values()) < 1:
            raise ValueError(f"clip {self.key} has a caption of no token: {dict(self.text_tokens)}")
        if not re.fullmatch(r"[A-Za-z0-9_-]+\.tar", self.shard):
            raise ValueError(f"clip {self.key} lies in {self.shard!r}: the name of a tar file is wanted")

    def to_json(self) -> str:
        """One line, keys in the order of the fields."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> IndexRow:
        """ValueError that says what is wrong with the line."""
        try:
            raw = json.loads(line)
        except ValueError as error:
            raise ValueError(f"not a line of JSON ({error}): {line[:80]!r}") from None
        return cls.from_dict(raw)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> IndexRow:
        """Unknown fields are let pass, so that a newer curator may add some."""
        names = [f.name for f in fields(cls)]
        missing = [name for name in names if not isinstance(raw, dict) or name not in raw]
        if missing:
            raise ValueError(f"a line of the index lacks {', '.join(missing)}: {str(raw)[:80]}")
        return cls(**{name: raw[name] for name in names})


def _check_names(key: str, field: str, found: Mapping[str, Any], wanted: tuple[str, ...]) -> None:
    if set(found) != set(wanted):
        raise ValueError(f"clip {key} has {sorted(found)} in {field}: {sorted(wanted)} is wanted")


def read_index(dataset: Path) -> Iterator[IndexRow]:
    """Rows of the index, in its order. ValueError with the line number for a bad line or a key that comes twice."""
    seen: set[str] = set()
    with (dataset / INDEX_FILE).open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = IndexRow.from_json(line)
            except (ValueError, TypeError, AttributeError) as error:
                raise ValueError(f"{dataset / INDEX_FILE} line {number}: {error}") from None
            if row.key in seen:
                raise ValueError(f"{dataset / INDEX_FILE} line {number}: clip {row.key} is there a second time")
            seen.add(row.key)
            yield row


def read_dataset(dataset: Path) -> dict[str, Any]:
    """Content of dataset.json. ValueError where the folder is no finished dataset or of a newer format."""
    file = dataset / DATASET_FILE
    if not dataset.is_dir():
        raise ValueError(f"there is no folder {dataset}: set data.path to what `summer curate out=DIR` wrote")
    if not file.is_file():
        raise ValueError(
            f"{dataset} has no {DATASET_FILE}, so it is no finished dataset: run `summer curate out={dataset}`"
        )
    try:
        info = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is no JSON ({error}): run `summer curate out={dataset}` again") from None
    if not isinstance(info, dict) or info.get("format") != FORMAT:
        found = info.get("format") if isinstance(info, dict) else type(info).__name__
        raise ValueError(f"{file} is of format {found}, this version reads format {FORMAT}")
    return info


def dataset_hash(info: Mapping[str, Any]) -> str:
    """sha256 over the hashes of all files, the codec and the text settings: equal for equal content in any place."""
    content = {name: info.get(name) for name in ("format", "codec", "text", "files")}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
