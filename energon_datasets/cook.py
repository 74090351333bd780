"""From a line of the training list to an encoded clip: where its bytes lie, what is drawn for it, and the reading.

S tokens of the clip, E numbers per token, L caption tokens, D numbers per caption token.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from energon_datasets.shard_schema import (
    EMPTY,
    LATENT,
    LATENT_STORE,
    LEVELS,
    TEXT,
    TEXT_STORE,
    IndexRow,
    token_grid,
)
from energon_datasets.tokens import patchify, positions


class ClipError(ValueError):
    """One clip cannot be read: says which, where, and what was found."""


@dataclass(frozen=True, slots=True)
class Span:
    """Where the bytes of a member lie in its tar file."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class ListedClip:
    """One line of a training list: the row of the index, and where its two members lie (None: not in the tar)."""

    row: IndexRow
    latent: Span | None
    text: Span | None

    def to_json(self) -> str:
        spans = {name: None if span is None else [span.offset, span.size] for name, span in self._spans()}
        return json.dumps({"row": asdict(self.row), **spans}, ensure_ascii=False)

    def _spans(self) -> list[tuple[str, Span | None]]:
        return [("latent", self.latent), ("text", self.text)]

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> ListedClip:
        latent, text = (None if raw[name] is None else Span(*raw[name]) for name in ("latent", "text"))
        return cls(IndexRow.from_dict(raw["row"]), latent, text)


@dataclass(frozen=True, slots=True)
class Draw:
    """What chance decides about one visit to a clip."""

    uniform: float
    """From [0, 1): training makes the noise level of it."""
    seed: int
    """Of the noise; from [0, 2^63)."""
    caption: str
    """Which caption embedding: a level, or "empty"."""


@dataclass(frozen=True, slots=True)
class EncodedClip:
    """A clip as the model sees it."""

    key: str
    latents_SE: Tensor
    position_S3: Tensor
    text_LD: Tensor
    grid: tuple[int, int, int]
    latent_frames: int
    fps: float
    uniform: float
    seed: int


def draw_for(seed: int, key: str, visit: int | str, shares: Mapping[str, float], text_dropout: float) -> Draw:
    """The draw of a visit, from a hash of run seed, clip and visit: the same on every machine, for every number of
    ranks and workers, and after every restart."""
    digest = hashlib.blake2b(f"{seed}/{key}/{visit}".encode(), digest_size=32).digest()
    words = [int.from_bytes(digest[i : i + 8]) for i in range(0, 32, 8)]
    uniform, level, dropped = ((word >> 11) / 2**53 for word in (words[0], *words[2:]))
    caption = EMPTY if dropped < text_dropout else _level(level, shares)
    return Draw(uniform=uniform, seed=words[1] >> 1, caption=caption)


def _level(chance: float, shares: Mapping[str, float]) -> str:
    """The level on whose part of [0, 1) `chance` falls, when the levels lie there side by side by their shares."""
    left = chance * sum(shares.values())
    for level in LEVELS:
        left -= shares[level]
        if left < 0:
            return level
    return next(level for level in reversed(LEVELS) if shares[level] > 0)


class ShardReader:
    """Bytes of the members of a dataset's tar files. Keeps files open, at most `most_open`; safe after a fork, since it
    never moves a shared file position."""

    def __init__(self, dataset: Path, most_open: int = 64) -> None:
        self.dataset = dataset
        self.most_open = most_open
        self._files: OrderedDict[str, int] = OrderedDict()

    def read(self, store: str, shard: str, member: str, span: Span | None) -> bytes:
        """ClipError where the shard or the member is missing or cut off."""
        name = f"{store}/{shard}"
        if span is None:
            raise ClipError(f"{member} is not in {name}")
        try:
            data = os.pread(self._file(name), span.size, span.offset)
        except OSError as error:
            self._close(name)
            raise ClipError(f"{member}: {name} cannot be read ({error.strerror or error})") from None
        if len(data) < span.size:
            raise ClipError(f"{member}: {name} ends after {len(data)} of its {span.size} bytes")
        return data

    def _file(self, name: str) -> int:
        if name not in self._files:
            if len(self._files) >= self.most_open:
                os.close(self._files.popitem(last=False)[1])
            self._files[name] = os.open(self.dataset / name, os.O_RDONLY | os.O_CLOEXEC)
        self._files.move_to_end(name)
        return self._files[name]

    def _close(self, name: str) -> None:
        if name in self._files:
            os.close(self._files.pop(name))

    def close(self) -> None:
        for name in list(self._files):
            self._close(name)


def read_clip(reader: ShardReader, clip: ListedClip, draw: Draw) -> EncodedClip:
    """The clip with the caption that was drawn. ClipError where bytes, shape or hash are not what the index
    says, or a number is not finite: it would spoil the step of every rank."""
    row = clip.row
    z_CTHW = _tensors(reader, LATENT_STORE, row, row.key + LATENT, clip.latent, row.sha256["latent"]).get("latent")
    if z_CTHW is None or tuple(z_CTHW.shape) != row.latent_shape or not z_CTHW.is_floating_point():
        found = "no tensor `latent`" if z_CTHW is None else f"{z_CTHW.dtype} {tuple(z_CTHW.shape)}"
        raise ClipError(f"{row.key}{LATENT} holds {found}, the index says {row.latent_shape}")
    text_LD = _tensors(reader, TEXT_STORE, row, row.key + TEXT, clip.text, row.sha256["text"]).get(draw.caption)
    wanted = row.text_tokens[draw.caption]
    if text_LD is None or text_LD.ndim != 2 or len(text_LD) != wanted:
        found = f"no tensor `{draw.caption}`" if text_LD is None else f"{tuple(text_LD.shape)} as `{draw.caption}`"
        raise ClipError(f"{row.key}{TEXT} holds {found}, the index says {wanted} tokens")
    for member, tensor in ((LATENT, z_CTHW), (TEXT, text_LD)):
        if not bool(torch.isfinite(tensor).all()):
            raise ClipError(f"{row.key}{member} of {row.shard} holds numbers that are not finite")
    grid = token_grid(row.latent_shape)
    return EncodedClip(
        key=row.key,
        latents_SE=patchify(z_CTHW),
        position_S3=positions(grid),
        text_LD=text_LD,
        grid=grid,
        latent_frames=row.latent_shape[1],
        fps=row.fps,
        uniform=draw.uniform,
        seed=draw.seed,
    )


def _tensors(
    reader: ShardReader, store: str, row: IndexRow, member: str, span: Span | None, sha256: str
) -> dict[str, torch.Tensor]:
    data = reader.read(store, row.shard, member, span)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ClipError(f"{member} in {store}/{row.shard} is not what was written: its sha256 differs from the index")
    try:
        return safetensors.torch.load(data)
    except SafetensorError as error:
        raise ClipError(f"{member} in {store}/{row.shard} is no safetensors file ({error})") from None
